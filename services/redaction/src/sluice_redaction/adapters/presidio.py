"""The detector: Presidio's recognizers and ours, run one after the other over one text.

Presidio's `AnalyzerEngine` is left out on purpose: it copies every result deeply and looks context words up among
lemmas, which need four more spaCy pipes. Recognizers are run as they are; context is looked for in the text.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from presidio_analyzer import LocalRecognizer, Pattern, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts
from presidio_analyzer.predefined_recognizers import (
    AbaRoutingRecognizer,
    CreditCardRecognizer,
    CryptoRecognizer,
    DateRecognizer,
    EmailRecognizer,
    IbanRecognizer,
    IpRecognizer,
    MacAddressRecognizer,
    MedicalLicenseRecognizer,
    NhsRecognizer,
    PhoneRecognizer,
    UkNinoRecognizer,
    UrlRecognizer,
    UsBankRecognizer,
    UsItinRecognizer,
    UsLicenseRecognizer,
    UsPassportRecognizer,
    UsSsnRecognizer,
)
from spacy.tokens import Doc
from spacy.vocab import Vocab

from sluice_redaction.domain.findings import Finding

from .api_keys import ApiKeyRecognizer
from .dates_of_birth import DateOfBirthRecognizer
from .medical_records import MedicalRecordRecognizer
from .offline import use_packaged_suffix_list
from .phone_numbers import WrittenPhoneRecognizer
from .rampart import HINT, RampartModel, RampartRecognizer
from .spacy_names import NAME as SPACY_NAMES
from .spacy_names import SpacyNames
from .street_addresses import StreetAddressRecognizer

# Presidio's own pattern lets the local part run on without end, which is quadratic on a long line of dots; 64 is the
# standard's limit (RFC 5321). The domain is bounded likewise.
_EMAIL = Pattern(
    "e-mail address",
    r"(?<![\w.+\-])[\w!#$%&'*+\-/=?^`{|}~.]{1,64}@(?:[\w](?:[\w\-]{0,62})\.){1,8}[^\W\d_][\w\-]{1,62}(?![\w\-])",
    0.8,
)

# `scheme://user:` before it makes it the password of a URL, which is a secret and no address.
_URL_USER = re.compile(r"://[^\s/@:]{1,64}:$")


class AnyDomainEmailRecognizer(EmailRecognizer):
    """E-mail addresses by their syntax. Presidio's drops every address outside of the public suffix list, and with it the
    addresses of a company's own network (`.local`, `.internal`, `.corp`), which name people just as well."""

    def validate_result(self, pattern_text: str) -> bool | None:
        """True for a public suffix (full score), None otherwise (the pattern's own score)."""
        return super().validate_result(pattern_text) or None

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None, regex_flags: int | None = None
    ) -> list[RecognizerResult]:
        found = super().analyze(text, entities, nlp_artifacts, regex_flags)
        return [result for result in found if not _URL_USER.search(text[max(0, result.start - 80) : result.start])]


# Presidio's has 700 endings behind an open-ended head: 8 s for 8,000 characters of "a.a.a.". Ours starts only where a
# word starts, and takes a name without a scheme for an address only with an ending that is no file extension.
_URLS = [
    Pattern("with scheme", r"(?<![a-z0-9])(?:https?|ftp|wss?)://[^\s<>\"'`]{1,2000}(?<![.,;:!?)\]}])", 0.8),
    Pattern("www", r"(?<![\w.@\-])www\.[^\s<>\"'`@]{2,2000}(?<![.,;:!?)\]}])", 0.7),
    Pattern(
        "domain",
        r"(?<![\w.@\-/])(?:[a-z0-9](?:[a-z0-9\-]{0,61}[a-z0-9])?\.){1,5}(?:com|org|net|edu|gov|info|biz|io|ai|dev|app|eu|uk|de"
        r"|fr|es|it|nl|ch|at|us|ca|au|jp|cn|in|br)(?![\w.\-])(?:/[^\s<>\"'`]{0,2000}(?<![.,;:!?)\]}]))?",
        0.5,
    ),
]
# What models are shown of long runs of signs: 16 of them, then blanks. spaCy's tokenizer takes a run apart sign by sign,
# which is quadratic (14 s for 8,000 emoji); no name has such a run. Lengths stay, so offsets do.
_SIGNS = re.compile(r"[^\w\s]{17,}")
# Presidio's stops at 17 digits; cards have up to 19. The checksum decides.
_LONG_CARD = Pattern("13 to 19 digits", r"(?<!\d)[3-6]\d{3}(?:[ \-]?\d){9,15}(?!\d)", 0.3)
_WORD = re.compile(r"[^\W_]+")
_PHONE_WORDS = "phone telephone tel cell cellphone mobile call fax number text sms whatsapp reach office desk"
_CONTEXT_BEFORE, _CONTEXT_AFTER = 60, 24
_CONTEXT_GAIN, _CONTEXT_FLOOR = 0.35, 0.4  # as in Presidio's own enhancer


@dataclass(frozen=True, slots=True)
class Source:
    """A recognizer, and what its findings need.

    context: words (lower case, whole) that raise a score when they stand shortly before or after. needs_context:
    findings without any are dropped, because the pattern alone hits one number in ten. any_of: the recognizer finds
    nothing in a text without one of these characters, so it need not be run. confirmed: its pattern alone settles the
    kind. is_model: it reads tokens, so runs of signs are thinned out for it.
    """

    recognizer: LocalRecognizer
    context: frozenset[str] = frozenset()
    needs_context: bool = False
    any_of: str = ""
    confirmed: bool = False
    is_model: bool = False

    @property
    def name(self) -> str:
        return str(self.recognizer.name)  # type: ignore[has-type]  # Presidio sets it without a type


@dataclass(frozen=True, slots=True)
class Listed:
    """A recognizer as callers see it. digest: of its model, empty for patterns."""

    name: str
    kinds: Sequence[str]
    digest: str = field(default="")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def pattern_sources(phone_regions: Sequence[str]) -> list[Source]:
    """Presidio's pattern recognizers with our context words (theirs match inside words), and ours."""
    digits = "0123456789"
    return [
        Source(ApiKeyRecognizer(), confirmed=True),
        Source(DateOfBirthRecognizer(), any_of=digits, confirmed=True),
        Source(MedicalRecordRecognizer(), any_of=digits, confirmed=True),
        Source(StreetAddressRecognizer(), any_of=digits),
        Source(AnyDomainEmailRecognizer(patterns=[_EMAIL]), any_of="@", confirmed=True),
        Source(
            CreditCardRecognizer(patterns=[*CreditCardRecognizer.PATTERNS, _LONG_CARD]),
            _words("credit card visa mastercard amex discover debit cc"),
            any_of=digits,
        ),
        Source(IbanRecognizer(), _words("iban bank account"), any_of=digits),
        Source(CryptoRecognizer(), _words("bitcoin btc wallet crypto"), any_of=digits),
        Source(IpRecognizer(), _words("ip ipv4 ipv6 address"), any_of=".:"),
        Source(MacAddressRecognizer(), _words("mac hardware ethernet"), any_of=":-."),
        Source(UsSsnRecognizer(), _words("social security ssn ssns ss"), any_of=digits, confirmed=True),
        Source(UsItinRecognizer(), _words("itin taxpayer tax tin"), any_of=digits),
        Source(UsPassportRecognizer(), _words("passport"), needs_context=True, any_of=digits),
        Source(
            UsLicenseRecognizer(),
            _words("driver drivers driver's license licence driving dl permit"),
            needs_context=True,
            any_of=digits,
        ),
        Source(UsBankRecognizer(), _words("account acct bank checking savings"), needs_context=True, any_of=digits),
        Source(AbaRoutingRecognizer(), _words("aba routing"), needs_context=True, any_of=digits),
        Source(
            MedicalLicenseRecognizer(), _words("dea medical certificate prescriber"), needs_context=True, any_of=digits
        ),
        Source(NhsRecognizer(), _words("nhs health"), needs_context=True, any_of=digits),
        Source(UkNinoRecognizer(), _words("insurance nino ni"), any_of=digits),
        Source(
            PhoneRecognizer(supported_regions=tuple(phone_regions)),
            _words(_PHONE_WORDS),
            any_of=digits,
        ),
        Source(WrittenPhoneRecognizer(), _words(_PHONE_WORDS), any_of=digits),
        Source(UrlRecognizer(patterns=_URLS), any_of=".:"),
        Source(DateRecognizer(), _words("date"), any_of=digits),
    ]


class PresidioDetector:
    """Fits `domain.findings.Detector`. One thread at a time: make one for each worker."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = tuple(sources)
        self._artifacts = _no_artifacts()

    def detect(self, text: str, kinds: frozenset[str]) -> Iterable[Finding]:
        characters = set(text)
        thinned = _SIGNS.sub(lambda run: run[0][:16] + " " * (len(run[0]) - 16), text)
        found: list[Finding] = []
        for source in self._sources:
            offered = source.recognizer.supported_entities
            if kinds.isdisjoint(offered) or (source.any_of and characters.isdisjoint(source.any_of)):
                continue
            shown = thinned if source.is_model else text
            for result in source.recognizer.analyze(shown, offered, self._artifacts):
                found.extend(_findings(result, source, text))
        return _believed(found)

    def listed(self) -> list[Listed]:
        return [
            Listed(
                source.name,
                sorted(source.recognizer.supported_entities),
                source.recognizer.model.digest if isinstance(source.recognizer, RampartRecognizer) else "",
            )
            for source in self._sources
        ]


class DetectorFactory:
    """Makes detectors, one for each worker thread; what can be shared between them is loaded once."""

    def __init__(self, *, phone_regions: Sequence[str] = ("US", "GB"), spacy_names: bool = True) -> None:
        use_packaged_suffix_list()
        self._phone_regions = phone_regions
        self._spacy_names = spacy_names
        self._rampart = RampartModel()

    def __call__(self) -> PresidioDetector:
        sources = [*pattern_sources(self._phone_regions), Source(RampartRecognizer(self._rampart), is_model=True)]
        if self._spacy_names:
            sources.append(Source(SpacyNames(), is_model=True))
        return PresidioDetector(sources)


def _findings(result: RecognizerResult, source: Source, text: str) -> Iterator[Finding]:
    score, explanation = result.score, _explained(result)
    if source.context:
        word = _context_word(text, result, source.context)
        if word is None and source.needs_context:
            return
        if word is not None:
            score = min(1.0, max(score + _CONTEXT_GAIN, _CONTEXT_FLOOR))
            explanation = f"context:{word}"
    confirmed = source.confirmed or explanation == "checksum" or explanation.startswith("context:")
    yield Finding(result.start, result.end, result.entity_type, score, source.name, explanation, confirmed)


def _believed(found: Sequence[Finding]) -> list[Finding]:
    """Without hints, and without names that spaCy alone believes in: it takes any odd noun for a person."""
    names = [one for one in found if one.kind == "PERSON" and one.recognizer != SPACY_NAMES]
    return [
        one
        for one in found
        if one.explanation != HINT
        and (one.kind != "PERSON" or one.recognizer != SPACY_NAMES or any(one.overlaps(name) for name in names))
    ]


def _explained(result: RecognizerResult) -> str:
    explanation = result.analysis_explanation
    if explanation is None:
        return ""
    if explanation.validation_result:
        return "checksum"
    return explanation.pattern_name or ""


def _context_word(text: str, result: RecognizerResult, context: frozenset[str]) -> str | None:
    before = text[max(0, result.start - _CONTEXT_BEFORE) : result.start]
    after = text[result.end : result.end + _CONTEXT_AFTER]
    words: Mapping[str, None] = dict.fromkeys(word.lower() for word in _WORD.findall(before + " " + after))
    return next((word for word in words if word in context), None)


def _no_artifacts() -> NlpArtifacts:
    """What Presidio's recognizers want to be given; none of ours reads it."""
    return NlpArtifacts(entities=[], tokens=Doc(Vocab()), tokens_indices=[], lemmas=[], nlp_engine=None, language="en")

"""Policies from YAML files: what the models cannot check, and what it all means."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sluice_kit.configuration import ConfigurationRefused, Document, Mistake, SourceFile, document

from sluice_redaction.domain.book import DEFAULT, PolicyBook
from sluice_redaction.domain.kinds import DEFAULT_KINDS, KINDS
from sluice_redaction.domain.operators import KEYED, Operation, Operator
from sluice_redaction.domain.policy import LANGUAGES, KindRule, Policy
from sluice_redaction.domain.recognizers import (
    DENY_LIST,
    PatternRecognizer,
    Recognizer,
    ScoredPattern,
    WordRecognizer,
)

from .linear_patterns import LinearPattern, PatternRefused
from .policy_schema import KindEntry, MaskEntry, PolicyFile, RecognizerEntry

SHIPPED = Path(__file__).parent / "policies"
Place = tuple[str | int, ...]
# Endings that tokens of ours have after the kind: `<KIND_1>`, `<KIND_ENC_...>`.
_TAKEN_ENDING = re.compile(r"_(?:[0-9]+|ENC|HASH)$")
# A mask of letters, digits or blanks would look like a value, and these signs mean something in JSON and in tokens.
_MASKS = "*#•█▒░_-+=x×X"
# Kinds named after a country, where the name does not begin with its ISO 3166 code.
_COUNTRY_OF_PREFIX = {"UK": "GB", "ABA": "US"}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the settings say: whether there is a key, and how the shipped `default` differs. None: it does not."""

    has_key: bool = False
    kinds: tuple[str, ...] = ()
    min_score: float | None = None
    allowed_words: tuple[str, ...] = ()

    @property
    def change_the_default(self) -> bool:
        return bool(self.kinds or self.allowed_words or self.min_score is not None)


def read_book(sources: Sequence[SourceFile], surroundings: Surroundings) -> PolicyBook:
    """The policies of all files; one in a later folder takes the place of an earlier folder's with the same id.

    Raises ConfigurationRefused with every mistake of all files.
    """
    readings: list[_Reading] = []
    mistakes: list[Mistake] = []
    for source in sources:
        try:
            readings.append(_Reading(document(source, PolicyFile), surroundings))
        except ConfigurationRefused as refused:
            mistakes += refused.mistakes
    mistakes += [mistake for reading in readings for mistake in reading.mistakes]
    mistakes += _clashes(readings, surroundings)
    if mistakes:
        raise ConfigurationRefused(sorted(mistakes))
    return PolicyBook({reading.policy.id: reading.policy for reading in readings}.values())


def _clashes(readings: Sequence["_Reading"], surroundings: Surroundings) -> Iterator[Mistake]:
    """What is wrong with files only beside each other."""
    in_force = {reading.file.policy: reading for reading in readings}
    seen: dict[tuple[Path, str], Path] = {}
    tenants: dict[str, str] = {}
    for reading in readings:
        path, policy_id = reading.document.source.path, reading.file.policy
        first = seen.setdefault((path.parent, policy_id), path)
        if first != path:
            yield reading.mistake(f"policy {policy_id} also stands in {first.name}; keep one", "policy")
        if in_force[policy_id] is not reading:
            continue
        for number, tenant in enumerate(reading.file.tenants):
            other = tenants.setdefault(tenant, policy_id)
            if other != policy_id or tenant in reading.file.tenants[:number]:
                yield reading.mistake(f"this tenant already has policy {other}; it can have one", "tenants", number)
        if policy_id == DEFAULT and reading.file.tenants:
            yield reading.mistake("the default policy is for everybody: give this one another id", "tenants")
        if policy_id == DEFAULT and path.parent != SHIPPED and surroundings.change_the_default:
            told = (
                "is also changed by SLUICE_REDACTION_KINDS, _MIN_SCORE or _ALLOWED_WORDS; unset them, or drop this file"
            )
            yield reading.mistake(f"the default policy {told}", "policy")


class _Reading:
    """One file on its way to a policy. `policy` is what was meant; it counts only if there are no mistakes."""

    def __init__(self, document: Document[PolicyFile], surroundings: Surroundings) -> None:
        self.document = document
        self.file = document.value
        self.mistakes: list[Mistake] = []
        self._surroundings = surroundings
        self.policy = self._policy()

    def mistake(self, reason: str, *at: str | int) -> Mistake:
        return self.document.mistake(f"{_name(at)}: {reason}" if at else reason, at=at)

    def _note(self, reason: str, *at: str | int) -> None:
        self.mistakes.append(self.mistake(reason, *at))

    def _policy(self) -> Policy:
        file = self.file
        recognizers = (*self._recognizers(), *self._deny_lists())
        own_kinds = frozenset(one.kind for one in recognizers)
        self._check_names(own_kinds)
        kinds = self._included() | own_kinds | file.kinds.keys()
        if not kinds:
            self._note("the policy names no kinds: give `include: default`, or `kinds`")
        operator = self._operator(file.operator, file.mask)
        allowed, min_score = file.allow.values, file.min_score
        if file.policy == DEFAULT and self.document.source.path.parent == SHIPPED:
            kinds = frozenset(self._surroundings.kinds) or kinds
            allowed += self._surroundings.allowed_words
            given = self._surroundings.min_score
            min_score = min_score if given is None else given
        return Policy(
            id=file.policy, version=file.version, description=file.description, kinds=frozenset(kinds),
            min_score=min_score, allowed=frozenset(value.casefold() for value in allowed),
            rules={kind: self._rule(kind, entry) for kind, entry in file.kinds.items() if entry is not None},
            operator=operator, tenants=frozenset(file.tenants), languages=file.languages, regions=file.regions,
            allowed_patterns=tuple(self._patterns_allowed()), recognizers=recognizers,
        )  # fmt: skip

    def _included(self) -> frozenset[str]:
        """With regions, kinds that belong to another country are left out; those named in the file stay."""
        kinds = {"default": DEFAULT_KINDS, "everything": frozenset(KINDS), "none": frozenset()}[self.file.include]
        regions = self.file.regions
        return frozenset(kind for kind in kinds if not regions or _country_of(kind) in (None, *regions))

    def _check_names(self, own_kinds: frozenset[str]) -> None:
        known = KINDS.keys() | own_kinds
        for kind in self.file.kinds:
            if kind not in known:
                near = difflib.get_close_matches(kind, known, n=1)
                hint = f"did you mean {near[0]}?" if near else "a kind of your own needs a recognizer or a deny list"
                self._note(f"there is no such kind; {hint}", "kinds", kind)
        for number, language in enumerate(self.file.languages):
            if language not in LANGUAGES:
                self._note(f"the recognizers know {', '.join(LANGUAGES)} only", "languages", number)

    def _rule(self, kind: str, entry: KindEntry) -> KindRule:
        operator = None
        if entry.operator is not None or entry.mask is not None:
            operator = self._operator(entry.operator or self.file.operator, entry.mask, "kinds", kind)
        return KindRule(operator, entry.min_score, entry.direction)

    def _operator(self, operation: Operation, mask: MaskEntry | None, *at: str | int) -> Operator:
        if operation in KEYED and not self._surroundings.has_key:
            self._note(f"{operation} needs a key: set SLUICE_REDACTION_KEY_FILE", *at, "operator")
        if mask is None:
            return Operator(operation)
        if operation is not Operation.MASK:
            self._note(f"mask has a meaning beside `operator: mask` only, not beside {operation}", *at, "mask")
        if mask.character not in _MASKS:
            self._note(f"must be one of {' '.join(_MASKS)}", *at, "mask", "character")
        return Operator(operation, mask.character, mask.count, mask.from_end)

    def _patterns_allowed(self) -> Iterator[LinearPattern]:
        for number, source in enumerate(self.file.allow.patterns):
            if pattern := self._pattern(source, "allow", "patterns", number):
                yield pattern

    def _deny_lists(self) -> Iterator[Recognizer]:
        for kind, words in self.file.deny.items():
            self._check_own_kind(kind, "deny", kind)
            self._check_words(words, "deny", kind)
            yield WordRecognizer(DENY_LIST, kind, words)

    def _recognizers(self) -> Iterator[Recognizer]:
        names: set[str] = set()
        for number, entry in enumerate(self.file.recognizers):
            at = ("recognizers", number)
            if entry.name in names or entry.name == DENY_LIST:
                self._note(f"a recognizer of the name {entry.name} stands here already", *at, "name")
            names.add(entry.name)
            self._check_own_kind(entry.kind, *at, "kind")
            yield from self._recognizer(entry, at)

    def _recognizer(self, entry: RecognizerEntry, at: Place) -> Iterator[Recognizer]:
        if not entry.patterns and not entry.words:
            self._note("has neither patterns nor words", *at)
        if entry.needs_context and not entry.context:
            self._note("needs context, and names no context words", *at, "needs_context")
        if entry.checksum and not entry.patterns:
            self._note("a checksum is for what patterns find; there are none", *at, "checksum")
        for number, word in enumerate(entry.context):
            if not re.fullmatch(r"[^\W_]+", word):
                self._note("must be one word of letters and digits", *at, "context", number)
        self._check_words(entry.words, *at, "words")
        patterns = [
            ScoredPattern(one.name, compiled, one.score)
            for number, one in enumerate(entry.patterns)
            if (compiled := self._pattern(one.regex, *at, "patterns", number, "regex"))
        ]
        if patterns:
            context = frozenset(word.lower() for word in entry.context)
            yield PatternRecognizer(
                entry.name, entry.kind, tuple(patterns), context, entry.needs_context, entry.checksum or ""
            )
        if entry.words:
            yield WordRecognizer(entry.name, entry.kind, entry.words)

    def _check_words(self, words: Iterable[str], *at: str | int) -> None:
        for number, word in enumerate(words):
            if not any(character.isalnum() for character in word):
                self._note("has no letter or digit to be found by", *at, number)

    def _check_own_kind(self, kind: str, *at: str | int) -> None:
        if kind not in KINDS and _TAKEN_ENDING.search(kind):
            self._note("a kind's name must not end in _ENC, _HASH or a number: tokens do", *at)

    def _pattern(self, source: str, *at: str | int) -> LinearPattern | None:
        try:
            return LinearPattern(source)
        except PatternRefused as refused:
            self._note(str(refused), *at)
            return None


def _country_of(kind: str) -> str | None:
    """ISO 3166 code of the country that a kind's name begins with; None for kinds of no one country."""
    prefix = kind.split("_")[0]
    return _COUNTRY_OF_PREFIX.get(prefix, prefix if len(prefix) == 2 and prefix not in ("IP", "EU") else None)


def _name(place: Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")

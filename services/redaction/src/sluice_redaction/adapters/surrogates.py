"""Made-up values for `surrogate`: names, places and companies from Faker, numbers from reserved ranges.

Which value is made up depends on a key, the request and the original alone: the same original gives the same value in a
request, another in the next, and nobody without the key can tell which. Nothing is guessed about a person.
"""

import hashlib
import hmac
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import phonenumbers
from faker.factory import Factory
from faker.generator import Generator

from sluice_redaction.domain import surrogate_dates
from sluice_redaction.domain import surrogate_numbers as numbers
from sluice_redaction.domain.operators import Taken

_TRIES = 12
_ENOUGH_NAMES = 40
# ISO 3166 -> Faker's locale; the rest gets English names.
_LOCALES = {
    "US": "en_US", "GB": "en_GB", "IE": "en_IE", "AU": "en_AU", "NZ": "en_NZ", "CA": "en_CA", "IN": "en_IN", "DE": "de_DE",
    "AT": "de_AT", "CH": "de_CH", "FR": "fr_FR", "BE": "fr_BE", "ES": "es_ES", "IT": "it_IT", "PT": "pt_PT", "BR": "pt_BR",
    "NL": "nl_NL", "SE": "sv_SE", "NO": "no_NO", "DK": "da_DK", "FI": "fi_FI", "PL": "pl_PL", "GR": "el_GR", "RU": "ru_RU",
    "UA": "uk_UA", "JP": "ja_JP", "CN": "zh_CN", "KR": "ko_KR", "IL": "he_IL", "TH": "th_TH",
}  # fmt: skip
# A value's own script goes before the region.
_SCRIPTS = (
    (re.compile("[\u0400-\u04ff]"), "ru_RU"),
    (re.compile("[\u0370-\u03ff]"), "el_GR"),
    (re.compile("[\u0590-\u05ff]"), "he_IL"),
    (re.compile("[\u0600-\u06ff]"), "ar_AA"),
    (re.compile("[\u0900-\u097f]"), "hi_IN"),
    (re.compile("[\u0e00-\u0e7f]"), "th_TH"),
    (re.compile("[\uac00-\ud7af]"), "ko_KR"),
    (re.compile("[\u3040-\u30ff]"), "ja_JP"),
    (re.compile("[\u4e00-\u9fff]"), "zh_CN"),
)
_KEPT_IN_NAMES_TEXT = """
al bin da das de del della den der di dos du el ibn la le van von zu
dr jr miss mr mrs ms prof sir sr
"""
_KEPT_IN_NAMES = frozenset(_KEPT_IN_NAMES_TEXT.split())
# National numbers that regulators keep for fiction (x: any digit): NANPA 555-01xx, Ofcom, ARCEP, Bundesnetzagentur, ACMA,
# PTS, ComReg.
_FICTION = {
    "US": ("2025550 1xx", "2125550 1xx", "3035550 1xx", "4155550 1xx", "6175550 1xx"),
    "CA": ("4165550 1xx", "6045550 1xx", "5145550 1xx"),
    "GB": ("7700900 xxx", "2079460 xxx", "1632960 xxx"),
    "FR": ("19900 xxxx", "26191 xxxx", "63998 xxxx"),
    "DE": ("3023125 xxx", "4066969 xxx", "17139200 xx"),
    "AU": ("25550 xxxx", "37010 xxxx"),
    "SE": ("8465004 xx", "313900 6xx"),
    "IE": ("2091 xxxxx",),
}
_EXTENSION = re.compile(r"\s*(?:ext\.?|x|#)\s*\d{1,6}$", re.IGNORECASE)
_EMAIL_HOSTS = ("example.com", "example.org", "example.net")  # RFC 2606
_MONTH_FIRST = ("US", "PH")


@dataclass(frozen=True, slots=True)
class SurrogateMaker:
    """secret: 32 bytes or more. Without one of the operator's, any that lives as long as the process does."""

    secret: bytes

    def for_request(self, request_id: str, *, tenant: str = "", regions: Sequence[str] = ()) -> "RequestSurrogates":
        """regions: ISO 3166, whose formats values have where they do not tell themselves."""
        seed = hmac.digest(self.secret, f"{tenant}\0{request_id}".encode(), hashlib.sha256)
        return RequestSurrogates(seed, tuple(regions) or ("US",))


@dataclass(frozen=True, slots=True)
class RequestSurrogates:
    """Fits `domain.operators.Surrogates`."""

    seed: bytes
    regions: tuple[str, ...]

    def candidates(self, value: str, kind: str, taken: Taken) -> Iterator[str]:
        for attempt in range(_TRIES):
            made_up = self._made_up(value, kind, self._random(kind, value, str(attempt)), taken)
            if made_up is None:
                return
            if value.casefold() not in made_up.casefold():
                yield made_up

    def _made_up(self, value: str, kind: str, random: Random, taken: Taken) -> str | None:
        region = self.regions[0]
        match kind:
            case "PERSON":
                return _name(value, region, random, taken)
            case "PHONE_NUMBER":
                return phone_number(value, self.regions, random)
            case "DATE_OF_BIRTH" | "DATE_TIME" | "DATE":
                days = self._random("dates").choice((-1, 1)) * self._random("days").randrange(20, 400)
                return surrogate_dates.moved(value, days, month_first=region in _MONTH_FIRST)
            case "LOCATION" | "STREET_ADDRESS" | "ORGANIZATION" | "EMAIL_ADDRESS" | "URL":
                return _written(value, kind, region, random)
        return _NUMBERS.get(kind, numbers.reshaped)(value, random)

    def _random(self, *parts: str) -> Random:
        drawn = hmac.digest(self.seed, "\0".join(parts).encode("utf-8", "surrogatepass"), hashlib.sha256)
        return Random(drawn)  # noqa: S311 - seeded by a keyed hash; not what keeps it secret


_NUMBERS: dict[str, Callable[[str, Random], str | None]] = {
    "CREDIT_CARD": numbers.card,
    "IBAN_CODE": numbers.iban,
    "US_SSN": numbers.us_ssn,
    "US_ITIN": numbers.us_itin,
    "UK_NHS": numbers.uk_nhs,
    "UK_NINO": numbers.uk_nino,
    "IP_ADDRESS": numbers.ip_address,
    "MAC_ADDRESS": numbers.mac_address,
    "AGE": numbers.age,
    "NRP": lambda value, random: None,
}


def _name(value: str, region: str, random: Random, taken: Taken) -> str | None:
    """Word by word: the last is a family name, the others are given names; titles and particles stay."""
    words = value.split()
    faker = _Faker.of(value, region)
    made_up = []
    for number, word in enumerate(words):
        plain = word.strip(".,")
        if not plain or (plain.casefold() in _KEPT_IN_NAMES and len(words) > 1):
            made_up.append(word)
        elif len(plain) == 1:
            made_up.append(word.replace(plain, random.choice("ABCDEFGHJKLMNPRSTVW")))
        else:
            is_last = number == len(words) - 1 and len(words) > 1
            made_up.append(taken.part(word) or faker.name_like(plain, random, family=is_last))
    return (
        None
        if any(word == other for word, other in zip(words, made_up, strict=True) if _tells(word))
        else " ".join(made_up)
    )


def _tells(word: str) -> bool:
    return word.strip(".,").casefold() not in _KEPT_IN_NAMES


def _written(value: str, kind: str, region: str, random: Random) -> str:
    faker = _Faker.of(value, region)
    match kind:
        case "LOCATION":
            return _cased_like(value, faker.draw("city", random))
        case "ORGANIZATION":
            return faker.draw("company", random)
        case "STREET_ADDRESS":
            street = faker.draw("street_address", random)
            has_town = "," in value or "\n" in value
            return f"{street}, {faker.draw('city', random)} {faker.draw('postcode', random)}" if has_town else street
        case "EMAIL_ADDRESS":
            english = _Faker.of("", "US")
            first, last = english.draw("first_name", random), english.draw("last_name", random)
            return f"{first}.{last}{random.randrange(10, 1000)}@{random.choice(_EMAIL_HOSTS)}".lower()
    scheme = re.match(r"[a-z]+://", value, re.IGNORECASE)
    return f"{scheme[0] if scheme else ''}www.{random.choice(_EMAIL_HOSTS)}/{random.randrange(16**8):08x}"


def phone_number(value: str, regions: Sequence[str], random: Random) -> str | None:
    """From a range kept for fiction where the country has one, written like the original; extensions are dropped.

    Elsewhere all digits but the calling code are replaced by others.
    """
    shape = _EXTENSION.sub("", value)
    parsed, region = _parsed(shape, regions)
    if parsed is None:
        return numbers.reshaped(shape, random) if len(shape) > 6 else None
    code = str(parsed.country_code)
    if region not in _FICTION:
        kept = len(code) + 1 if shape.startswith(f"+{code}") else 0
        rest = numbers.reshaped(shape[kept:], random)
        return rest and shape[:kept] + rest
    template = random.choice(_FICTION[region]).replace(" ", "")
    national = "".join(str(random.randrange(10)) if digit == "x" else digit for digit in template)
    digits = "".join(character for character in shape if character.isdigit())
    for lead in (code, f"00{code}", "0", "1", ""):
        if len(lead) + len(national) == len(digits) and digits.startswith(lead):
            return numbers.filled(shape, lead + national)
    international = "+" in shape or digits.startswith("00")
    style = phonenumbers.PhoneNumberFormat.INTERNATIONAL if international else phonenumbers.PhoneNumberFormat.NATIONAL
    number = phonenumbers.PhoneNumber(country_code=parsed.country_code, national_number=int(national))
    return phonenumbers.format_number(number, style)


def _parsed(shape: str, regions: Sequence[str]) -> tuple[phonenumbers.PhoneNumber | None, str]:
    """The number, and the region it is of: where several share a calling code, one with a range for fiction."""
    for region in regions:
        try:
            parsed = phonenumbers.parse(shape, region)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_possible_number(parsed):
            own = phonenumbers.region_code_for_number(parsed) or ""
            main = phonenumbers.region_code_for_country_code(parsed.country_code or 0)
            return parsed, own if own in _FICTION else main
    return None, ""


class _Faker:
    """One locale's generator. Faker's generators are no good for two threads at once, hence the lock."""

    def __init__(self, locale: str) -> None:
        self._generator: Generator = Factory.create(locale)
        self._lock = threading.Lock()
        # Straight from its lists where it has them: drawing by weight takes a hundred times as long, and common names
        # collide more often.
        people = self._generator.provider("faker.providers.person")
        self._given, self._family = (
            tuple(dict.fromkeys(name.split()[place] for name in getattr(people, names, ())))
            for names, place in (("first_names", 0), ("last_names", -1))
        )

    @staticmethod
    def of(value: str, region: str) -> "_Faker":
        script = next((locale for letters, locale in _SCRIPTS if letters.search(value)), None)
        return _faker(script or _LOCALES.get(region, "en_US"))

    def draw(self, what: str, random: Random) -> str:
        """Without what would need escaping in JSON."""
        with self._lock:
            self._generator.random = random
            return re.sub(r"[\"\\\s]+", " ", str(getattr(self._generator, what)()))

    def name_like(self, word: str, random: Random, *, family: bool) -> str:
        """Written like the word, and not so much like it that it would give it away: no Anne for Ann."""
        made_up = ""
        for _ in range(_TRIES):
            made_up = self._name(random, family=family)
            folded, original = made_up.casefold(), word.casefold()
            if folded not in original and original not in folded:
                break
        return _cased_like(word, made_up)

    def _name(self, random: Random, *, family: bool) -> str:
        listed = self._family if family else self._given
        if len(listed) >= _ENOUGH_NAMES:
            return random.choice(listed)
        drawn = self.draw("last_name" if family else "first_name", random).split()
        return drawn[-1] if family else drawn[0]


@lru_cache(maxsize=32)
def _faker(locale: str) -> _Faker:
    return _Faker(locale)


def _cased_like(value: str, made_up: str) -> str:
    if value.isupper() and len(value) > 1:
        return made_up.upper()
    return made_up.lower() if value.islower() and made_up.lower() != made_up.upper() else made_up

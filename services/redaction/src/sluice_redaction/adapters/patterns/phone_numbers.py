"""Telephone numbers: as numbering plans know them (phonenumbers), and as people write them.

phonenumbers' own matcher reads a whole text once a region and was the dearest of all recognizers. Here one expression cuts
out what is written like a number, and only that is parsed.
"""

import re
from collections.abc import Callable, Sequence

import phonenumbers

from .context import Context, called_otherwise
from .recognizer import Check, Pattern, Recognizer

WORDS = (
    "phone|telephone|tel|cell|cellphone|mobile|mob|call|fax|text|sms|whatsapp|reach|contact|dial|hotline|telefon|tel.|téléphone|teléfono"
    "|telefono|telefoon|handy|portable|móvil|cellulare|ring|ph|phone number|contact number|landline|helpline|voicemail"
)
# The regions whose national forms are looked for unless a policy says otherwise. Each costs a parse (60 us) for each
# candidate that no region before it took; in a text without candidates they cost nothing.
DEFAULT_REGIONS = (
    "US",
    "GB",
    "CA",
    "AU",
    "IN",
    "SG",
    "DE",
    "FR",
    "ES",
    "IT",
    "NL",
    "IE",
    "NZ",
    "ZA",
    "BR",
    "MX",
    "CH",
    "AT",
    "BE",
    "SE",
)
_EDGE = r"(?<![0-9A-Za-z.\-+/_=#$€£])"
_EXTENSION = r"(?:[ ]?(?:,[ ]?)?(?:x|ext\.?|extension)[ ]?[0-9]{1,6})?(?![0-9A-Za-z_]|[.\-/][0-9])"
_SEPARATOR = r"(?:[ .\-/]|\)[ ]?|[ ]\(|[ ]?-[ ]?)"
_INTERNATIONAL = rf"(?<![0-9A-Za-z+])\+[ ]?\(?[0-9]{{1,3}}\)?(?:{_SEPARATOR}?\(?[0-9]{{1,5}}){{1,7}}{_EXTENSION}"
_DOUBLE_ZERO = rf"{_EDGE}00[ ]?[1-9][0-9]{{0,2}}(?:{_SEPARATOR}?\(?[0-9]{{1,5}}){{2,7}}{_EXTENSION}"
# Behind a trunk zero, in groups: Europe, Australia, India.
_TRUNK = rf"{_EDGE}\(?0[1-9][0-9]{{0,4}}\)?(?:[ .\-/]{{1,2}}[0-9]{{2,8}}){{1,5}}{_EXTENSION}"
_NORTH_AMERICAN = rf"{_EDGE}(?:1[ .\-])?\(?[2-9][0-9]{{2}}\)?[ .\-]{{0,2}}[2-9][0-9]{{2}}[ .\-][0-9]{{4}}{_EXTENSION}"
# Invented area codes, as in examples and test data: the form alone.
_THREE_GROUPS = (
    rf"{_EDGE}(?:(?:00)?[0-9]{{1,3}}[ .\-])?\(?[0-9]{{3}}\)?[ .\-]{{0,2}}[0-9]{{3}}[ .\-][0-9]{{4}}{_EXTENSION}"
)
# Three, two and four digits are a social security number, whatever words stand beside.
_ANY_GROUPS = rf"{_EDGE}(?![0-9]{{3}}[ .\-][0-9]{{2}}[ .\-][0-9]{{4}}(?![0-9]))\(?[0-9]{{2,5}}\)?(?:[ .\-/]{{1,2}}[0-9]{{2,6}}){{1,5}}{_EXTENSION}"
_RUN = rf"{_EDGE}[0-9]{{7,13}}{_EXTENSION}"


def _digits(value: str) -> int:
    return sum(sign.isdigit() for sign in value)


def _parsed(value: str, region: str | None) -> phonenumbers.PhoneNumber | None:
    try:
        return phonenumbers.parse(value, region)
    except phonenumbers.NumberParseException:
        return None


def _international(value: str) -> bool | None:
    """True if the plan of its country knows it, None if its length is possible, False else."""
    plus = value if value.startswith("+") else "+" + value.lstrip("0 ")
    number = _parsed(plus, None)
    if number is None:
        return None if 9 <= _digits(value) <= 15 else False
    if phonenumbers.is_valid_number(number):
        return True
    return None if 8 <= _digits(value) <= 16 else False


def _national(regions: Sequence[str]) -> Callable[[str], bool | None]:
    """Whether one of the regions' plans knows the number. A parse takes 60 us, so the plan's own expression is asked first,
    with and without the digits that are dialled before a number at home."""
    plans = [(region, form) for region in regions if (form := _national_form(region)) is not None]

    def known(value: str) -> bool | None:
        bare = "".join(sign for sign in value if sign.isdigit())
        if not 7 <= len(bare) <= 17:
            return False
        for region, form in plans:
            if form.match(bare) or form.match(bare[1:]):
                number = _parsed(value, region)
                if number is not None and phonenumbers.is_valid_number(number):
                    return None
        return False

    return known


def _national_form(region: str) -> re.Pattern[str] | None:
    metadata = phonenumbers.PhoneMetadata.metadata_for_region(region)
    pattern = metadata.general_desc.national_number_pattern if metadata and metadata.general_desc else None
    # Not to the end: an extension may follow.
    return re.compile(f"(?:{pattern})", re.ASCII) if pattern else None


def _possible(value: str) -> bool | None:
    return None if 7 <= _digits(value) <= 17 else False


def phone_numbers(regions: Sequence[str] = DEFAULT_REGIONS) -> Recognizer:
    """The recognizer of PHONE_NUMBER. regions: ISO 3166, in the order in which they are tried."""
    plan = Check("numbering plan", _national(tuple(regions)))
    american = tuple(region for region in ("US", "CA") if region in regions)
    return Recognizer(
        "PhoneRecognizer",
        "PHONE_NUMBER",
        [
            Pattern.of("international", _INTERNATIONAL, 0.6, check=Check("numbering plan", _international), ignore_case=True),
            Pattern.of("international, 00", _DOUBLE_ZERO, 0.45, check=Check("numbering plan", _international), ignore_case=True),
            Pattern.of("trunk zero", _TRUNK, 0.5, check=plan, ignore_case=True),
            *([Pattern.of("North American", _NORTH_AMERICAN, 0.65, ignore_case=True)] if american else []),
            Pattern.of("three groups", _THREE_GROUPS, 0.55, ignore_case=True),
            Pattern.of("groups behind a word", _ANY_GROUPS, 0.4, check=Check("", _possible), needs_context=True, ignore_case=True),
            Pattern.of("digits behind a word", _RUN, 0.4, check=Check("", _possible), needs_context=True, ignore_case=True),
        ],
        context=Context(WORDS.split("|")),
        veto=lambda text, start, _: called_otherwise(text, start, None),
    )  # fmt: skip

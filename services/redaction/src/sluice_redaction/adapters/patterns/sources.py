"""Every pattern recognizer with what its findings need."""

from collections.abc import Sequence

from presidio_analyzer import Pattern
from presidio_analyzer.predefined_recognizers import (
    AbaRoutingRecognizer,
    CreditCardRecognizer,
    CryptoRecognizer,
    DateRecognizer,
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

from .api_keys import ApiKeyRecognizer
from .dates_of_birth import DateOfBirthRecognizer
from .detector import Source
from .emails import EMAIL, AnyDomainEmailRecognizer
from .medical_records import MedicalRecordRecognizer
from .phone_numbers import WrittenPhoneRecognizer
from .street_addresses import StreetAddressRecognizer
from .urls import URLS

# Presidio's stops at 17 digits; cards have up to 19. The checksum decides.
_LONG_CARD = Pattern("13 to 19 digits", r"(?<!\d)[3-6]\d{3}(?:[ \-]?\d){9,15}(?!\d)", 0.3)
_PHONE_WORDS = "phone telephone tel cell cellphone mobile call fax number text sms whatsapp reach office desk"


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
        Source(AnyDomainEmailRecognizer(patterns=[EMAIL]), any_of="@", confirmed=True),
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
        Source(UrlRecognizer(patterns=URLS), any_of=".:"),
        Source(DateRecognizer(), _words("date"), any_of=digits),
    ]

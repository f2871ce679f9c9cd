"""The kinds of personal data Sluice knows, under Presidio's names, and which of them are redacted unless asked
otherwise."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of finding.

    `by_default`: redacted when the caller names no kinds. `rank`: which kind names a stretch of text that two
    findings cover equally well with equal scores; lower wins (specific before general).
    """

    name: str
    by_default: bool
    rank: int
    meaning: str


_ROWS = (
    ("API_KEY", True, "API keys, access tokens, private keys, passwords inside connection URLs"),
    ("US_SSN", True, "US social security number"),
    ("US_ITIN", True, "US individual taxpayer number"),
    ("CREDIT_CARD", True, "payment card number with a valid checksum"),
    ("IBAN_CODE", True, "international bank account number with a valid checksum"),
    ("CRYPTO", True, "Bitcoin address with a valid checksum"),
    ("MEDICAL_RECORD_NUMBER", True, "medical record, patient or chart number, named as such in the text"),
    ("MEDICAL_LICENSE", True, "US medical (DEA) licence number"),
    ("UK_NHS", True, "UK National Health Service number"),
    ("UK_NINO", True, "UK national insurance number"),
    ("US_PASSPORT", True, "passport number"),
    ("US_DRIVER_LICENSE", True, "driving licence number"),
    ("ABA_ROUTING_NUMBER", True, "US bank routing number"),
    ("US_BANK_NUMBER", True, "bank account number"),
    ("TAX_ID", True, "tax number of any other country"),
    ("GOVERNMENT_ID", True, "other number a government gives to a person"),
    ("MAC_ADDRESS", True, "hardware address of a network card"),
    ("IP_ADDRESS", True, "IPv4 or IPv6 address"),
    ("DATE_OF_BIRTH", True, "date named as somebody's birth"),
    ("EMAIL_ADDRESS", True, "e-mail address"),
    ("PHONE_NUMBER", True, "telephone number"),
    ("STREET_ADDRESS", True, "street and house number, with the town and post code that stand beside them"),
    ("PERSON", True, "name of a person"),
    ("URL", False, "web address"),
    ("LOCATION", False, "city, state, country or place by itself"),
    ("ORGANIZATION", False, "company, institution"),
    ("NRP", False, "nationality, religious or political group"),
    ("DATE_TIME", False, "date or time that is nobody's birth"),
)

KINDS: Mapping[str, Kind] = MappingProxyType(
    {name: Kind(name, by_default, rank, meaning) for rank, (name, by_default, meaning) in enumerate(_ROWS)}
)
DEFAULT_KINDS: frozenset[str] = frozenset(kind.name for kind in KINDS.values() if kind.by_default)

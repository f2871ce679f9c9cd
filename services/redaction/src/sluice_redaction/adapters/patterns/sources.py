"""Every pattern recognizer there is, in the order of COVERAGE.md."""

from collections.abc import Sequence

from .american_ids import american_ids
from .asian_ids import asian_ids
from .banking import banking
from .births_and_ages import births_and_ages
from .commonwealth_ids import commonwealth_ids
from .crypto_wallets import crypto_wallets
from .emails import emails
from .european_ids import european_ids
from .logins import logins
from .medical_numbers import medical_numbers
from .named_numbers import named_numbers
from .networks import networks
from .phone_numbers import DEFAULT_REGIONS, phone_numbers
from .recognizer import Recognizer
from .secrets import secrets
from .street_addresses import street_addresses
from .urls import urls
from .vehicles import vehicles


def pattern_sources(phone_regions: Sequence[str] = DEFAULT_REGIONS) -> list[Recognizer]:
    """Presidio's recognizers where it has one that stands up, ours elsewhere. phone_regions: ISO 3166."""
    return [
        *secrets(),
        *logins(),
        emails(),
        phone_numbers(phone_regions),
        *networks(),
        urls(),
        street_addresses(),
        *births_and_ages(),
        *banking(),
        crypto_wallets(),
        *medical_numbers(),
        *american_ids(),
        *commonwealth_ids(),
        *european_ids(),
        *asian_ids(),
        *vehicles(),
        *named_numbers(),
    ]

"""Cards and bank accounts."""

import re

from presidio_analyzer.predefined_recognizers import AbaRoutingRecognizer, CreditCardRecognizer, IbanRecognizer

from .checksums import luhn
from .context import Context
from .presidio_bridge import from_presidio
from .recognizer import Check, Pattern, Recognizer

_CARD_WORDS = "credit card|debit card|card|visa|mastercard|maestro|amex|american express|discover|diners|jcb|rupay|unionpay|cc|pan|carte|karte|tarjeta"
_ACCOUNT_WORDS = "account number|account no|acct|acct no|a/c|bank account|bank acc|checking|savings account|direct deposit|kontonummer|konto|rekeningnummer"
# Length of an IBAN by country (SWIFT's IBAN registry); a pattern of one length per country ends where the IBAN ends, not
# in the words behind it.
_IBAN_LENGTHS = [
    "NO15",
    "BE16",
    "DK18",
    "FI18",
    "FO18",
    "GL18",
    "NL18",
    "SD18",
    "MK19",
    "SI19",
    "AT20",
    "BA20",
    "EE20",
    "KZ20",
    "LT20",
    "LU20",
    "XK20",
    "CH21",
    "HR21",
    "LI21",
    "LV21",
    "BG22",
    "BH22",
    "CR22",
    "DE22",
    "GB22",
    "GE22",
    "IE22",
    "ME22",
    "RS22",
    "VA22",
    "AE23",
    "GI23",
    "IL23",
    "IQ23",
    "OM23",
    "SO23",
    "TL23",
    "AD24",
    "CZ24",
    "ES24",
    "MD24",
    "PK24",
    "RO24",
    "SA24",
    "SE24",
    "SK24",
    "TN24",
    "VG24",
    "PT26",
    "IS26",
    "TR26",
    "FR27",
    "GR27",
    "IT27",
    "MR27",
    "MC27",
    "SM27",
    "AL28",
    "AZ28",
    "BY28",
    "CY28",
    "DO28",
    "GT28",
    "HU28",
    "LB28",
    "NI28",
    "PL28",
    "BR29",
    "EG29",
    "PS29",
    "QA29",
    "UA29",
    "JO30",
    "KW30",
    "MU30",
    "MT31",
    "SC31",
    "LC32",
    "RU33",
]
# ISO 3166 countries that banks have codes in, so that eight capitals of another word are no BIC.
_BIC_COUNTRIES = (
    "A[DELRTUZ]|B[AEGHR]|C[AHLNOYZ]|D[EK]|E[EGS]|F[IR]|G[BER]|H[KRU]|I[DELNST]|J[OP]|K[RWZ]|L[BITUV]|M[ACTUXY]|N[GLOZ]|OM|P[AEHKLT]"
    "|QA|R[OSU]|S[AEGIK]|T[HNRW]|U[AS]|V[GN]|ZA"
)


def _iban_pattern(country: str, length: int) -> str:
    whole, rest = divmod(length - 4, 4)
    tail = rf"[ \-]?[A-Z0-9]{{{rest}}}" if rest else ""
    return rf"{country}[0-9]{{2}}(?:[ \-]?[A-Z0-9]{{4}}){{{whole}}}{tail}"


def _iban() -> Recognizer:
    choices = "|".join(_iban_pattern(one[:2], int(one[2:])) for one in _IBAN_LENGTHS)
    theirs = IbanRecognizer()
    # Theirs takes an IBAN in small letters for a doubtful one; the checksum is not in doubt.
    check = Check("mod 97", lambda value: bool(theirs.validate_result(value.upper())))
    return Recognizer(
        "IbanRecognizer",
        "IBAN_CODE",
        [
            Pattern.of(
                "IBAN of a country",
                rf"(?<![A-Z0-9])(?:{choices})(?![A-Z0-9])",
                0.5,
                ignore_case=True,
                check=check,
                trigger=r"[A-Z]{2}[0-9]{2}[ \-]?[A-Z0-9]{4}",
            )
        ],
        context=Context(["iban", "bank", "account", "transfer", "konto", "compte", "cuenta"]),
        confirmed=True,
    )


def _cards() -> Recognizer:
    theirs = CreditCardRecognizer()
    words = Context(_CARD_WORDS.split("|"))
    # Presidio's stops at 17 digits and wants groups of four; cards have 13 to 19. The issuer's first digits and the
    # checksum decide: one number in ten passes a checksum alone.
    issuers = r"(?:4[0-9]{3}|5[0-9]{3}|2[2-7][0-9]{2}|3[0-9]{3}|6[0-9]{3})"
    return Recognizer(
        "CreditCardRecognizer",
        "CREDIT_CARD",
        [
            # Some separators may be missing, or have been invisible signs.
            Pattern.of("groups of four", rf"(?<![0-9A-Za-z.,\-])(?=[0-9]{{4,15}}[ \-])(?:{issuers}[ \-]?[0-9]{{4}}[ \-]?[0-9]{{4}}[ \-]?[0-9]{{1,4}}(?:[ \-]?[0-9]{{1,3}})?|3[47][0-9]{{2}}[ \-][0-9]{{6}}[ \-][0-9]{{5}}|3[068][0-9]{{2}}[ \-][0-9]{{6}}[ \-][0-9]{{4}})(?![0-9A-Za-z]|[.\-][0-9])", 0.5, check=Check("luhn", theirs.validate_result)),
            Pattern.of("13 to 19 digits", rf"(?<![0-9A-Za-z.,_\-]){issuers}[0-9]{{9,15}}(?![0-9A-Za-z_]|[.\-][0-9])", 0.4, check=Check("luhn", luhn)),
            Pattern.of("digits behind a word", r"(?<![0-9A-Za-z.])[2-6][0-9]{3}(?:[ .\-]?[0-9]){9,15}(?![0-9])", 0.3, check=Check("luhn", luhn), needs_context=True),
            # A mistyped card beside its name is still somebody's card.
            Pattern.of("16 digits behind a word, checksum wrong", r"(?<![0-9A-Za-z.])[2-6][0-9]{3}(?:[ \-]?[0-9]{4}){3}(?![0-9])", 0.2, needs_context=True, check=Check("", lambda _: None)),
        ],
        context=words,
        veto=lambda text, start, _: _DEVICE.search(text[max(0, start - 24) : start]) is not None,
    )  # fmt: skip


def _codes() -> list[Recognizer]:
    return [
        Recognizer(
            "SwiftCodeRecognizer",
            "SWIFT_CODE",
            [
                Pattern.of(
                    "BIC",
                    rf"(?<![A-Za-z0-9])[A-Z]{{4}}(?:{_BIC_COUNTRIES})[A-Z0-9]{{2}}(?:[A-Z0-9]{{3}})?(?![A-Za-z0-9])",
                    0.3,
                )
            ],
            context=Context(["swift", "bic", "swift code", "bic code", "swift/bic", "bank identifier", "bank code"]),
            needs_context=True,
        ),
        Recognizer(
            "SortCodeRecognizer",
            "UK_SORT_CODE",
            [
                Pattern.of("pairs", r"(?<![0-9\-])[0-9]{2}[\- ][0-9]{2}[\- ][0-9]{2}(?![0-9]|-[0-9])", 0.3),
                Pattern.of("six digits", r"(?<![0-9\-])[0-9]{6}(?![0-9]|-[0-9])", 0.1),
            ],
            context=Context(["sort code", "sc", "s/c"]),
            needs_context=True,
        ),
        Recognizer(
            "IfscRecognizer",
            "IN_IFSC",
            [Pattern.of("IFSC", r"(?<![A-Za-z0-9])[A-Z]{4}0[A-Z0-9]{6}(?![A-Za-z0-9])", 0.4)],
            context=Context(["ifsc", "ifsc code", "bank", "branch", "neft", "rtgs", "imps"]),
            needs_context=True,
        ),
        Recognizer(
            "BsbRecognizer",
            "AU_BSB",
            [Pattern.of("BSB", r"(?<![0-9\-])[0-9]{3}[\- ]?[0-9]{3}(?![0-9]|-[0-9])", 0.3)],
            context=Context(["bsb", "bank state branch"]),
            needs_context=True,
        ),
    ]


def banking() -> list[Recognizer]:
    """Recognizers of CREDIT_CARD, IBAN_CODE, SWIFT_CODE, accounts and bank codes."""
    accounts = Recognizer(
        "BankAccountRecognizer",
        "US_BANK_NUMBER",
        [
            Pattern.of("digits", r"(?<![0-9A-Za-z.,\-])[0-9]{6,17}(?![0-9A-Za-z]|[.,\-][0-9])", 0.1),
            Pattern.of("right behind the word", r"(?<![A-Za-z])(?:accounts?|acct|a/c)\.?[ ]?(?:no\.?|number|num|\#)?[ ]?(?:is|:|\#|=|ending in)?[ ]?(?P<value>[0-9]{6,17})(?![0-9A-Za-z]|[.,\-][0-9])", 0.5, ignore_case=True, needs_context=False),
            Pattern.of("groups of digits", r"(?<![0-9A-Za-z.,\-])[0-9]{2,6}(?:[ \-][0-9]{2,8}){1,4}(?![0-9A-Za-z]|[.,\-][0-9])", 0.06),
        ],
        context=Context(_ACCOUNT_WORDS.split("|")),
        needs_context=True,
        check=Check("", _account_length),
        veto=_not_an_account,
    )  # fmt: skip
    return [
        _cards(),
        _iban(),
        accounts,
        from_presidio(AbaRoutingRecognizer(), "aba", context=["routing number", "rtn", "wire", "aba number"]),
        *_codes(),
    ]


# Numbers of telephones and SIM cards have the same check digit and, some, the same first digits as cards.
_DEVICE = re.compile(r"(?i)(?:imei|iccid|imsi|meid)[^\n0-9]{0,12}$")
_MONEY = re.compile(r"[$€£¥₹]\s?$")


def _account_length(value: str) -> bool | None:
    return None if 6 <= sum(sign.isdigit() for sign in value) <= 17 else False


def _not_an_account(text: str, start: int, _end: int) -> bool:
    return _MONEY.search(text[max(0, start - 3) : start]) is not None

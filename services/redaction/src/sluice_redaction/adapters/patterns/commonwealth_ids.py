"""Numbers that the governments of the United Kingdom, Ireland, Australia, New Zealand, South Africa and Nigeria give."""

from presidio_analyzer.predefined_recognizers import (
    AuAbnRecognizer,
    AuAcnRecognizer,
    AuMedicareRecognizer,
    AuTfnRecognizer,
    NgNinRecognizer,
    NhsRecognizer,
    UkDrivingLicenceRecognizer,
    UkNinoRecognizer,
    UkPassportRecognizer,
    UkPostcodeRecognizer,
    ZaCompanyRegistrationRecognizer,
    ZaDriverLicenseRecognizer,
    ZaIdNumberRecognizer,
    ZaIncomeTaxNumberRecognizer,
    ZaPassportRecognizer,
    ZaTrafficRegisterNumberRecognizer,
    ZaVatNumberRecognizer,
)

from . import checksums
from .checksums import check
from .context import Context
from .presidio_bridge import from_presidio
from .recognizer import Pattern, Recognizer

_EDGE, _STOP = r"(?<![0-9A-Za-z.\-/])", r"(?![0-9A-Za-z]|[.\-/][0-9])"
# Inward and outward part in capitals, a blank between: nothing else looks like it. Without the blank it needs a word.
_POSTCODE = (
    r"(?<![0-9A-Za-z\-])(?:[A-PR-UWYZ][A-HK-Y]?[0-9][0-9A-HJKMNPR-Y]?)[ ][0-9][ABD-HJLNP-UW-Z]{2}(?![0-9A-Za-z])"
)


def _uk() -> list[Recognizer]:
    return [
        from_presidio(
            UkNinoRecognizer(), context=["national insurance", "ni number", "nino", "ni"], needs_context=False
        ),
        from_presidio(NhsRecognizer(), "mod 11", context=["nhs", "nhs number", "health service"]),
        from_presidio(UkPassportRecognizer(), context=["passport"]),
        from_presidio(UkDrivingLicenceRecognizer(), "structure", needs_context=False, ignore_case=False),
        Recognizer(
            "UtrRecognizer",
            "UK_UTR",
            [Pattern.of("UTR", rf"{_EDGE}[0-9]{{5}}[ ]?[0-9]{{5}}K?{_STOP}", 0.3)],
            context=Context(["utr", "unique taxpayer reference", "self assessment", "tax reference"]),
            needs_context=True,
        ),
        Recognizer(
            "UkPostcodeRecognizer",
            "UK_POSTCODE",
            [
                Pattern.of("with a blank", _POSTCODE, 0.55),
                Pattern(
                    "without", from_presidio(UkPostcodeRecognizer()).patterns[0].expression, 0.1, needs_context=True
                ),
            ],
            context=Context(["postcode", "post code", "postal code", "zip", "address"]),
        ),
    ]


def _ireland_and_oceania() -> list[Recognizer]:
    return [
        Recognizer(
            "PpsRecognizer",
            "IE_PPS",
            [Pattern.of("PPS number", r"(?<![0-9A-Za-z])[0-9]{7}[A-W][A-IW]?(?![0-9A-Za-z])", 0.4)],
            context=Context(["pps", "ppsn", "pps number", "personal public service"]),
            needs_context=True,
            check=check("mod 23", checksums.irish),
        ),
        from_presidio(AuTfnRecognizer(), "mod 11", context=["tfn", "tax file number"]),
        from_presidio(AuAbnRecognizer(), "mod 89", context=["abn", "business number"]),
        from_presidio(AuAcnRecognizer(), "mod 10", context=["acn", "company number"]),
        from_presidio(AuMedicareRecognizer(), "mod 10", context=["medicare"]),
        Recognizer(
            "IrdRecognizer",
            "NZ_IRD",
            [Pattern.of("IRD number", rf"{_EDGE}[0-9]{{2,3}}[ \-]?[0-9]{{3}}[ \-]?[0-9]{{3}}{_STOP}", 0.3)],
            context=Context(["ird", "ird number", "inland revenue"]),
            needs_context=True,
            check=check("mod 11", checksums.new_zealand_ird),
        ),
    ]


def _africa() -> list[Recognizer]:
    return [
        from_presidio(
            ZaIdNumberRecognizer(),
            "luhn",
            context=["id number", "identity number", "rsa id", "south african id"],
            check_suffices=True,
        ),
        from_presidio(ZaPassportRecognizer(), "structure"),
        from_presidio(ZaDriverLicenseRecognizer(), "structure", ignore_case=False),
        from_presidio(ZaIncomeTaxNumberRecognizer(), "luhn"),
        from_presidio(ZaVatNumberRecognizer(), "luhn"),
        from_presidio(ZaTrafficRegisterNumberRecognizer(), "structure"),
        from_presidio(ZaCompanyRegistrationRecognizer(), "structure"),
        from_presidio(NgNinRecognizer(), "verhoeff"),
    ]


def commonwealth_ids() -> list[Recognizer]:
    """Recognizers, most of them Presidio's."""
    return [*_uk(), *_ireland_and_oceania(), *_africa()]

"""Numbers that governments of the Americas give to persons and companies."""

from presidio_analyzer.predefined_recognizers import (
    CaPostalCodeRecognizer,
    CaSinRecognizer,
    UsItinRecognizer,
    UsPassportRecognizer,
    UsSsnRecognizer,
)

from . import checksums
from .checksums import check
from .context import Context
from .presidio_bridge import from_presidio
from .recognizer import Check, Pattern, Recognizer

_EDGE, _STOP = r"(?<![0-9A-Za-z.\-/])", r"(?![0-9A-Za-z]|[.\-/][0-9])"
DRIVER_WORDS = [
    "driver license", "driver licence", "drivers license", "drivers licence", "driver's license", "driver's licence",
    "driver’s license", "driving licence", "driving license", "dl", "dl number", "dl no", "driver id", "learner permit",
    "cdl",
]  # fmt: skip
# By state, as the motor vehicle offices publish them; many states share a form. Digits alone need the words nearest.
_DRIVER = (
    r"(?:[A-Z][0-9]{3}[ \-][0-9]{3}[ \-][0-9]{2}[ \-][0-9]{3}[ \-][0-9]"  # FL
    r"|[A-Z][0-9]{3}[ \-][0-9]{4}[ \-][0-9]{4}"  # IL
    r"|[A-Z][0-9]{3}[ \-][0-9]{4}[ \-][0-9]{4}[ \-][0-9]{2}"  # WI
    r"|[A-Z]-[0-9]{3}-[0-9]{3}-[0-9]{3}-[0-9]{3}"  # MD, MI, MN
    r"|[A-Z][0-9]{4}[ \-][0-9]{5}[ \-][0-9]{5}"  # NJ, Ontario
    r"|[0-9]{2}[\- ][0-9]{3}[\- ][0-9]{3,4}"  # AR, CO
    r"|[0-9]{3}[\- ][0-9]{3}[\- ][0-9]{3}"  # NY, GA
    r"|[0-9]{4}-[0-9]{2}-[0-9]{4}"  # IN
    r"|[A-Z][0-9]{2}-[0-9]{2}-[0-9]{4}"  # KS, KY
    r"|[A-Z]{1,3}\*{0,3}[A-Z0-9*]{5,9}[0-9]{2}[A-Z0-9]{0,2}"  # WA, ND, NH
    r"|[A-Z]{0,2}[0-9]{5,14}[A-Z]{0,2})"
)


def _us() -> list[Recognizer]:
    return [
        from_presidio(
            UsSsnRecognizer(), "no reserved number", context=["social security", "social", "ssn", "ss#", "sss", "ss number"],
            needs_context=False, confirmed=True, least_score=0.5,
        ),
        _bare_ssn(),
        from_presidio(UsItinRecognizer(), context=["itin", "tin", "taxpayer id", "tax id", "individual taxpayer"], needs_context=False, least_score=0.5),
        from_presidio(UsItinRecognizer(), context=["itin", "tin", "taxpayer id", "tax id"]),
        Recognizer(
            "EinRecognizer",
            "US_EIN",
            [Pattern.of("EIN", rf"{_EDGE}(?:0[1-6]|1[0-6]|2[0-7]|3[0-9]|4[0-8]|5[0-9]|6[0-8]|7[1-7]|8[0-8]|9[0-589])-?[0-9]{{7}}{_STOP}", 0.4)],
            context=Context(["ein", "employer identification", "employer id", "fein", "federal tax id", "tax id", "tin", "federal id"]),
            needs_context=True,
        ),
        from_presidio(UsPassportRecognizer(), context=["passport", "passport number", "passport no"]),
        Recognizer(
            "DriverLicenseRecognizer",
            "US_DRIVER_LICENSE",
            [Pattern.of("state form", rf"{_EDGE}{_DRIVER}{_STOP}", 0.4, check=Check("", _has_digits))],
            context=Context(DRIVER_WORDS),
            needs_context=True,
        ),
    ]  # fmt: skip


def _bare_ssn() -> Recognizer:
    """Nine digits without separators, or in other groups, beside the words."""
    theirs = UsSsnRecognizer()
    verdict = Check("no reserved number", lambda value: False if theirs.invalidate_result(value) else None)
    return Recognizer(
        "UsSsnRecognizer",
        "US_SSN",
        [
            Pattern.of("nine digits", rf"{_EDGE}[0-9]{{9}}{_STOP}", 0.3, check=verdict),
            Pattern.of("other groups", rf"{_EDGE}(?:[0-9]{{5}}-[0-9]{{4}}|[0-9]{{3}}-[0-9]{{6}}|[0-9]{{3}}[ .][0-9]{{2}}[ .][0-9]{{4}}){_STOP}", 0.3),
            # Kept where the digits are wrong or masked: "SSN 000-12-3456", "SSN xxx-xx-1234".
            Pattern.of("last four", r"(?<![0-9A-Za-z])[xX*]{3}-?[xX*]{2}-?[0-9]{4}(?![0-9])", 0.4),
            Pattern.of("three groups behind a word", rf"{_EDGE}[0-9]{{3}}-[0-9]{{2}}-[0-9]{{4}}{_STOP}", 0.35),
        ],
        context=Context(["social security", "ssn", "social", "ss#", "ss number", "ssns"]),
        needs_context=True,
    )  # fmt: skip


def _has_digits(value: str) -> bool | None:
    return None if sum(sign.isdigit() for sign in value) >= 4 else False


def _others() -> list[Recognizer]:
    return [
        from_presidio(CaSinRecognizer(), "luhn", context=["sin", "social insurance", "nas"]),
        from_presidio(CaPostalCodeRecognizer(), needs_context=False, least_score=0.3, ignore_case=False),
        Recognizer(
            "CpfRecognizer",
            "BR_CPF",
            [
                Pattern.of("written", rf"{_EDGE}[0-9]{{3}}\.[0-9]{{3}}\.[0-9]{{3}}-[0-9]{{2}}{_STOP}", 0.6),
                Pattern.of("digits", rf"{_EDGE}[0-9]{{11}}{_STOP}", 0.2, needs_context=True),
            ],
            context=Context(["cpf", "cadastro de pessoas", "contribuinte"]),
            check=check("mod 11", checksums.cpf),
        ),
        Recognizer(
            "CnpjRecognizer",
            "BR_CNPJ",
            [
                Pattern.of("written", rf"{_EDGE}[0-9]{{2}}\.[0-9]{{3}}\.[0-9]{{3}}/[0-9]{{4}}-[0-9]{{2}}{_STOP}", 0.6),
                Pattern.of("digits", rf"{_EDGE}[0-9]{{14}}{_STOP}", 0.2, needs_context=True),
            ],
            context=Context(["cnpj", "cadastro nacional"]),
            check=check("mod 11", checksums.cnpj),
        ),
        Recognizer(
            "CurpRecognizer",
            "MX_CURP",
            [Pattern.of("CURP", r"(?<![0-9A-Za-z])[A-Z][AEIOUX][A-Z]{2}[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[HMX][A-Z]{2}[B-DF-HJ-NP-TV-Z]{3}[A-Z0-9][0-9](?![0-9A-Za-z])", 0.8, check=checksums.supporting("mod 10", checksums.curp))],
            context=Context(["curp"]),
            confirmed=True,
        ),
        Recognizer(
            "RfcRecognizer",
            "MX_RFC",
            [Pattern.of("RFC", r"(?<![0-9A-Za-z])[A-ZÑ&]{3,4}[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[A-Z0-9]{3}(?![0-9A-Za-z])", 0.5)],
            context=Context(["rfc", "registro federal"]),
            needs_context=True,
        ),
        Recognizer(
            "CuitRecognizer",
            "AR_CUIT",
            [
                Pattern.of("written", rf"{_EDGE}(?:20|2[3-7]|30|3[34])-[0-9]{{8}}-[0-9]{{1}}{_STOP}", 0.6),
                Pattern.of("digits", rf"{_EDGE}(?:20|2[3-7]|30|3[34])[0-9]{{9}}{_STOP}", 0.2, needs_context=True),
            ],
            context=Context(["cuit", "cuil"]),
            check=check("mod 11", checksums.cuit),
        ),
        Recognizer(
            "RutRecognizer",
            "CL_RUT",
            [
                Pattern.of("written", rf"{_EDGE}[0-9]{{1,2}}\.[0-9]{{3}}\.[0-9]{{3}}-[0-9Kk]{_STOP}", 0.6),
                Pattern.of("digits", rf"{_EDGE}[0-9]{{7,8}}-[0-9Kk]{_STOP}", 0.3, needs_context=True),
            ],
            context=Context(["rut", "run", "rol único tributario"]),
            check=check("mod 11", checksums.rut),
        ),
    ]  # fmt: skip


def american_ids() -> list[Recognizer]:
    """Recognizers for the United States, Canada, Brazil, Mexico, Argentina and Chile."""
    return [*_us(), *_others()]

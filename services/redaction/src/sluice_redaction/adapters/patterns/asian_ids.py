"""Numbers that the governments of Asian countries give to persons and companies."""

from presidio_analyzer.predefined_recognizers import (
    InAadhaarRecognizer,
    InGstinRecognizer,
    InPanRecognizer,
    InPassportRecognizer,
    InVoterRecognizer,
    KrBrnRecognizer,
    KrDriverLicenseRecognizer,
    KrFrnRecognizer,
    KrPassportRecognizer,
    KrRrnRecognizer,
    PhPassportRecognizer,
    PhTinRecognizer,
    PhUmidRecognizer,
    SgFinRecognizer,
    SgUenRecognizer,
    ThTninRecognizer,
    TrNationalIdRecognizer,
)

from . import checksums
from .checksums import check
from .context import Context
from .presidio_bridge import from_presidio
from .recognizer import Check, Pattern, Recognizer

_EDGE, _STOP = r"(?<![0-9A-Za-z.\-/])", r"(?![0-9A-Za-z]|[.\-/][0-9])"


def _nric(value: str) -> bool:
    """Singapore's letter at the end checks the digits."""
    letter, numbers, last = value[0].upper(), checksums.digits(value), value[-1].upper()
    total = checksums.weighted(numbers, (2, 7, 6, 5, 4, 3, 2)) + {"T": 4, "G": 4, "M": 3}.get(letter, 0)
    letters = {"S": "JZIHGFEDCBA", "T": "JZIHGFEDCBA", "F": "XWUTRQPNMLK", "G": "XWUTRQPNMLK", "M": "KLJNPQRTUWX"}
    return letter in letters and letters[letter][total % 11] == last


def _indian() -> list[Recognizer]:
    aadhaar = InAadhaarRecognizer()
    verhoeff = Check("verhoeff", aadhaar.validate_result)
    return [
        Recognizer(
            "InAadhaarRecognizer",
            "IN_AADHAAR",
            [
                Pattern.of("groups of four", rf"{_EDGE}[2-9][0-9]{{3}}[ \-][0-9]{{4}}[ \-][0-9]{{4}}{_STOP}", 0.3),
                Pattern.of("twelve digits", rf"{_EDGE}[2-9][0-9]{{11}}{_STOP}", 0.2, needs_context=True),
            ],
            context=Context(["aadhaar", "aadhar", "adhaar", "adhar", "uidai", "uid"]),
            check=verhoeff,
        ),
        Recognizer(
            "InPanRecognizer",
            "IN_PAN",
            [
                Pattern.of("PAN of a known holder type", r"(?<![0-9A-Za-z])[A-Z]{3}[ABCFGHJLPT][A-Z][0-9]{4}[A-Z](?![0-9A-Za-z])", 0.6),
                Pattern("PAN", from_presidio(InPanRecognizer()).patterns[1].expression, 0.2, needs_context=True),
            ],
            context=Context(["pan", "pan card", "permanent account number", "income tax"]),
        ),
        from_presidio(InGstinRecognizer(), "structure", context=["gst", "gstin"], check_suffices=True, ignore_case=False),
        from_presidio(InPassportRecognizer(), context=["passport"], ignore_case=False),
        from_presidio(InVoterRecognizer(), context=["voter id", "voter", "epic", "election"], ignore_case=False),
    ]  # fmt: skip


def _southeast() -> list[Recognizer]:
    return [
        Recognizer(
            "SgFinRecognizer",
            "SG_NRIC_FIN",
            [
                Pattern("checked", from_presidio(SgFinRecognizer()).patterns[1].expression, 0.5, check=check("letter", _nric)),
                Pattern("named", from_presidio(SgFinRecognizer()).patterns[1].expression, 0.3, needs_context=True),
            ],
            context=Context(["nric", "fin", "identity card", "singpass", "ic number", "nric number"]),
        ),
        from_presidio(SgUenRecognizer(), "letter", context=["uen", "acra"]),
        from_presidio(PhPassportRecognizer(), context=["philippine passport"], ignore_case=False),
        from_presidio(PhTinRecognizer(), "mod 11", context=["bir", "tin"]),
        from_presidio(PhUmidRecognizer()),
        from_presidio(ThTninRecognizer(), "mod 11", context=["thai id", "thai national id", "national id", "citizen id"]),
        Recognizer(
            "MyKadRecognizer",
            "MY_NRIC",
            [Pattern.of("MyKad", rf"{_EDGE}[0-9]{{2}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])-?[0-9]{{2}}-?[0-9]{{4}}{_STOP}", 0.4)],
            context=Context(["mykad", "nric", "ic", "ic number", "kad pengenalan", "ic no"]),
            needs_context=True,
        ),
        Recognizer(
            "NikRecognizer",
            "ID_NIK",
            [Pattern.of("NIK", rf"{_EDGE}[1-9][0-9]{{5}}[0-7][0-9](?:0[1-9]|1[0-2])[0-9]{{6}}{_STOP}", 0.4)],
            context=Context(["nik", "ktp", "nomor induk kependudukan"]),
            needs_context=True,
        ),
    ]  # fmt: skip


def _east() -> list[Recognizer]:
    return [
        from_presidio(KrRrnRecognizer(), "mod 11", context=["rrn", "resident registration", "주민등록번호", "주민번호"], check_suffices=False),
        from_presidio(KrFrnRecognizer(), context=["frn", "외국인등록번호"]),
        from_presidio(KrBrnRecognizer(), "mod 10", context=["brn", "business registration"]),
        from_presidio(KrDriverLicenseRecognizer(), "region", context=["driver's license", "driver license", "운전면허"]),
        from_presidio(KrPassportRecognizer(), ignore_case=False),
        Recognizer(
            "ChineseIdRecognizer",
            "CN_RESIDENT_ID",
            [Pattern.of("18 signs", rf"{_EDGE}[1-8][0-9]{{5}}(?:19|20)[0-9]{{2}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{{3}}[0-9Xx]{_STOP}", 0.6)],
            context=Context(["身份证", "身份证号", "id card", "resident identity", "id number"]),
            check=check("mod 11-2", checksums.mod_11_2),
        ),
        Recognizer(
            "HongKongIdRecognizer",
            "HK_ID",
            [
                Pattern.of("with brackets", r"(?<![0-9A-Za-z])[A-Z]{1,2}[0-9]{6}\([0-9A]\)", 0.6),
                Pattern.of("without", r"(?<![0-9A-Za-z])[A-Z]{1,2}[0-9]{6}[0-9A](?![0-9A-Za-z])", 0.3, needs_context=True),
            ],
            context=Context(["hkid", "hong kong id", "identity card", "身份證"]),
            check=check("mod 11", checksums.hong_kong),
        ),
        Recognizer(
            "TaiwaneseIdRecognizer",
            "TW_NATIONAL_ID",
            [Pattern.of("letter and nine digits", r"(?<![0-9A-Za-z])[A-Z][1289][0-9]{8}(?![0-9A-Za-z])", 0.4)],
            context=Context(["taiwan", "national id", "身分證", "id number"]),
            needs_context=True,
            check=check("mod 10", checksums.taiwanese),
        ),
        Recognizer(
            "MyNumberRecognizer",
            "JP_MY_NUMBER",
            [Pattern.of("My Number", rf"{_EDGE}[0-9]{{4}}[ \-]?[0-9]{{4}}[ \-]?[0-9]{{4}}{_STOP}", 0.3)],
            context=Context(["my number", "mynumber", "individual number", "マイナンバー", "個人番号"]),
            needs_context=True,
            check=check("mod 11", checksums.my_number),
        ),
    ]  # fmt: skip


def _west() -> list[Recognizer]:
    return [
        from_presidio(
            TrNationalIdRecognizer(), "mod 10", context=["tc kimlik", "tckn", "kimlik", "turkish id", "national id"]
        ),
        Recognizer(
            "IsraeliIdRecognizer",
            "IL_ID",
            [Pattern.of("nine digits", rf"{_EDGE}[0-9]{{9}}{_STOP}", 0.3)],
            context=Context(["teudat zehut", "israeli id", "israel id", "תעודת זהות", "מספר זהות"]),
            needs_context=True,
            check=check("luhn", checksums.luhn),
        ),
        Recognizer(
            "EmiratesIdRecognizer",
            "AE_EMIRATES_ID",
            [Pattern.of("Emirates ID", rf"{_EDGE}784[\- ]?(?:19|20)[0-9]{{2}}[\- ]?[0-9]{{7}}[\- ]?[0-9]{_STOP}", 0.6)],
            context=Context(["emirates id", "eid", "uae id"]),
            check=checksums.supporting("luhn", checksums.luhn),
        ),
    ]


def asian_ids() -> list[Recognizer]:
    """Recognizers for India, Southeast, East and West Asia."""
    return [*_indian(), *_southeast(), *_east(), *_west()]

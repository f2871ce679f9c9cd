"""Health data: record, plan, provider, prescription and device numbers. Any code counts that the text itself names so."""

from presidio_analyzer.predefined_recognizers import MedicalLicenseRecognizer, UsMbiRecognizer, UsNpiRecognizer

from .presidio_bridge import from_presidio
from .recognizer import Pattern, Recognizer

# A number is named by a word, perhaps with "number", "no.", "#" behind it, and a colon or "is" between.
WORD = r"(?:[ \-_]{0,2}(?:numbers?|num|nr\.?|no\.?|id|ids|identifier|code|file|record|beneficiary|\#))"
LINK = r"[ \t]{0,2}[\"']?[ \t]{0,2}(?:is|was|are|:|=|\#|->|ending in|\()?[ \t:#=]{0,4}[\"']?"
# At least three digits among letters, digits and dashes; the lookahead is bounded by the value's own length.
VALUE = (
    r"(?P<value>(?=(?:[A-Za-z\-]{0,12}[0-9]){3})[A-Za-z0-9](?:[A-Za-z0-9]|[\-/](?=[A-Za-z0-9])){3,25})(?![A-Za-z0-9])"
)
EDGE = r"(?<![A-Za-z0-9])"


def named(name: str, words: str, score: float, *, needs_word: bool = True) -> Pattern:
    """A pattern for codes behind one of the words; with `needs_word` "number", "no." or the like has to follow."""
    repeat = "{1,2}" if needs_word else "{0,2}"
    return Pattern.of(
        name,
        rf"{EDGE}(?:{words}){WORD}{repeat}{LINK}{VALUE}",
        score,
        ignore_case=True,
        trigger=rf"{EDGE}(?:{words}){WORD}" if needs_word else rf"{EDGE}(?:{words})",
    )


_RECORD = r"(?:electronic[ ])?(?:medical|health)[ _]records?|m\.?r\.?n\.?|patient(?:['’]s)?|chart|hospital|encounter|visit|admission|case[ ]history|specimen|accession|lab"
_PLAN = (
    r"health[ _]?(?:care[ ])?(?:plan|insurance)(?:[ ](?:member|beneficiary|policy))?|medicare|medicaid|insurance[ ](?:member|policy)|member(?:ship)?"
    r"|subscriber|beneficiary|group[ ]policy|insurance|medical[ ]aid|policyholder"
)


def medical_numbers() -> list[Recognizer]:
    """Recognizers for the numbers that HIPAA counts as identifiers, and their neighbours."""
    return [
        Recognizer(
            "MedicalRecordRecognizer",
            "MEDICAL_RECORD_NUMBER",
            [
                named("named record number", _RECORD, 0.85),
                named("MRN", r"mrn|m\.r\.n\.?|med[ ]rec", 0.9, needs_word=False),
                Pattern.of("prefixed", r"(?<![A-Za-z0-9])MRN[\-_#]?(?P<value>[0-9]{5,12})(?![A-Za-z0-9])", 0.9),
            ],
            confirmed=True,
        ),
        Recognizer(
            "HealthPlanRecognizer",
            "HEALTH_PLAN_NUMBER",
            [
                named("named plan number", _PLAN, 0.8),
                Pattern.of("claim, authorisation or referral", rf"{EDGE}(?:(?:medical|insurance|healthcare)[ ])?(?:claim|prior[ ]auth(?:orization)?|pre-?auth(?:orization)?|referral){WORD}{{1,2}}{LINK}{VALUE}", 0.7, ignore_case=True),
            ],
            confirmed=True,
        ),
        Recognizer(
            "PrescriptionRecognizer",
            "PRESCRIPTION_NUMBER",
            [named("prescription", r"prescription|rx", 0.75)],
            confirmed=True,
        ),
        from_presidio(UsMbiRecognizer(), context=["medicare", "mbi", "beneficiary"], needs_context=False, ignore_case=False),
        from_presidio(UsNpiRecognizer(), "luhn 80840", context=["npi", "provider"]),
        from_presidio(MedicalLicenseRecognizer(), "dea", context=["dea", "medical", "certificate", "prescriber", "dea number"], ignore_case=False),
        Recognizer(
            "MedicalLicenseRecognizer",
            "MEDICAL_LICENSE",
            [named("named licence", r"dea|medical[ ]licen[cs]e|physician[ ]licen[cs]e|nursing[ ]licen[cs]e|gmc|nmc", 0.6)],
            confirmed=True,
        ),
        Recognizer(
            "DeviceRecognizer",
            "DEVICE_ID",
            [
                named("named device", r"(?:device|equipment|implant|pacemaker|serial|meter)(?:[ ]serial)?|s/?n|udi|imei|imsi|iccid|meid|android|idfa|advertising", 0.75),
                named("device code", r"imei|imsi|iccid|meid|udi|serial[ ]number|s/n", 0.7, needs_word=False),
                Pattern.of("IMEI", r"(?<![0-9A-Za-z\-])[0-9]{2}[\- ][0-9]{6}[\- ][0-9]{6}[\- ][0-9](?![0-9A-Za-z\-])", 0.6),
                Pattern.of("device id", rf"{EDGE}(?:device|android|advertising)[ _\-]?id{LINK}(?P<value>[0-9A-Fa-f]{{8}}(?:-[0-9A-Fa-f]{{4}}){{3}}-[0-9A-Fa-f]{{12}}|[0-9a-fA-F]{{16}})(?![0-9A-Za-z])", 0.8, ignore_case=True),
                Pattern.of("UDI", r"\(01\)[0-9]{14}(?:\((?:11|17|10|21)\)[A-Za-z0-9\-]{1,20}){1,4}", 0.8),
            ],
            confirmed=True,
        ),
    ]  # fmt: skip

"""Numbers that no checksum knows, behind the word that names them: accounts, licences, passports, students, employees."""

from .context import Context
from .medical_numbers import EDGE, LINK, VALUE, WORD, named
from .recognizer import Pattern, Recognizer

_ACCOUNT = r"customer|client|account|acct|policy|loyalty|frequent[ ]flyer|loan|mortgage|portfolio|a/c|utility|booking[ ]reference|pnr"
_LICENCE = r"(?:professional|business|teaching|pilot|gun|firearms?|nursing|bar|trade|marriage|birth|death)?[ ]?(?:licen[cs]e|certificate|certification|registration|permit)"
_GOVERNMENT = (
    r"national[ ](?:id|identity|identification|insurance)|identity[ ]card|id[ ]card|citizen(?:ship)?|resident(?:ce)?[ ]permit|green[ ]card|alien[ ]registration|visa"
    r"|state[ ]id|government[ ]id|voter(?:[ ](?:id|registration))?|ration[ ]card|student|employee|staff|personnel|badge|military|service|payroll|prisoner|inmate"
)


def named_numbers() -> list[Recognizer]:
    """Recognizers for codes that only the text names."""
    return [
        Recognizer("AccountRecognizer", "ACCOUNT_NUMBER", [named("named account", _ACCOUNT, 0.55)], confirmed=True),
        Recognizer("LicenceRecognizer", "LICENSE_NUMBER", [named("named licence", _LICENCE, 0.5)], confirmed=True),
        Recognizer("GovernmentIdRecognizer", "GOVERNMENT_ID", [named("named government number", _GOVERNMENT, 0.55)], confirmed=True),
        Recognizer(
            "PassportRecognizer",
            "PASSPORT",
            [
                Pattern.of("named passport", rf"{EDGE}(?:passport|reisepass|passeport|pasaporte|passaporto|paspoort|travel[ ]document){WORD}{{0,2}}{LINK}{VALUE}", 0.45, ignore_case=True),
                Pattern.of("named passport of few digits", rf"{EDGE}(?:[Pp]assport|PASSPORT|[Rr]eisepass){WORD}{{0,2}}{LINK}(?P<value>(?=[A-Z]{{0,8}}[0-9])[A-Z0-9]{{9}})(?![A-Za-z0-9])", 0.45),
                Pattern.of("machine-readable line", r"(?<![A-Z0-9<])P[A-Z<][A-Z]{3}[A-Z<]{39}\s{0,2}[A-Z0-9<]{9}[0-9][A-Z]{3}[0-9]{7}[MFX<][0-9]{7}[A-Z0-9<]{14}[0-9<][0-9]", 0.95),
            ],
            confirmed=True,
        ),
        Recognizer(
            "TaxIdRecognizer",
            "TAX_ID",
            [named("named tax number", r"tax(?:payer)?(?:[ ](?:file|reference|registration|identification|id))?|vat(?:[ ]registration)?|tin|gst|tva|btw|iva", 0.5)],
            confirmed=True,
        ),
        Recognizer(
            "VatRecognizer",
            "EU_VAT_ID",
            [Pattern.of("VAT number of a country", r"(?<![0-9A-Za-z])(?:ATU[0-9]{8}|BE[01][0-9]{9}|BG[0-9]{9,10}|CY[0-9]{8}[A-Z]|CZ[0-9]{8,10}|DK[0-9]{8}|EE[0-9]{9}|EL[0-9]{9}|ES[A-Z0-9][0-9]{7}[A-Z0-9]|FI[0-9]{8}|FR[A-Z0-9]{2}[0-9]{9}|GB[0-9]{9}|HR[0-9]{11}|HU[0-9]{8}|IE[0-9][A-Z0-9][0-9]{5}[A-Z]{1,2}|IT[0-9]{11}|LT[0-9]{9,12}|LU[0-9]{8}|LV[0-9]{11}|MT[0-9]{8}|NL[0-9]{9}B[0-9]{2}|PL[0-9]{10}|PT[0-9]{9}|RO[0-9]{4,10}|SE[0-9]{12}|SI[0-9]{8}|SK[0-9]{10})(?![0-9A-Za-z])", 0.4)],
            context=Context(["vat", "vat id", "vat number", "ust", "tva", "iva", "btw", "moms", "nip", "tax"]),
            needs_context=True,
        ),
    ]  # fmt: skip

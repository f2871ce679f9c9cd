"""Dates of birth, ages and other dates. A date is a birth, and a number an age, only where the text says so."""

from presidio_analyzer.predefined_recognizers import DateRecognizer

from .context import Context
from .presidio_bridge import from_presidio
from .recognizer import Check, Pattern, Recognizer

_MONTH = (
    r"(?:jan(?:uary|uar|vier)?|feb(?:ruary|ruar)?|f[ée]vr(?:ier)?|mar(?:ch|s|zo|t)?|märz|maart|apr(?:il|ile)?|avr(?:il)?|abr(?:il)?|may|mai|mei|mayo"
    r"|maggio|june?|juni|juin|junio|giugno|july?|juli|juil(?:let)?|julio|luglio|aug(?:ust|ustus)?|ao[ûu]t|ago(?:sto)?|sept?(?:ember|embre|iembre)?"
    r"|settembre|o[ck]t(?:ober|obre|ubre)?|ott(?:obre)?|nov(?:ember|embre|iembre)?|de[cz](?:ember|embre)?|d[ée]c(?:embre)?|dic(?:iembre|embre)?|enero|ene"
    r"|febrero|febbraio|gennaio|gen|agosto|marzo|februari|januari|augustus)\.?"
)
_DAY = r"[0-3]?[0-9](?:st|nd|rd|th|er|\.|º)?"
_YEAR = r"(?:1[89]|20)[0-9]{2}"
_DATE = (
    rf"(?:{_YEAR}[-/. ][01]?[0-9][-/. ][0-3]?[0-9]"  # 1980-03-12
    rf"|{_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])"  # 19800312
    rf"|[0-3]?[0-9][ ]?[-/.][ ]?[0-3]?[0-9][ ]?[-/.][ ]?(?:{_YEAR}|[0-9]{{2}})"  # 12/03/1980, 3-12-80
    rf"|[0-3]?[0-9][ ][01]?[0-9][ ]{_YEAR}"  # 12 03 1980
    rf"|(?:the[ ])?{_DAY}(?:[ ](?:of|de))?[ \-/]{_MONTH}(?:[ ]de)?,?[ \-/](?:{_YEAR}|[0-9]{{2}})"  # 12th of March, 1980
    rf"|{_MONTH}[ \-/](?:the[ ])?{_DAY}(?:,?[ ]|[,\-/][ ]?)(?:{_YEAR}|'?[0-9]{{2}}))(?![0-9])"  # March 12, 1980
)
_DAY_AND_MONTH = (
    rf"(?:{_MONTH}[ ](?:the[ ])?[0-3]?[0-9](?:st|nd|rd|th)?|(?:the[ ])?{_DAY}(?:[ ]of)?[ ]{_MONTH})(?![0-9])"
)
_BIRTH = (
    r"(?<![A-Za-z])(?:date[ _-]?of[ _-]?birth|birth[ _-]?(?:date|day)|bday|d\.?o\.?b\.?|born|geboren|geburtsdatum|geb\.|né(?:e)?[ ]le|date[ ]de[ ]naissance"
    r"|fecha[ ]de[ ]nacimiento|nacid[oa]|nat[oa][ ]il|data[ ]di[ ]nascita|geboortedatum|data[ ]de[ ]nascimento|nascid[oa])(?![a-z])"
)
# At most a few words or signs between: "is", "was on", "(mm/dd/yyyy):".
_SAID_BEFORE = _BIRTH + r"[^\n0-9]{0,24}?[\n]?[^\n0-9]{0,4}?"
_SAID_AFTER = r"[ ]{0,2}\(?(?:date[ ]of[ ]birth|birthday|d\.?o\.?b\b|is[ ](?:my|her|his|their|the[ ]patient's)[ ](?:birthday|birth[ ]?date|date[ ]of[ ]birth))"
_AGE = r"(?P<value>[0-9]{1,3})"
_NUMBER_WORD = (
    r"(?:(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)(?:[ \-](?:one|two|three|four|five|six|seven|eight|nine))?"
    r"|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen)"
)


def _possible_age(value: str) -> bool | None:
    return None if not value.isdigit() or int(value) <= 122 else False


def births_and_ages() -> list[Recognizer]:
    """Recognizers of DATE_OF_BIRTH, AGE and DATE_TIME."""
    age = Check("at most 122", _possible_age)
    return [
        Recognizer(
            "DateOfBirthRecognizer",
            "DATE_OF_BIRTH",
            [
                Pattern.of("birth keyword before", rf"{_SAID_BEFORE}(?P<value>(?<![0-9A-Za-z]){_DATE})", 0.9, ignore_case=True, trigger=_BIRTH),
                Pattern.of("birth keyword after", rf"(?P<value>(?<![0-9A-Za-z.]){_DATE}){_SAID_AFTER}", 0.8, ignore_case=True, trigger=_SAID_AFTER),
                Pattern.of("birthday without year", rf"(?<![A-Za-z])(?:birthday|b-day|bday)[ ](?:is|was|falls)(?:[ ](?:on|in))?[ ](?P<value>{_DAY_AND_MONTH})", 0.7, ignore_case=True),
            ],
            confirmed=True,
        ),
        Recognizer(
            "AgeRecognizer",
            "AGE",
            [
                Pattern.of("years old", rf"(?<![0-9A-Za-z.,$€£]){_AGE}(?:[ \-]{{1,2}}|(?=y))(?:years?|yrs?|months?|mos?|weeks?|days?)[ \-]{{1,2}}(?:old|of[ ]age)(?![A-Za-z])", 0.8, ignore_case=True, check=age),
                Pattern.of("y/o", rf"(?<![0-9A-Za-z.,$€£]){_AGE}[ \-]?(?:y[./]?o\.?|yo)(?:[mf])?(?![A-Za-z0-9\-])", 0.75, ignore_case=True, check=age),
                Pattern.of("aged", rf"(?<![A-Za-z])(?:aged|age[ ]of|ages|age(?:[ ]is)?[ ]?[:=]?|turn(?:ed|ing|s)|edad|alter|âge|età)[ :]{{1,3}}{_AGE}(?![0-9A-Za-z.,%:/\-][0-9A-Za-z]|[0-9A-Za-z%])", 0.7, ignore_case=True, check=age),
                Pattern.of("I am", rf"(?<![A-Za-z])(?:I[ ]am|I['’]m|he[ ]is|she[ ]is|he['’]s|she['’]s|they[ ]are)[ ](?:now[ ]|only[ ]|already[ ])?{_AGE}(?=[ ]{{0,1}}(?:[.,;!?)]|and[ ]|but[ ]|$|\n|years?[ ]old))", 0.6, ignore_case=True, check=age),
                Pattern.of("in words", rf"(?<![A-Za-z])(?P<value>{_NUMBER_WORD})[ \-]years?[ \-](?:old|of[ ]age)(?![A-Za-z])", 0.75, ignore_case=True),
                Pattern.of("man or woman of", rf"(?<![0-9A-Za-z.,]){_AGE}[ ]?(?:M|F|m|f)(?:/o)?(?![A-Za-z0-9'’])(?=[ ]?(?:with|presents|presenting|admitted|complains))", 0.6, check=age),
            ],
            confirmed=True,
        ),
        _dates(),
    ]  # fmt: skip


def _dates() -> Recognizer:
    theirs = from_presidio(DateRecognizer(), context=["date"], needs_context=False, least_score=0.5)
    written = Pattern.of("written", rf"(?<![0-9A-Za-z]){_DATE}", 0.6, ignore_case=True)
    return Recognizer(theirs.name, theirs.kind, [*theirs.patterns, written], context=Context(["date"]))

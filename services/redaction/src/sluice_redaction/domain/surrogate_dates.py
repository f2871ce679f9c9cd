"""Made-up dates: the original, moved by so many days. Moved alike throughout a request, so that what lies between two dates
stays as long."""

import re
from datetime import date, timedelta

_MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
           "december")  # fmt: skip
_MONTH = r"(?P<month>[A-Za-z]{3,9})\.?"
_YEAR = r"(?P<year>\d{4})"
_DAY = r"(?P<day>\d{1,2})(?P<ordinal>st|nd|rd|th)?"
_YEAR_FIRST = re.compile(r"(?P<year>\d{4})(?P<gap>[-/.])(?P<month>\d{1,2})(?P=gap)(?P<day>\d{1,2})")
_YEAR_LAST = re.compile(r"(?P<one>\d{1,2})(?P<gap>[-/.])(?P<two>\d{1,2})(?P=gap)(?P<year>\d{4}|\d{2})")
_WORDS = (re.compile(rf"{_MONTH} {_DAY},? {_YEAR}"), re.compile(rf"{_DAY} (?:of )?{_MONTH},? {_YEAR}"))


def moved(value: str, days: int, *, month_first: bool) -> str | None:
    """The date so many days later, written as it was; None for what is no whole date. month_first: how 3/4/2026 is read."""
    if numeric := _YEAR_FIRST.fullmatch(value):
        day = _later(numeric["year"], numeric["month"], numeric["day"], days)
        if day is None:
            return None
        return numeric["gap"].join([f"{day.year:04d}", _as(numeric["month"], day.month), _as(numeric["day"], day.day)])
    if numeric := _YEAR_LAST.fullmatch(value):
        return _moved_year_last(numeric, days, month_first=month_first)
    for shape in _WORDS:
        if words := shape.fullmatch(value):
            return _moved_words(value, words, days)
    return None


def _moved_year_last(shape: re.Match[str], days: int, *, month_first: bool) -> str | None:
    one, two = shape["one"], shape["two"]
    if int(one) > 12 or int(two) > 12:
        month_first = int(one) <= 12
    month, day = (one, two) if month_first else (two, one)
    year = shape["year"] if len(shape["year"]) == 4 else f"{'20' if int(shape['year']) < 50 else '19'}{shape['year']}"
    later = _later(year, month, day, days)
    if later is None:
        return None
    written = [_as(month, later.month), _as(day, later.day)]
    if not month_first:
        written.reverse()
    return shape["gap"].join([*written, f"{later.year:04d}"[-len(shape["year"]) :]])


def _moved_words(value: str, shape: re.Match[str], days: int) -> str | None:
    name = shape["month"].lower()
    month = next((n for n, whole in enumerate(_MONTHS, start=1) if whole == name or whole[:3] == name), None)
    later = _later(shape["year"], str(month or 0), shape["day"], days)
    if later is None:
        return None
    written = _MONTHS[later.month - 1][: 3 if len(name) == 3 else None]
    written = written.upper() if shape["month"].isupper() else written.capitalize()
    day = f"{later.day}{_ordinal(later.day)}" if shape["ordinal"] else _as(shape["day"].lstrip("123"), later.day)
    parts = {shape.span("month"): written, (shape.start("day"), shape.end("ordinal") if shape["ordinal"] else shape.end("day")): day,
             shape.span("year"): f"{later.year:04d}"}  # fmt: skip
    for (start, end), part in sorted(parts.items(), reverse=True):
        value = value[:start] + part + value[end:]
    return value


def _later(year: str, month: str, day: str, days: int) -> date | None:
    try:
        return date(int(year), int(month), int(day)) + timedelta(days)
    except (ValueError, OverflowError):
        return None


def _as(written: str, number: int) -> str:
    """With a leading zero where the original had one."""
    return f"{number:02d}" if len(written) == 2 else str(number)


def _ordinal(day: int) -> str:
    return "th" if 10 < day < 20 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")

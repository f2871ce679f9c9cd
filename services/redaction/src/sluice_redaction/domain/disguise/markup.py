"""Disguise by layout: Markdown and HTML around and inside values, and values that a line end cuts in two."""

import re
from collections.abc import Iterator

from .views import Edit

# Around words, where a reader sees emphasis only: `**Ann Lee**`, `__Ann__`, `<b>Ann</b>`. Bounded, and on one line.
_STRESSED = re.compile(
    r"(?<![\w*_~])(?P<mark>\*{1,3}|__|~~)(?=[^\s*_~])[^*~\n]{0,200}?[^\s*_~](?P<end>(?P=mark))(?![\w*_~])"
)
# Code that is no code: names, numbers and keys, but nothing with the signs or the case of an identifier.
_QUOTED = re.compile(
    r"(?<![\w`])`(?:[^\W\d_][^\W\d_'’\-]{0,30}\.?(?:[ '’\-][^\W\d_][^\W\d_'’\-]{0,30}\.?){1,4}|[0-9A-Fa-f][0-9A-Fa-f:.+/ \-]{5,60}"
    r"|(?<=[=:\"']`)[A-Za-z0-9+/=_\-]{16,200}|(?<=[rs]\. `)[^\W\d_]{2,30})(?P<end>`)(?![\w`])"
)
_INLINE = re.compile(
    r"</?(?:a|b|i|u|s|em|strong|span|code|font|mark|small|td|th|li|p)(?:\s[^<>]{0,200})?>", re.IGNORECASE
)
_IN_VALUE = r"\w@.+\-"
_EMPHASIS = re.compile(
    rf"(?<=[{_IN_VALUE}])(?:\*{{1,3}}|`{{1,3}}|~~)(?=[{_IN_VALUE}])"
    # Around groups of digits: "**4111** 1111", "`41` `11`".
    r"|(?<=\d)[*`~_]{1,3}(?=[ \-]{1,2}[*`~_]{0,3}\d)|(?<=[\d*`~_][ \-])[*`~_]{1,3}(?=\d)|(?<=\d)__(?=\d)"
)
_TAG = re.compile(
    rf"(?<=[{_IN_VALUE}>])(?:</?(?:a|b|i|u|s|em|strong|span|wbr|nobr|code|font|mark|small|sub|sup)(?:\s[^<>]{{0,200}})?/?>"
    rf"|<!--[^<>]{{0,200}}-->)(?=[{_IN_VALUE}<])",
    re.IGNORECASE,
)
# A line end, with the signs of quotation, comment or table at the start of the next line.
_BREAK = re.compile(r"[ \t]{0,8}(?:\r?\n|<br ?/?>)(?:[ \t]{0,8}(?:>|#|//|\*|\|)){0,4}[ \t]{0,8}")
_DIGITS_BEFORE, _DIGITS_AFTER = re.compile(r"(?:\d[ \-]?){3}$"), re.compile(r"(?:\d[ \-]?){3}")
_IBAN_BEFORE, _IBAN_AFTER = re.compile(r"\b[A-Z]{2}\d{2}[A-Z0-9 ]{0,30}$"), re.compile(r"[A-Z0-9]{2,4}(?: |\b)")
# Not any dotted name: lines of Python begin with decorators.
_TOP_LEVEL = r"(?:com|org|net|edu|gov|info|co|io|uk|de|fr|eu|us|ca|au|in|example|local|internal)\b(?![\w(])"
_BARE_AT = re.compile(rf"@(?:[\w\-]{{1,63}}\.){{1,4}}{_TOP_LEVEL}")
# A local part with its @ and no whole domain (a full stop behind a whole one ends a sentence); a domain that goes on.
_MAIL_HEAD, _MAIL_TAIL = re.compile(r"[\w.+\-]@[\w\-]{0,63}[.\-]?$"), re.compile(r"[\w\-]")
_LABELS_HEAD, _LAST_LABEL = (
    re.compile(r"[\w.+\-]@[\w.\-]{1,120}\.$"),
    re.compile(_TOP_LEVEL),
)
_LOCAL_HEAD, _LOCAL_TAIL = (
    re.compile(r"(?<![\w.+\-@])\w[\w\-]{0,63}[._+\-][\w.+\-]{0,64}$"),
    re.compile(r"[\w.+\-]{1,64}@"),
)
_KEY_HEAD = re.compile(r"[A-Za-z0-9_\-+/=]{16,}$")
_KEY_TAIL = re.compile(r"(?=[^\s]{0,80}[0-9])[A-Za-z0-9_\-+/=]{6,}(?=[\s\"'`,;.)]|$)")
_GROUP_BEFORE, _GROUP_AFTER = re.compile(r"\d{1,4}$"), re.compile(r"\d{1,4}")
_GOES_ON = frozenset("-._+@/=")  # signs that a half may end or begin with
_LOOK = 100


def emphasis_edits(text: str) -> Iterator[Edit]:
    """The marks around words, which change nothing about them: models too read the text without them."""
    if "*" in text or "__" in text or "~~" in text:
        for match in _STRESSED.finditer(text):
            yield Edit(match.start(), match.end("mark"), "", "markup")
            yield Edit(*match.span("end"), "", "markup")
    if "`" in text:
        for match in _QUOTED.finditer(text):
            yield Edit(match.start(), match.start() + 1, "", "markup")
            yield Edit(*match.span("end"), "", "markup")
    if "</" in text:
        for match in _INLINE.finditer(text):
            yield Edit(*match.span(), "", "markup")


def markup_edits(text: str) -> Iterator[Edit]:
    """What layout hides; a few looks for a character where there is none."""
    if "*" in text or "`" in text or "~" in text or "_" in text:
        for match in _EMPHASIS.finditer(text):
            yield Edit(*match.span(), "", "markup")
    if "<" in text:
        for match in _TAG.finditer(text):
            yield Edit(*match.span(), "", "markup")
    if "\n" in text or "<br" in text:
        for match in _BREAK.finditer(text):
            between = joint(text, *match.span())
            if between is not None:
                yield Edit(*match.span(), between, "line-break")


def joint(text: str, start: int, end: int) -> str | None:
    """What stands between the halves of one value; None if these are no halves."""
    last, next_ = text[start - 1 : start], text[end : end + 1]
    if not (last.isalnum() or last in _GOES_ON) or not (next_.isalnum() or next_ in _GOES_ON):
        return None
    before, after = text[max(0, start - _LOOK) : start], text[end : end + _LOOK]
    if next_.isdigit() and _DIGITS_AFTER.match(after) and _DIGITS_BEFORE.search(before):
        return "" if last == "-" or _is_cut_group(before, after) else " "
    if _IBAN_AFTER.match(after) and _IBAN_BEFORE.search(before):
        return " "
    mail = "@" in before and (
        (_MAIL_TAIL.match(after) and _MAIL_HEAD.search(before))
        or (_LAST_LABEL.match(after) and _LABELS_HEAD.search(before))
    )
    local = "@" in after and (
        (last.isalnum() and _BARE_AT.match(after)) or (_LOCAL_TAIL.match(after) and _LOCAL_HEAD.search(before))
    )
    return "" if mail or local or (_KEY_TAIL.match(after) and _KEY_HEAD.search(before)) else None


def _is_cut_group(before: str, after: str) -> bool:
    """The line ends inside a group of digits: both halves together are no longer than a group, and one is a stump."""
    left, right = _GROUP_BEFORE.search(before), _GROUP_AFTER.match(after)
    if left is None or right is None:
        return False
    return len(left[0]) + len(right[0]) <= 4 and min(len(left[0]), len(right[0])) < 3

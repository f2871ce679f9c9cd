"""Ways in which values get past filters, applied to gold values; the places of all gold values move along."""

import base64
import html
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .samples import Gold, Sample

_HOMOGLYPHS = str.maketrans("aceiopxyABCEHKMOPTX", "асеіорхуАВСЕНКМОРТХ")
_DIGIT_WORDS = "zero one two three four five six seven eight nine".split()
_NUMBERS = frozenset({"PHONE", "US_SSN", "CARD", "IN_AADHAAR", "UK_NHS", "BR_CPF"})
_SECRETS = frozenset({"API_KEY", "TOKEN", "PASSWORD"})
_SPLIT = frozenset({"EMAIL", "PHONE", "US_SSN", "CARD", "IBAN", "API_KEY", "TOKEN"})
_TEXTUAL = frozenset({"PERSON", "EMAIL", "PHONE", "US_SSN", "CARD", "IBAN", "API_KEY", "TOKEN", "MEDICAL_RECORD", "IP"})


@dataclass(frozen=True)
class Disguise:
    """change: value and a source of chance -> disguised value; kinds: the values it is applied to; around: put before and behind."""

    name: str
    kinds: frozenset[str]
    change: Callable[[str, random.Random], str]
    around: tuple[str, str] = ("", "")

    @property
    def shows(self) -> bool:
        """Whether values that `change` leaves as they are count."""
        return self.name == "none" or self.around != ("", "")


def _between(value: str, mark: str, chance: random.Random) -> str:
    return "".join(c + (mark if c.isalnum() and chance.random() < 0.4 else "") for c in value[:-1]) + value[-1:]


def _full_width(value: str, chance: random.Random) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in value)


def _spelt_email(value: str, chance: random.Random) -> str:
    return value.replace("@", " at ").replace(".", " dot ")


def _bracketed_email(value: str, chance: random.Random) -> str:
    return value.replace("@", " [at] ").replace(".", "[dot]")


def _digit_words(value: str, chance: random.Random) -> str:
    return " ".join(_DIGIT_WORDS[int(c)] for c in value if c.isascii() and c.isdigit())


def _spaced(value: str, chance: random.Random) -> str:
    return " ".join(c for c in value if not c.isspace())


def _dotted(value: str, chance: random.Random) -> str:
    plain = [c for c in value if c.isdigit()]
    return ".".join("".join(plain[i : i + 2]) for i in range(0, len(plain), 2))


def _two_lines(value: str, chance: random.Random) -> str:
    """At the first blank; a word is not broken, a number is."""
    middle = value.find(" ") if " " in value else len(value) // 2 if any(c.isdigit() for c in value) else 0
    return value[:middle].rstrip() + "\n" + value[middle:].lstrip() if middle else value


DISGUISES: Sequence[Disguise] = (
    Disguise("none", _TEXTUAL, lambda value, _: value),
    Disguise("zero-width characters inside", _TEXTUAL, lambda v, c: _between(v, "\u200b", c)),
    Disguise("soft hyphens inside", _TEXTUAL, lambda v, c: _between(v, "\u00ad", c)),
    Disguise("full-width characters", _TEXTUAL - {"API_KEY", "TOKEN"}, _full_width),
    Disguise("Cyrillic look-alikes", frozenset({"PERSON", "EMAIL", "IBAN"}), lambda v, c: v.translate(_HOMOGLYPHS)),
    Disguise("no-break spaces for spaces", _TEXTUAL, lambda v, c: v.replace(" ", "\u00a0")),
    Disguise("john dot smith at example dot com", frozenset({"EMAIL"}), _spelt_email),
    Disguise("john[dot]smith [at] example[dot]com", frozenset({"EMAIL"}), _bracketed_email),
    Disguise("digits in words", _NUMBERS, _digit_words),
    Disguise("spaced digits", _NUMBERS, _spaced),
    Disguise("digits in pairs with dots", _NUMBERS, _dotted),
    Disguise("over two lines", frozenset({"PERSON", "PHONE", "CARD", "IBAN", "US_SSN"}), _two_lines),
    Disguise("markdown bold", _TEXTUAL, lambda v, c: v, ("**", "**")),
    Disguise("markdown code", _TEXTUAL, lambda v, c: v, ("`", "`")),
    Disguise("HTML tags", _TEXTUAL, lambda v, c: html.escape(v), ("<b>", "</b>")),
    Disguise("HTML entities", frozenset({"EMAIL"}), lambda v, c: v.replace("@", "&#64;").replace(".", "&#46;")),
    Disguise("percent-encoding", frozenset({"EMAIL"}), lambda v, c: v.replace("@", "%40")),
    Disguise("base64 of a secret", _SECRETS, lambda v, c: base64.b64encode(v.encode()).decode()),
    Disguise("base64 of an address", frozenset({"EMAIL"}), lambda v, c: base64.b64encode(v.encode()).decode()),
)


def disguised(sample: Sample, disguise: Disguise, chance: random.Random) -> Sample | None:
    """The sample with its values of the disguise's kinds changed, and only those that were as gold; None if there are none."""
    text, position, gold = "", 0, []
    for one in sorted(sample.gold, key=lambda g: g.start):
        value = sample.text[one.start : one.end]
        text += sample.text[position : one.start]
        if one.kind in disguise.kinds:
            changed = disguise.change(value, chance)
            text += disguise.around[0]
            if changed != value or disguise.shows:
                gold.append(Gold(len(text), len(text) + len(changed), one.kind, one.origin))
            value = changed
            value += disguise.around[1]
        text, position = text + value, one.end
    if not gold:
        return None
    return replace(sample, text=text + sample.text[position:], gold=tuple(gold))


def in_json(sample: Sample) -> Sample:
    """The text as a JSON string inside an object, as tool-call arguments carry it."""
    before = '{"message": "'
    offsets, escaped = [len(before)], before
    for c in sample.text:
        escaped += json.dumps(c, ensure_ascii=False)[1:-1]
        offsets.append(len(escaped))
    gold = tuple(replace(one, start=offsets[one.start], end=offsets[one.end]) for one in sample.gold)
    return replace(sample, text=escaped + '"}', gold=gold)


def in_two_messages(sample: Sample) -> tuple[Sample, int] | None:
    """The sample with its first value that can be split as only gold, and the place in the middle of it where a message ends."""
    value = next((one for one in sample.gold if one.kind in _SPLIT), None)
    if value is None:
        return None
    text = sample.text[value.start : value.end]
    blanks = [place for place, c in enumerate(text) if c in " -" and 0 < place < len(text) - 1]
    middle = blanks[len(blanks) // 2] + 1 if blanks else len(text) // 2
    return replace(sample, gold=(value,)), value.start + middle

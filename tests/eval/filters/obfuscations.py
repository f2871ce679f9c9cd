"""Ways to write words so that a filter does not see them and a person does."""

import random
import re
from collections.abc import Callable, Mapping

_LEET = str.maketrans("aeiostAEIOST", "431057431057")
_HOMOGLYPHS = str.maketrans("aceiopxyjsABCEHKMOPTX", "асеіорхујѕАВСЕНКМОРТХ")
_MARKS = "\u0301\u0308\u0323\u0327"
_EMOJI = "😀🔥💀✨🙈"
_WORD = re.compile(r"[A-Za-z]{3,}")


def _words(text: str, change: Callable[[str], str], share: float, chance: random.Random) -> str:
    return _WORD.sub(lambda found: change(found[0]) if chance.random() < share else found[0], text)


def _split(word: str, mark: str) -> str:
    middle = len(word) // 2
    return word[:middle] + mark + word[middle:]


OBFUSCATIONS: Mapping[str, Callable[[str, random.Random], str]] = {
    "none": lambda text, chance: text,
    "leetspeak": lambda text, chance: text.translate(_LEET),
    "l e t t e r s apart": lambda text, chance: _words(text, " ".join, 0.7, chance),
    "d.o.t.s between": lambda text, chance: _words(text, ".".join, 0.7, chance),
    "diacritics": lambda text, chance: "".join(
        c + (chance.choice(_MARKS) if c.isalpha() and chance.random() < 0.4 else "") for c in text
    ),
    "emoji inside words": lambda text, chance: _words(
        text, lambda word: _split(word, chance.choice(_EMOJI)), 0.7, chance
    ),
    "emoji between words": lambda text, chance: "".join(c + (chance.choice(_EMOJI) if c == " " else "") for c in text),
    "homoglyphs": lambda text, chance: text.translate(_HOMOGLYPHS),
    "split wo rds": lambda text, chance: _words(text, lambda word: _split(word, " "), 0.5, chance),
    "split over-lines": lambda text, chance: _words(text, lambda word: _split(word, "-\n"), 0.3, chance),
    "zero-width characters": lambda text, chance: _words(text, lambda word: _split(word, "\u200b"), 0.9, chance),
    "full-width": lambda text, chance: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "repeated lettters": lambda text, chance: _words(
        text, lambda word: re.sub(r"([aeiou])", r"\1\1\1", word, count=1), 0.6, chance
    ),
    "CAPITALS": lambda text, chance: text.upper(),
    "spelling mistakes": lambda text, chance: _words(
        text, lambda word: word[:1] + word[2:3] + word[1:2] + word[3:], 0.3, chance
    ),
}

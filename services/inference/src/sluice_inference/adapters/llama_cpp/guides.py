"""Guides in llama.cpp's words: regular expressions and JSON schemas through llguidance, which is built into the engine, grammars as GBNF.

Three things of the engine shape this file. A grammar that llguidance cannot take makes it generate *without* one, in silence; its own conversion
of JSON schemas leaves out what it does not know; and its parser of GBNF writes the caller's grammar to the standard error. Hence every guide is
judged here first, by llguidance's own package, and the answers of regular expressions and schemas are followed as they come
(docs/decisions/0016-guides-of-llama-cpp.md). It is imported when this engine meets a guide and not before: the GPU image has another release of it.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from sluice_inference.domain.generation import Guide, GuideKind
from sluice_inference.domain.refusals import EngineFailed, InvalidRequest

_HEAD = "%llguidance {}\nstart: "
# Between tokens a small model could write spaces for ever; a schema may say otherwise.
_TIGHT = {"x-guidance": {"whitespace_flexible": False}}
FOLLOWED = frozenset({GuideKind.REGEX, GuideKind.JSON_SCHEMA, GuideKind.JSON_OBJECT})
_SLASHES = re.compile(r"\\.|/|\n", re.DOTALL)


def guide_fields(guide: Guide) -> dict[str, Any]:
    """Raises InvalidRequest, without the guide's text."""
    match guide.kind:
        case GuideKind.CHOICE:
            return {"grammar": "root ::= " + " | ".join(f'"{_gbnf_escape(choice)}"' for choice in guide.choices)}
        case GuideKind.EBNF:
            _check_gbnf(guide.source)
            return {"grammar": guide.source}
        case _:
            return {"grammar": lark(guide)}


def lark(guide: Guide) -> str:
    """The grammar of a regular expression, a JSON schema or any JSON object. Raises InvalidRequest."""
    from llguidance import LLMatcher

    match guide.kind:
        case GuideKind.REGEX:
            grammar = f"{_HEAD}/{_SLASHES.sub(_escape_slash, guide.source)}/"
        case GuideKind.JSON_OBJECT:
            return f"{_HEAD}%json {json.dumps(_TIGHT | {'type': 'object'})}"
        case GuideKind.JSON_SCHEMA:
            grammar = f"{_HEAD}%json {json.dumps(_TIGHT | parse_schema(guide.source))}"
        case _:
            raise InvalidRequest("guided", f"llama.cpp is given no {guide.kind.value} guides here.")
    # A warning tells of a keyword that would be left out, which is no better than an error.
    if not guide.source or any(LLMatcher.validate_grammar_with_warnings(grammar)):
        raise InvalidRequest(f"guided.{guide.kind.value}", _SENTENCES[guide.kind], reason="GUIDE_UNUSABLE")
    return grammar


_SENTENCES = {
    GuideKind.REGEX: "the regular expression is none, or has what cannot be guided by (look-around, back references).",
    GuideKind.JSON_SCHEMA: "the JSON schema is none, or has keywords that cannot be guided by (not, uniqueItems and the like).",
}


def parse_schema(source: str) -> dict[str, Any]:
    try:
        schema = json.loads(source)
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise InvalidRequest("guided.json_schema", "json_schema is not a JSON object.")
    return schema


def has_loose_pattern(schema: object) -> bool:
    """True for a `pattern` that does not hold the whole string: the engine's conversion, which tools go through, would accept any string for it."""
    if isinstance(schema, list):
        return any(map(has_loose_pattern, schema))
    if not isinstance(schema, dict):
        return False
    pattern = schema.get("pattern")
    is_loose = isinstance(pattern, str) and not (pattern.startswith("^") and pattern.endswith("$"))
    return is_loose or any(map(has_loose_pattern, schema.values()))


class Follower:
    """Watches that an answer follows its guide; the engine, in trouble with a grammar, would go on without it and not tell."""

    def __init__(self, grammar: str) -> None:
        from llguidance import LLMatcher

        self._matcher = LLMatcher(_bytes(), grammar, log_level=0)

    def feed(self, text: str) -> None:
        """Raises EngineFailed."""
        content = list(text.encode())
        if self._matcher.try_consume_tokens(content) < len(content):
            raise _LEFT

    def end(self) -> None:
        """The model ended by itself. Raises EngineFailed when that was too early."""
        if not self._matcher.is_accepting():
            raise _LEFT


@functools.cache
def _bytes() -> Any:
    """One token a byte: the text is judged, however the model cut it."""
    from llguidance import LLTokenizer

    return LLTokenizer("byte")


_LEFT = EngineFailed("the engine did not follow the guide; a simpler one may be followed.", reason="GUIDE_LEFT")


def follower(guide: Guide | None) -> Follower | None:
    """For guides that llguidance follows."""
    return Follower(lark(guide)) if guide and guide.kind in FOLLOWED else None


def _escape_slash(found: re.Match[str]) -> str:
    """A slash would end the expression in the grammar, a line break the rule."""
    return {"/": r"\/", "\n": r"\n"}.get(found[0], found[0])


def _check_gbnf(source: str) -> None:
    """Also refuses grammars for llguidance, which the engine would take for GBNF's stead."""
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        gbnf_to_lark(source)
    except Exception as error:  # the converter raises bare Exception for rules that are missing
        raise InvalidRequest("guided.ebnf_grammar", "the grammar is no GBNF.", reason="GUIDE_UNUSABLE") from error


def _gbnf_escape(text: str) -> str:
    """Everything but plain ASCII letters, digits and spaces as a code point, which GBNF takes anywhere."""
    return "".join(c if c.isascii() and (c.isalnum() or c == " ") else f"\\U{ord(c):08X}" for c in text)

"""Texts that follow a guide, for the double: JSON schemas without references, plain regular expressions, grammars of literals."""

from __future__ import annotations

import json
import random
import re
from re import _constants as constants  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any


class CannotFollow(Exception):
    """The guide is none, or beyond this double."""


def follow(guide: Any, dice: random.Random) -> str:
    """Raises CannotFollow."""
    if guide.json is not None:
        schema = guide.json if isinstance(guide.json, dict) else json.loads(guide.json)
        return json.dumps(_instance(schema, dice))
    if guide.json_object:
        return json.dumps({"answer": dice.choice(["yes", "no"])})
    if guide.regex is not None:
        return "".join(_pieces(parser.parse(guide.regex), dice))
    if guide.grammar is not None:
        return _literal(guide.grammar, dice)
    return "<tag>{}</tag>"


def _instance(schema: Any, dice: random.Random) -> Any:
    if "enum" in schema:
        return dice.choice(schema["enum"])
    match schema.get("type"):
        case "object":
            return {name: _instance(one, dice) for name, one in schema.get("properties", {}).items()}
        case "array":
            return [_instance(schema["items"], dice) for _ in range(dice.randint(1, 3))]
        case "string":
            return dice.choice(["sea", "née", "🦀"])
        case "boolean":
            return dice.choice([True, False])
        case "integer":
            return dice.randint(0, 99)
        case _:
            raise CannotFollow("no JSON schema")


def _pieces(parsed: Any, dice: random.Random) -> Any:
    for operation, argument in parsed:
        match operation:
            case constants.LITERAL:
                yield chr(argument)
            case constants.SUBPATTERN:
                yield from _pieces(argument[3], dice)
            case constants.BRANCH:
                yield from _pieces(dice.choice(argument[1]), dice)
            case constants.MAX_REPEAT:
                for _ in range(dice.randint(argument[0], min(int(argument[1]), argument[0] + 3))):
                    yield from _pieces(argument[2], dice)
            case _:
                raise CannotFollow("this regular expression is beyond the double")


def _literal(grammar: str, dice: random.Random) -> str:
    found = re.fullmatch(r'\s*root\s*::=\s*("[^"]*"(?:\s*\|\s*"[^"]*")*)\s*', grammar)
    if not found:
        raise CannotFollow("no grammar, or beyond the double")
    return str(dice.choice(re.findall(r'"([^"]*)"', found[1])))

"""Tools a model may ask for, the calls it asks for, and which requests with tools are admissible."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from sluice_inference.domain.refusals import InvalidRequest

MOST_TOOLS = 128
# The names that OpenAI's protocol takes, and with it every upstream.
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII)


@dataclass(frozen=True)
class Tool:
    """A function the model may ask for; `parameters` is a JSON Schema as text, empty where there are none."""

    name: str
    description: str = ""
    parameters: str = ""

    @property
    def characters(self) -> int:
        return len(self.name) + len(self.description) + len(self.parameters)


@dataclass(frozen=True)
class ToolCall:
    """A call the model asked for; `arguments` is JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class ToolCallPiece:
    """More of one call; id and name stand in its first piece only."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class ToolMode(enum.Enum):
    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True)
class ToolChoice:
    """`name`: this tool must be asked for; the mode is then REQUIRED."""

    mode: ToolMode = ToolMode.AUTO
    name: str = ""


def join_pieces(pieces: Iterable[ToolCallPiece]) -> tuple[ToolCallPiece, ...]:
    """One piece a call, in the order of their first pieces."""
    joined: dict[int, ToolCallPiece] = {}
    for piece in pieces:
        before = joined.get(piece.index, ToolCallPiece(piece.index))
        joined[piece.index] = ToolCallPiece(
            piece.index, before.id or piece.id, before.name or piece.name, before.arguments + piece.arguments
        )
    return tuple(joined.values())


def shown_tools(tools: tuple[Tool, ...], choice: ToolChoice | None) -> tuple[Tool, ...]:
    """What the model is shown: nothing where it may ask for nothing, which holds on every backend."""
    return () if choice and choice.mode is ToolMode.NONE else tools


def check_tools(tools: tuple[Tool, ...], choice: ToolChoice) -> None:
    """Raises InvalidRequest."""
    if len(tools) > MOST_TOOLS:
        raise InvalidRequest("chat.tools", f"chat has {len(tools)} tools; the limit is {MOST_TOOLS}.")
    for index, tool in enumerate(tools):
        if not _NAME.fullmatch(tool.name):
            raise InvalidRequest(f"chat.tools[{index}].name", f"the name of tool {index} must match {_NAME.pattern}.")
        if tool.parameters and not is_json_object(tool.parameters):
            raise InvalidRequest(
                f"chat.tools[{index}].parameters_json_schema", f"the schema of tool {index} is no JSON object."
            )
    names = [tool.name for tool in tools]
    if len(set(names)) < len(names):
        raise InvalidRequest("chat.tools", "two tools have the same name.")
    if choice.name and choice.name not in names:
        raise InvalidRequest("chat.tool_choice.tool_name", "tool_name is the name of none of the tools.")
    if choice.mode is ToolMode.REQUIRED and not tools:
        raise InvalidRequest("chat.tool_choice", "tool_choice demands a call, and there are no tools.")


def is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False

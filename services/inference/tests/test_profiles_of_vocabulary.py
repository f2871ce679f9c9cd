"""Of a text's words only numbers leave, and of a tool's name only what the operator listed."""

from __future__ import annotations

import pytest
from sluice_inference.adapters.messages import OTHER_TOOL, called_tools, profile_message
from sluice_inference.adapters.static_embedding import StaticEmbedding
from sluice_inference.domain.backend import EngineEnded, NewTokens
from sluice_inference.domain.generation import Chat, ChatTurn, FinishReason, Generation, StopMatch
from sluice_inference.domain.output import Output
from sluice_inference.domain.profiles import TextProfile, profile
from sluice_inference.domain.tools import ToolCallPiece
from sluice_inference.settings import InferenceSettings


class NoLanguage:
    def detect(self, text: str) -> str:
        return ""


@pytest.fixture(scope="module")
def embedder() -> StaticEmbedding:
    return StaticEmbedding()


def profiled(text: str, embedder: StaticEmbedding) -> TextProfile:
    return profile(text, detector=NoLanguage(), embedder=embedder)


def test_rare_words_take_more_pieces(embedder: StaticEmbedding) -> None:
    common = profiled("we went to the house and had some food with all of our friends", embedder)
    rare = profiled("bronchoalveolar immunohistochemistry thrombocytopenia xylazine qwrtzuiop", embedder)
    assert common.pieces == common.profiled_words == 14
    assert rare.pieces >= 3 * rare.profiled_words


def test_words_that_return_are_counted_once_whatever_their_case(embedder: StaticEmbedding) -> None:
    assert profiled("Go go GO home", embedder).distinct_words == 2
    long = profiled(" ".join(f"word{n}" for n in range(300)), embedder)
    assert (long.distinct_words, long.profiled_words) == (100, 300)


def test_nothing_is_counted_of_an_empty_text(embedder: StaticEmbedding) -> None:
    assert profiled(" ", embedder) == TextProfile(characters=1)


def test_the_message_holds_numbers_and_no_word(embedder: StaticEmbedding) -> None:
    message = profile_message(profiled("xylophonist Grabowski", embedder))
    assert message.pieces > message.profiled_words == message.distinct_words == 2
    assert b"rabowski" not in message.SerializeToString()


def test_a_tool_is_named_only_where_the_operator_listed_it() -> None:
    settings = InferenceSettings(told_tools="search, get_weather,")  # type: ignore[call-arg]
    assert settings.told_tool_names == {"search", "get_weather"}
    names = ["search", "look_up_john_smith", "search", "delete_all"]
    assert called_tools(names, settings.told_tool_names) == ["search", OTHER_TOOL]
    assert called_tools(names, frozenset()) == [OTHER_TOOL]


def test_an_output_knows_the_tools_it_asked_for() -> None:
    output = Output(0, Generation("r1", "m", Chat((ChatTurn("user", "hi"),))))
    piece = ToolCallPiece(0, id="c1", name="search", arguments="{")
    output.take_tokens(NewTokens(text="", token_ids=(), generated=3, tool_calls=(piece,)), now=1.0)
    output.releasable()
    output.take_tokens(
        NewTokens(text="", token_ids=(), generated=5, tool_calls=(ToolCallPiece(0, arguments="}"),)), now=1.1
    )
    output.take_end(EngineEnded(FinishReason.TOOL_CALLS, StopMatch(), prompt_tokens=4, cached_tokens=0, generated=5))
    output.releasable()
    assert output.called_tools == ["search"]

"""Every text of a request is seen by the filters, and put back where it stood."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_gateway.domain.chat import ChatMessage, ChatRequest, Guide, Role, Stopping, ToolCall, ToolDefinition
from sluice_gateway.domain.segments import segments_of, with_texts

_texts = st.text(max_size=8)
_calls = st.builds(ToolCall, _texts, _texts, _texts)
_messages = st.builds(
    ChatMessage, st.sampled_from(Role), _texts, _texts, st.lists(_calls, max_size=2).map(tuple), _texts
)
_requests = st.builds(
    ChatRequest,
    model=st.just("m"),
    messages=st.lists(_messages, max_size=4).map(tuple),
    tools=st.lists(st.builds(ToolDefinition, _texts, _texts, _texts), max_size=2).map(tuple),
    stopping=st.builds(Stopping, stop=st.lists(_texts, max_size=2).map(tuple)),
    guide=st.none() | st.builds(Guide, st.just("choice"), st.lists(_texts, max_size=2).map(tuple)),
)


@given(_requests)
def test_putting_back_the_same_texts_changes_nothing(request: ChatRequest) -> None:
    assert with_texts(request, [segment.text for segment in segments_of(request)]) == request


@given(_requests)
def test_every_text_lands_where_it_stood(request: ChatRequest) -> None:
    segments = segments_of(request)
    marked = with_texts(request, [f"<{segment.id}>" for segment in segments])
    assert [segment.id for segment in segments_of(marked)] == [segment.id for segment in segments]
    assert all(segment.text == f"<{segment.id}>" for segment in segments_of(marked))


@pytest.mark.parametrize("texts", [[], ["a", "b"]])
def test_a_wrong_number_of_texts_is_an_error(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="texts than segments"):
        with_texts(ChatRequest("m", (ChatMessage(Role.USER, "x"),)), texts)

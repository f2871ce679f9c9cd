"""The law of the streams with the real patterns, disguised values, tokens and JSON: any chunking is no chunking."""

import base64
import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sluice_redaction.adapters.offline import use_packaged_suffix_list
from sluice_redaction.adapters.patterns.detector import PatternDetector
from sluice_redaction.adapters.patterns.sources import pattern_sources
from sluice_redaction.domain.policy import Policy
from sluice_redaction.domain.redaction import RedactingStream
from sluice_redaction.domain.vault import Entry, Vault

_DISGUISED = [
    "john dot smith at example dot com", "john [at] example (dot) com", "j o h n @ e x a m p l e . c o m", "four one one one one one one one",
    "one one one one one one one one", "4 1 1 1  1 1 1 1  1 1 1 1  1 1 1 1", "4111 1111\n1111 1111", "4111 1111\n> 1111 1111",
    "john.smith@exam\nple.com", "sk-proj-abcdefghijklmnop\nqrstuvwxyz123456", "**4111** 1111 1111 1111", "john%40example.com",
    "john&#64;example.com", "john\\u0040example.com\\n", "４１１１ １１１１ １１１１ １１１１", "jоhn@ехаmple.com", "jo\u200bhn@example.com",
    base64.b64encode(b"please write to john.smith@example.com soon").decode(),
]  # fmt: skip
_PLAIN = [
    "Mail john@example.com", "4111 1111 1111 1111", "536-90-4399", ". ", "! ", "\n", "\n> ", "\n\n", " ", ", ", "the word", " at ", " dot ", "one ",
    "<PERSON_1>", "[person 1]", "PERSON_1", "<PERS\nON_1>", '"', '\\"', '{"a": "', "é", "🙂", "x" * 30, " . ", "two.", "@", "(at) ", "%4", "&#6",
]  # fmt: skip
_TEXTS = st.lists(st.sampled_from(_DISGUISED) | st.sampled_from(_PLAIN) | st.text(max_size=3), max_size=16).map("".join)


@pytest.fixture(scope="module")
def patterns() -> PatternDetector:
    use_packaged_suffix_list()
    return PatternDetector(pattern_sources(("US",)))


def streamed(patterns: PatternDetector, chunks: list[str], *, json_text: bool = False) -> str:
    vault = Vault([Entry("<PERSON_1>", 'Bob "Bo" Ray', "PERSON")])
    stream = RedactingStream(Policy(), vault, json_text=json_text)
    released = ""
    for chunk in chunks:
        stream.push(chunk)
        while stream.has_work():
            released += stream.step(patterns).text
    while stream.has_work(final=True):
        released += stream.step(patterns, final=True).text
    return released + stream.finish().text


def cut(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted({place % (len(text) + 1) for place in places}), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


@settings(max_examples=150, deadline=None)
@given(text=_TEXTS, places=st.lists(st.integers(0, 9_999), max_size=20), json_text=st.booleans())
def test_any_chunking_gives_what_one_chunk_gives(
    patterns: PatternDetector, text: str, places: list[int], json_text: bool
) -> None:
    whole = streamed(patterns, [text], json_text=json_text)
    assert streamed(patterns, cut(text, places), json_text=json_text) == whole
    assert streamed(patterns, list(text), json_text=json_text) == whole


_WHOLE = [
    *(value for value in _DISGUISED if not value.startswith(("four", "one", "john\\"))),
    "four one one one. one one one one. one one one one. one one one one",
    "four one one one\none one one one\none one one one\none one one one",
    "john dot smith\nat example dot com",
    "john.smith\n@example.com",
]


@pytest.mark.parametrize("size", [1, 3, 7, 1_000])
@pytest.mark.parametrize("value", _WHOLE)
def test_a_disguised_value_is_never_cut_in_two(patterns: PatternDetector, value: str, size: int) -> None:
    text = f"Well, here it is at last, my friend: {value}, you see. And that is all there is to it. " * 2
    output = streamed(patterns, [text[at : at + size] for at in range(0, len(text), size)])
    assert output.count("<") == 2
    assert output.count(" you see. And that is all there is to it. ") == 2
    left = output.replace("Well, here it is at last, my friend: ", "").replace(
        "you see. And that is all there is to it. ", ""
    )
    assert set(left) <= set("<>_ ,*ABCDEFGHIJKLMNOPQRSTUVWXYZ1")


def test_arguments_in_json_come_out_as_json_with_values_restored_and_new_ones_redacted(
    patterns: PatternDetector,
) -> None:
    arguments = json.dumps({"to": "<PERSON_1>", "cc": "mary@example.org", "text": "Hi <person_1>,\nsee \\u0040 mail"})
    text = json.dumps({"name": "send", "arguments": arguments})
    for size in (1, 4, 1_000):
        output = streamed(patterns, [text[at : at + size] for at in range(0, len(text), size)], json_text=True)
        got = json.loads(json.loads(output)["arguments"])
        assert got["to"] == 'Bob "Bo" Ray'
        assert got["cc"] == "<EMAIL_ADDRESS_1>"
        assert got["text"].startswith('Hi Bob "Bo" Ray,\nsee')

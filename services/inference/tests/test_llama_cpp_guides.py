"""Guides of llama.cpp: judged before the engine sees them, and followed while it answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inference_stage import details, generate, refused, served, spec
from sluice.types.v1 import generation_pb2
from sluice_inference.adapters import gguf, model_file
from sluice_inference.adapters.llama_cpp.backend import LlamaCpp, LlamaCppOptions
from sluice_inference.adapters.llama_cpp.chunks import ChunkReader
from sluice_inference.adapters.llama_cpp.guides import Follower, follower, guide_fields, lark
from sluice_inference.domain.generation import Guide, GuideKind
from sluice_inference.domain.refusals import EngineFailed, InvalidRequest

HOT = generation_pb2.SamplingParameters(temperature=1.2, seed=5)


def regex(source: str) -> Guide:
    return Guide(GuideKind.REGEX, source)


@pytest.mark.parametrize(
    ("expression", "example"),
    [
        (r"[a-z]{3}/\d{2}", "deb/25"),
        (r"a\/b", "a/b"),
        (r"[/]x", "/x"),
        ("one\ntwo", "one\ntwo"),
        (r"a/\nstart: /b", "a/\nstart: /b"),
        (r"\\/", "\\/"),
        (r"(?i)ja", "JA"),
        ("née|水", "水"),
    ],
)
def test_an_expression_means_the_same_to_the_engine_as_to_everybody(expression: str, example: str) -> None:
    assert re.fullmatch(expression, example)
    seen = Follower(lark(regex(expression)))
    seen.feed(example)
    seen.end()


@pytest.mark.parametrize("expression", ["", "(", "[", "\\", r"a(?=b)", r"(a)\1", r"\bword"])
def test_what_cannot_be_followed_is_refused_without_its_text(expression: str) -> None:
    with pytest.raises(InvalidRequest, match="regular expression") as refusal:
        guide_fields(regex(expression))
    assert refusal.value.field == "guided.regex"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": 7},
        {"not": {"type": "string"}},
        {"type": "array", "uniqueItems": True},
        {"$ref": "http://example.com/schema"},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "a(?=b)"}}},
    ],
)
def test_a_schema_with_what_would_be_left_out_is_refused(schema: object) -> None:
    with pytest.raises(InvalidRequest, match="schema"):
        guide_fields(Guide(GuideKind.JSON_SCHEMA, json.dumps(schema)))


@pytest.mark.parametrize(
    "grammar", ["root ::= (((", "root ::= missing", "%llguidance {}\nstart: /a/", "", "(" * 5000 + "root ::= x"]
)
def test_a_grammar_that_is_none_never_reaches_the_engine(grammar: str) -> None:
    with pytest.raises(InvalidRequest, match="no GBNF"):
        guide_fields(Guide(GuideKind.EBNF, grammar))


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= "yes" | "no"',
        'root ::= item ("," ws item)*\nitem ::= [a-z]+ # comment\nws ::= [ \\t\\n]*',
        'root ::= "a"{2,3} [^"\\\\]? .',
        'root ::= "\\U00000041\\x41" ("b" | "c")+\n',
    ],
)
def test_a_grammar_that_is_one_goes_as_it_is(grammar: str) -> None:
    assert guide_fields(Guide(GuideKind.EBNF, grammar)) == {"grammar": grammar}


@given(st.data())
def test_any_cutting_of_an_answer_is_followed_alike(data: st.DataObject) -> None:
    text = "née, sir; 水"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    seen = Follower(lark(regex("(née|non), sir; [水火]")))
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        seen.feed(text[start:end])
    seen.end()


@pytest.mark.parametrize("text", ["yep", "no, sir!"])
def test_an_answer_that_leaves_its_guide_fails(text: str) -> None:
    reader = ChunkReader(eos_token_id=None, follower=follower(regex("(yes|no), sir")))
    with pytest.raises(EngineFailed, match="did not follow"):
        list(reader.read({"choices": [{"delta": {"content": text}}], "timings": {"predicted_n": 1}}))


def test_an_answer_that_ends_too_early_fails_and_one_cut_by_its_limit_does_not() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    for reason, fails in (("stop", True), ("length", False)):
        reader = ChunkReader(eos_token_id=None, follower=follower(regex("(yes|no), sir")))
        list(reader.read({"choices": [{"delta": {"content": "yes"}}], "timings": {"predicted_n": 1}}))
        last = {"choices": [{"delta": {}, "finish_reason": reason}], "usage": usage}
        if fails:
            with pytest.raises(EngineFailed):
                list(reader.read(last))
        else:
            assert list(reader.read(last))


@pytest.mark.parametrize("expression", [r"[a-f]{4}/\d\d", r"(yes|no)\.", r"[^a-z ]{3}"])
async def test_the_engine_follows_regular_expressions(engine: LlamaCpp, tmp_path: Path, expression: str) -> None:
    async with served(engine, home=tmp_path) as running:
        guided = generation_pb2.GuidedDecoding(regex=expression)
        output = (await generate(running, spec("Answer.", tokens=40, sampling=HOT, guided=guided))).outputs[0]
    assert re.fullmatch(expression, output.text)


async def test_the_engine_follows_a_schema_to_the_pattern_of_a_string(engine: LlamaCpp, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"code": {"type": "string", "pattern": "^[A-C]{2}[0-9]$"}}, "required": ["code"],
              "additionalProperties": False}  # fmt: skip
    async with served(engine, home=tmp_path) as running:
        guided = generation_pb2.GuidedDecoding(json_schema=json.dumps(schema))
        output = (await generate(running, spec("Answer.", tokens=40, sampling=HOT, guided=guided))).outputs[0]
    assert re.fullmatch("[A-C]{2}[0-9]", json.loads(output.text)["code"])


def test_an_engine_that_follows_no_guide_is_found_out_at_load(engine: LlamaCpp) -> None:
    class Deaf:
        def handle_completions(self, body: dict[str, object], callback: Callable[[dict[str, object]], bool]) -> None:
            callback({"choices": [{"text": "!"}]})

    options = LlamaCppOptions(Path("any"), 1, 256, 1)
    deaf = LlamaCpp(options, model=engine.model, gguf=gguf.read_facts(model_file.locate_packaged()))
    deaf._server = Deaf()
    deaf._try_a_guide()
    assert deaf.model.capabilities.guides == {GuideKind.EBNF, GuideKind.CHOICE}
    assert not deaf.model.capabilities.json_schema
    assert engine.model.capabilities.guides == set(GuideKind) - {GuideKind.STRUCTURAL_TAG}


async def test_a_guide_that_cannot_be_followed_is_refused_with_its_field(
    engine: LlamaCpp, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither the caller nor the standard error sees the guide's text."""
    secrets = (
        generation_pb2.GuidedDecoding(regex="secret(?=b)"),
        generation_pb2.GuidedDecoding(ebnf_grammar='root ::= "secret" ((('),
        generation_pb2.GuidedDecoding(json_schema='{"type": "string", "pattern": "secret(?=b)"}'),
    )
    async with served(engine, home=tmp_path) as running:
        for guided in secrets:
            error = await refused(generate(running, spec(guided=guided)))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert details(error)["ErrorInfo"].reason == "GUIDE_UNUSABLE"
            assert "secret" not in (error.details() or "")
    seen = capfd.readouterr()
    assert "secret" not in seen.err + seen.out

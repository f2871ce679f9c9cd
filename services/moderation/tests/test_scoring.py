"""The pool of scoring threads: every caller gets its own scores, whatever the others do."""

import asyncio
import random
from collections.abc import Sequence

import numpy as np
import pytest
from sluice_moderation.adapters.scoring import ScoringPool
from sluice_moderation.domain.detector import Scores
from sluice_moderation.domain.panel import COLUMN, Panel


class Reader:
    """Scores a text by the number it is."""

    name, digest, categories = "reader", "sha256:0", ("toxicity",)

    def scores(self, texts: Sequence[str]) -> Scores:
        return np.array([[int(text) / 1000] for text in texts], np.float32)


PANEL = Panel([Reader()])
NAMES = frozenset({"reader"})


@pytest.mark.parametrize("threads", [1, 2])
async def test_a_text_of_many_batches_is_scored_to_its_end(threads: int) -> None:
    pool = ScoringPool(PANEL, threads=threads, queue_windows=1000)
    windows = [str(n) for n in range(300)]
    scored = await asyncio.wait_for(pool.score(windows, NAMES), 20)
    assert scored.scores[:, COLUMN["toxicity"]] == pytest.approx(np.arange(300) / 1000, abs=1e-6)
    pool.close()


@pytest.mark.parametrize(("threads", "cache_windows"), [(1, 0), (2, 50), (3, 10_000)])
async def test_callers_get_their_own_scores_while_others_are_cancelled(threads: int, cache_windows: int) -> None:
    pool = ScoringPool(PANEL, threads=threads, queue_windows=100_000, cache_windows=cache_windows)
    drawn = random.Random(threads)

    async def call() -> bool:
        windows = [str(drawn.randrange(1000)) for _ in range(drawn.randrange(1, 200))]
        scored = await pool.score(windows, NAMES)
        found = scored.scores[:, COLUMN["toxicity"]]
        return bool(np.allclose(found, [int(window) / 1000 for window in windows]))

    calls = [asyncio.create_task(call()) for _ in range(300)]
    for task in calls[::3]:
        await asyncio.sleep(0)
        task.cancel()
    ended = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 30)
    assert {outcome for outcome in ended if not isinstance(outcome, asyncio.CancelledError)} == {True}
    assert await asyncio.wait_for(call(), 5)
    pool.close()

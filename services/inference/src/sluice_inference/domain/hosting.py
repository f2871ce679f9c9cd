"""Loads and unloads models, one change of a model at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from sluice_inference.domain.refusals import EngineFailed, EngineUnavailable, ModelUnusable
from sluice_inference.domain.roster import Hosted, ModelState
from sluice_inference.domain.warm_up import bring_up

# Between two tries to reach an upstream.
LONGEST_WAIT_SECONDS = 60.0


class Witness(Protocol):
    """Hears of changes of models."""

    def state_changed(self, hosted: Hosted) -> None: ...

    async def loaded(self, hosted: Hosted, seconds: float) -> None: ...

    def load_failed(self, hosted: Hosted, error: ModelUnusable) -> None: ...


class Hosting:
    """A change that was begun is carried through, also when whoever asked for it has gone."""

    def __init__(self, *, witness: Witness, clock: Callable[[], float], first_wait_seconds: float = 1.0) -> None:
        self._witness, self._clock, self._first_wait_seconds = witness, clock, first_wait_seconds
        self._loading: dict[str, asyncio.Task[None]] = {}

    async def load(self, hosted: Hosted) -> None:
        """Returns when it answers. Raises ModelUnusable, and EngineUnavailable while it is being unloaded."""
        if hosted.is_ready:
            return
        if hosted.state is ModelState.UNLOADING:
            raise EngineUnavailable(f"{hosted.model.model_id} is being unloaded; try again soon.")
        key = _key(hosted)
        if key not in self._loading:
            self._loading[key] = asyncio.create_task(self._bring_up(hosted), name=f"load {key}")
            self._loading[key].add_done_callback(lambda _: self._loading.pop(key, None))
        await asyncio.shield(self._loading[key])

    async def load_patiently(self, hosted: Hosted) -> None:
        """Tries until it answers: an upstream that is away now may come back, and this service need not be restarted for that.

        Cancelling it ends a try under way, as only a model that computes elsewhere can.
        """
        wait = self._first_wait_seconds
        while True:
            try:
                return await self.load(hosted)
            except ModelUnusable:
                await asyncio.sleep(wait)
                wait = min(LONGEST_WAIT_SECONDS, 2 * wait)
            except asyncio.CancelledError:
                if trying := self._loading.get(_key(hosted)):
                    trying.cancel()
                raise

    async def load_for_caller(self, hosted: Hosted) -> None:
        """The same for a remote caller, who is told that it failed; why stands in the log, for it may name files. Raises EngineFailed."""
        try:
            await self.load(hosted)
        except ModelUnusable as error:
            sentence = f"{hosted.model.model_id} could not be loaded; the log of the service tells why."
            raise EngineFailed(sentence, reason="MODEL_UNUSABLE") from error

    async def unload(self, hosted: Hosted, *, drain_seconds: float) -> int:
        """Returns how many requests were stopped because their time was over. Raises EngineUnavailable while it loads."""
        if hosted.state in (ModelState.LOADING, ModelState.UNLOADING):
            raise EngineUnavailable(f"{hosted.model.model_id} is {hosted.state.value}; try again soon.")
        if hosted.state is not ModelState.READY:
            return 0
        return await asyncio.shield(asyncio.create_task(self._take_down(hosted, drain_seconds)))

    async def _bring_up(self, hosted: Hosted) -> None:
        self._change(hosted, ModelState.LOADING)
        try:
            seconds = await bring_up(hosted.backend, clock=self._clock)
        except ModelUnusable as error:
            self._change(hosted, ModelState.FAILED)
            self._witness.load_failed(hosted, error)
            raise
        hosted.conductor.admit_again()
        self._change(hosted, ModelState.READY)
        await self._witness.loaded(hosted, seconds)

    async def _take_down(self, hosted: Hosted, drain_seconds: float) -> int:
        self._change(hosted, ModelState.UNLOADING)
        hosted.conductor.admit_no_more(f"{hosted.model.model_id} is being unloaded.")
        await hosted.conductor.idle(seconds=drain_seconds)
        stopped = await hosted.conductor.close()
        await hosted.backend.close()
        self._change(hosted, ModelState.UNLOADED)
        return stopped

    def _change(self, hosted: Hosted, state: ModelState) -> None:
        hosted.state = state
        self._witness.state_changed(hosted)


def _key(hosted: Hosted) -> str:
    return f"{hosted.model.model_id}@{hosted.model.version}"

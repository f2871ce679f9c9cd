"""TLS, the protocol that ALPN negotiates, and an outbound proxy: against Hypercorn and proxy.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from inference_stage import until
from sluice_inference.adapters.openai_http.backend import OpenAiHttp, model_facts
from sluice_inference.adapters.openai_http.options import OpenAiHttpOptions
from sluice_inference.domain.backend import EngineEnded, NewTokens
from sluice_inference.domain.generation import Chat, ChatTurn, Generation, Stopping
from sluice_inference.domain.refusals import EngineUnavailable, ModelUnusable
from tls_upstream import PROXY_USER, TlsUpstream, outbound_proxy

ASKED = Generation("id", "m", Chat((ChatTurn("user", "Hello, upstream!"),)), stopping=Stopping(max_tokens=8))


def backend(upstream: TlsUpstream, *, model: str = "up", **more: Any) -> OpenAiHttp:
    options = OpenAiHttpOptions(
        base_url=upstream.url, upstream_model=model, retries={"attempts": 1}, seconds={"connect": 10}, **more
    )
    return OpenAiHttp(options, model=model_facts(options, model_id="m"))


async def answer_of(engine: OpenAiHttp) -> str:
    run = engine.start(ASKED, slot=0, may_reuse_cache=False)
    try:
        steps = [step async for step in run]
        assert isinstance(steps[-1], EngineEnded)
        assert (steps[-1].prompt_tokens, steps[-1].generated) == (5, 3)
        return "".join(step.text for step in steps if isinstance(step, NewTokens))
    finally:
        run.stop()
        await run.closed()
        await engine.close()


async def test_http2_is_spoken_where_tls_negotiates_it(tmp_path: Path) -> None:
    upstream = TlsUpstream()
    async with upstream.serving(tmp_path) as authority:
        assert await answer_of(backend(upstream, ca_file=authority)) == "the salt sea"
    assert upstream.versions == ["2"]


async def test_http1_is_spoken_to_a_server_that_offers_nothing_else(tmp_path: Path) -> None:
    upstream = TlsUpstream()
    async with upstream.serving(tmp_path, alpn=("http/1.1",)) as authority:
        assert await answer_of(backend(upstream, ca_file=authority)) == "the salt sea"
    assert upstream.versions == ["1.1"]


async def test_http1_is_spoken_where_the_options_say_so(tmp_path: Path) -> None:
    upstream = TlsUpstream()
    async with upstream.serving(tmp_path) as authority:
        assert await answer_of(backend(upstream, ca_file=authority, http="1.1")) == "the salt sea"
    assert upstream.versions == ["1.1"]


async def test_a_certificate_of_an_unknown_authority_is_not_spoken_to(tmp_path: Path) -> None:
    upstream = TlsUpstream()
    async with upstream.serving(tmp_path):
        with pytest.raises(EngineUnavailable):
            await answer_of(backend(upstream))
    assert upstream.versions == []


@pytest.mark.parametrize("alpn", [("h2",), ("http/1.1",)])
async def test_stopping_tells_the_upstream_over_tls_too(tmp_path: Path, alpn: tuple[str, ...]) -> None:
    upstream = TlsUpstream()
    async with upstream.serving(tmp_path, alpn=alpn) as authority:
        engine = backend(upstream, model="endless", ca_file=authority)
        run = engine.start(ASKED, slot=0, may_reuse_cache=False)
        async for step in run:
            if isinstance(step, NewTokens):
                break
        run.stop()
        await run.closed()
        await until(lambda: upstream.gone == 1)
        assert engine.aborts == 1
        await engine.close()


async def test_an_outbound_proxy_is_gone_through_with_its_user_and_http2_stays(tmp_path: Path) -> None:
    upstream = TlsUpstream()
    secret = tmp_path / "proxy-user"
    secret.write_text(PROXY_USER + "\n")
    async with upstream.serving(tmp_path) as authority, outbound_proxy(tmp_path) as proxy:
        through = {"ca_file": authority, "proxy": proxy}
        # Without its user the proxy lets nobody through: the upstream hears nothing, so nothing goes past the proxy.
        with pytest.raises(EngineUnavailable):
            await answer_of(backend(upstream, **through))
        assert upstream.versions == []
        assert await answer_of(backend(upstream, **through, proxy_auth_file=secret)) == "the salt sea"
        assert upstream.versions == ["2"]


async def test_a_proxy_that_nobody_runs_is_told_and_not_gone_round(tmp_path: Path) -> None:
    upstream = TlsUpstream()
    async with upstream.serving(tmp_path) as authority:
        with pytest.raises(EngineUnavailable):
            await answer_of(backend(upstream, ca_file=authority, proxy="http://127.0.0.1:9"))
    assert upstream.versions == []


async def test_a_proxy_whose_user_cannot_be_read_is_told_at_load(tmp_path: Path) -> None:
    upstream = TlsUpstream()
    upstream.url = "https://localhost:9/v1"
    engine = backend(upstream, proxy="http://127.0.0.1:9", proxy_auth_file=tmp_path / "none")
    with pytest.raises(ModelUnusable, match="user and password"):
        await engine.load()

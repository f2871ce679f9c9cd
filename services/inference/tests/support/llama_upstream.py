"""llama.cpp's own HTTP server with the packaged model, as a process: a real OpenAI-compatible upstream of another make.

Run as a program it prints one JSON line with its address and serves until its standard input is closed.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KEY = "upstream-key-for-tests"
# The packaged model's own template knows no tools.
TOOL_TEMPLATE = Path(__file__).parent / "tool_template.jinja"


@dataclass(frozen=True)
class LlamaUpstream:
    """Addresses without `/v1`: of the generating server and of one that makes embeddings."""

    address: str
    embedding_address: str
    pid: int

    def busy_slots(self) -> int:
        """Slots that the server itself says are computing."""
        request = urllib.request.Request(self.address + "/slots", headers={"Authorization": f"Bearer {KEY}"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return sum(bool(slot["is_processing"]) for slot in json.load(answer))


@contextlib.contextmanager
def running_upstream() -> Iterator[LlamaUpstream]:
    child = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin and child.stdout
    try:
        line = child.stdout.readline()
        yield LlamaUpstream(**json.loads(line))
    finally:
        child.stdin.close()
        try:
            child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()


def serve() -> None:
    import xllamacpp
    from sluice_inference.adapters import model_file
    from sluice_inference.adapters.llama_cpp.process import wait_without_spinning

    wait_without_spinning()

    def server(slots: int, *, embedding: bool) -> xllamacpp.Server:
        params = xllamacpp.CommonParams()
        params.model.path = str(model_file.locate_packaged())
        params.n_parallel, params.n_ctx = slots, slots * 512
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
        params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [KEY]
        params.n_threads_http, params.ui, params.endpoint_slots = 2 * slots, False, True
        params.chat_template = TOOL_TEMPLATE.read_text(encoding="utf-8")
        params.embedding = embedding
        if embedding:
            params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        params.verbosity = -1
        return xllamacpp.Server(params)

    generating, embedding = server(4, embedding=False), server(1, embedding=True)
    addresses: dict[str, object] = {
        "address": generating.listening_address,
        "embedding_address": embedding.listening_address,
        "pid": os.getpid(),
    }
    print(json.dumps(addresses), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve()

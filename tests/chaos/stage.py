"""What a chaos run is played on: its plan, the files a mesh needs for it, and the scripted model beside it."""

import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sluice_gateway.domain.api_key import mint

from ..mesh.conftest import Mesh

BUDGETED = "globex"
TENANTS = ("acme", BUDGETED, "initech")
MODEL = "sluice-small"
VECTORS = "sluice-embed"
SERVED = "smollm2-135m-instruct"


@dataclass(frozen=True)
class Plan:
    """How long, how hard. The moments come from the seed."""

    name: str
    seed: int
    load_seconds: float
    kills_each: int
    """Kills of every victim."""
    outages: int
    outage_seconds: float
    callers: int
    budget: str
    """Hard limit of one tenant, in dollars: used up during the run."""

    @property
    def target(self) -> str:
        """Of the Makefile."""
        return "test-chaos" if self.name == "long" else "test-chaos-short"

    @property
    def request_seconds(self) -> int:
        """Longest a request may take. A hold lasts half a minute longer."""
        return 20

    @property
    def grace_seconds(self) -> int:
        """Must be longer than the events of a dead gateway may wait: for the broker, and for the gateway's next start.

        A seed may put one outage right after the other, with too little between them for what has piled up.
        """
        return int(self.outages * self.outage_seconds) + 40

    @property
    def release_seconds(self) -> int:
        """After so long nothing of a gateway that was killed is held any more."""
        return self.request_seconds + 30 + self.grace_seconds


def plan_of_the_environment() -> Plan:
    """SLUICE_CHAOS=long: minutes, the broker away for one of them. SLUICE_CHAOS_SEED: that of a run that is to be had again."""
    seed = int(os.environ.get("SLUICE_CHAOS_SEED") or random.randrange(1_000_000))
    if os.environ.get("SLUICE_CHAOS") == "long":
        return Plan("long", seed, 240, kills_each=4, outages=2, outage_seconds=60, callers=12, budget="6.00")
    return Plan("short", seed, 30, kills_each=1, outages=1, outage_seconds=10, callers=8, budget="0.60")


@dataclass(frozen=True)
class Stage:
    """A running mesh with its tenants."""

    plan: Plan
    mesh: Mesh
    keys: dict[str, str]


PRICES = """
id: chaos
version: "1"
currency: USD
effective_from: 2026-01-01T00:00:00Z
approved_by: a test
models:
  smollm2-135m-instruct: {input_per_million: "10", output_per_million: "1000"}
  sluice-static-minilm-256: {input_per_million: "10", output_per_million: "0"}
"""


def prepare(plan: Plan, mesh: Mesh, upstream_port: int) -> tuple[dict[str, str], dict[str, str]]:
    """Writes the files. Gives the tenants' keys, and the settings that the mesh is started with."""
    home = mesh.home.path
    minted = {tenant: mint(tenant) for tenant in TENANTS}
    keys = {tenant: key for tenant, (key, _) in minted.items()}
    mesh.home.gateway_file.write_text(json.dumps(_gateway({tenant: hash_ for tenant, (_, hash_) in minted.items()})))
    # With both there already, `sluice mesh up` makes no keys of its own.
    mesh.home.demo_env.write_text(f"SLUICE_API_KEY={keys['acme']}\nSLUICE_API_KEY_GLOBEX={keys['globex']}\n")
    files = {
        "SLUICE_INFERENCE_MODELS_FILE": ("models.json", json.dumps(_models(upstream_port))),
        "SLUICE_COST_PRICE_BOOK_FILE": ("prices.yaml", PRICES),
        "SLUICE_COST_BUDGETS_FILE": ("budgets.json", json.dumps(_budgets(plan))),
    }
    for name, text in files.values():
        (home / name).write_text(text)
    return keys, {variable: str(home / name) for variable, (name, _) in files.items()} | {
        "SLUICE_COST_EXPIRED_GRACE_SECONDS": str(plan.grace_seconds),
        "SLUICE_COST_SEAL_SECONDS": "5",
        "SLUICE_GATEWAY_REQUEST_SECONDS": str(plan.request_seconds),
        "SLUICE_GATEWAY_LEASE_SECONDS": "10",
        # The machine may be busy: what is tested is that nothing is lost, not how fast a neighbour answers.
        "SLUICE_GATEWAY_BUDGET_SECONDS": "10",
        "SLUICE_GATEWAY_FILTER_SECONDS": "15",
        "SLUICE_DRIFT_REFERENCE_OBSERVATIONS": "30",
    }


def _gateway(hashes: dict[str, str]) -> dict[str, object]:
    limits = {"requests_per_minute": 1_000_000, "concurrency": 500}
    return {
        "version": 1,
        "tenants": [{"id": t, "content_capture": "redacted", "limits": limits} for t in hashes],
        "api_keys": [{"id": t, "sha256": hash_, "tenant": t} for t, hash_ in hashes.items()],
        "models": [
            {"alias": MODEL, "target": SERVED, "max_output_tokens": 64},
            {"alias": VECTORS, "target": "sluice-static-minilm-256", "tasks": ["embed"]},
        ],
    }


def _models(port: int) -> dict[str, object]:
    upstream = {"base_url": f"http://127.0.0.1:{port}/v1", "upstream_model": "scripted"}
    return {"models": [{"id": SERVED, "backend": "openai_http", "slots": 64, "queue_limit": 256, "upstream": upstream}]}


def _budgets(plan: Plan) -> dict[str, object]:
    budget = {
        "id": BUDGETED,
        "scope": "tenant",
        "tenants": [BUDGETED],
        "limit": plan.budget,
        "currency": "USD",
        "window": "month",
    }
    return {"approved_by": "a test", "budgets": [budget]}


@contextlib.contextmanager
def scripted_model() -> Iterator[int]:
    """The port of a model that answers what is written beforehand."""
    program = Path(__file__).with_name("scripted_model.py")
    process = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        with process.stdout:
            yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait(timeout=20)

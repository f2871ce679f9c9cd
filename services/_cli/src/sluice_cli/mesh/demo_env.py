"""The demo tenants, their keys, and the file that tells any tool where the mesh is."""

import hashlib
import os
import secrets
import shlex
from collections.abc import Mapping
from typing import Any

import yaml
from sluice_kit.addresses import DEFAULT_PORTS

from sluice_cli.mesh import demo_console
from sluice_cli.mesh.home import Home
from sluice_cli.mesh.plan import GRPC_SERVICES, SELF_TEST_MODEL, STREAM_PROCESSORS
from sluice_cli.mesh.private_file import write_private
from sluice_cli.mesh.problem import MeshProblem

TENANTS = ("acme", "globex")
MODEL = "sluice-small"
# Id under which the inference service serves the packaged model.
MODEL_TARGET = "smollm2-135m-instruct"
PROBE_KEY = "self-test"
"""Id of the key of the mesh's self-tests, whose requests are on nobody's bill."""
PROMPT_VERSIONS = ("assistant@1", "assistant@2")
"""What the demo tenants' callers may say made a request, and of which arm of an experiment it is."""
EXPERIMENT_ARMS = ("tone/plain", "tone/friendly")
EMBEDDING_MODEL = "sluice-embed"
EMBEDDING_TARGET = "sluice-static-minilm-256"


def write(home: Home, offset: int, broker: Mapping[str, str]) -> None:
    """Writes demo.env (mode 600), gateway.yaml and the console's keys when there are none yet. Keys that exist are kept."""
    console_key = demo_console.key(home, read(home) if home.demo_env.exists() else {})
    keys = _keys(home)
    if not home.gateway_file.exists():
        probe_key = f"sk-sluice-{PROBE_KEY}-{secrets.token_hex(32)}"
        write_private(home.probe_key_file, f"{probe_key}\n")
        write_private(home.gateway_file, _gateway_yaml(keys, probe_key))
    values = {**addresses(home, offset), **_key_variables(keys), demo_console.KEY: console_key, **broker}
    write_private(home.demo_env, _assignments(values))


def addresses(home: Home, offset: int) -> dict[str, str]:
    """Environment variables that say where the mesh of this offset is."""

    def at(listener: str) -> str:
        return f"127.0.0.1:{DEFAULT_PORTS[listener] + offset}"

    return {
        "SLUICE_HOME": str(home.path),
        "SLUICE_PORT_BASE_OFFSET": str(offset),
        "SLUICE_HTTP_URL": f"http://{at('gateway_http')}",
        "SLUICE_GRPC_TARGET": at("gateway"),
        **{f"SLUICE_{service.upper()}_TARGET": at(service) for service in GRPC_SERVICES},
        **{f"SLUICE_{service.upper()}_URL": f"http://{at(f'{service}_web')}" for service in STREAM_PROCESSORS},
        demo_console.URL: f"http://{at('console')}",
        "SLUICE_MODEL": MODEL,
        "SLUICE_TENANT": TENANTS[0],
    }


def read(home: Home) -> dict[str, str]:
    """The assignments of demo.env. MeshProblem when no mesh was ever started here."""
    try:
        lines = home.demo_env.read_text().splitlines()
    except OSError:
        raise MeshProblem(f"No mesh was ever started in SLUICE_HOME={home.path}: start one with `make run`.") from None
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {name: "".join(shlex.split(value)) for name, value in pairs}


def target(home: Home, service: str) -> str:
    """Address of a service: from the environment, else from demo.env. MeshProblem when neither tells."""
    name = f"SLUICE_{service.upper()}_TARGET"
    return os.environ.get(name) or read(home)[name]


def tenant_keys(environment: Mapping[str, str]) -> dict[str, str]:
    """Tenant to API key, from what demo.env assigns."""
    return {tenant: environment[variable] for variable, tenant in _variables().items() if environment.get(variable)}


def tenants_with_variants(home: Home) -> frozenset[str]:
    """Demo tenants whose callers may declare PROMPT_VERSIONS and EXPERIMENT_ARMS; an earlier release's gateway.yaml names none."""
    try:
        document = yaml.safe_load(home.gateway_file.read_text())
        return frozenset(tenant["id"] for tenant in document["tenants"] if _has_variants(tenant))
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        # Not there, or not a file the gateway would take.
        return frozenset()


def _has_variants(tenant: Mapping[str, Any]) -> bool:
    versions, arms = tenant.get("prompt_versions", ()), tenant.get("experiment_arms", ())
    return set(PROMPT_VERSIONS) <= set(versions) and set(EXPERIMENT_ARMS) <= set(arms)


def _keys(home: Home) -> dict[str, str]:
    """Tenant to key. Only demo.env knows the keys in clear; without it new ones are made, and the gateway's file anew."""
    known = read(home) if home.demo_env.exists() and home.gateway_file.exists() else {}
    keys = {tenant: known.get(variable, "") for variable, tenant in _variables().items()}
    if not all(keys.values()):
        if home.gateway_file.exists():
            home.gateway_file.rename(home.gateway_file.with_suffix(".yaml.before"))
        keys = {tenant: f"sk-sluice-{tenant}-{secrets.token_hex(32)}" for tenant in TENANTS}
    return keys


def _variables() -> dict[str, str]:
    first, *others = TENANTS
    return {"SLUICE_API_KEY": first, **{f"SLUICE_API_KEY_{tenant.upper()}": tenant for tenant in others}}


def _key_variables(keys: Mapping[str, str]) -> dict[str, str]:
    return {variable: keys[tenant] for variable, tenant in _variables().items()}


def _gateway_yaml(keys: Mapping[str, str], probe_key: str) -> str:
    document = {
        "version": 1,
        "tenants": [
            {
                "id": tenant,
                "project": "demo",
                "content_capture": "redacted",
                "limits": {"requests_per_minute": 6000, "concurrency": 32},
                "prompt_versions": list(PROMPT_VERSIONS),
                "experiment_arms": list(EXPERIMENT_ARMS),
            }
            for tenant in keys
        ],
        "api_keys": [
            *({"id": tenant, "sha256": _digest(key), "tenant": tenant} for tenant, key in keys.items()),
            {
                "id": PROBE_KEY,
                "sha256": _digest(probe_key),
                "tenant": TENANTS[0],
                "synthetic": True,
                "max_tokens": {SELF_TEST_MODEL: 1000, "*": 1},
            },
        ],
        "models": [
            {"alias": MODEL, "target": MODEL_TARGET, "owned_by": "huggingface", "max_output_tokens": 256},
            {"alias": EMBEDDING_MODEL, "target": EMBEDDING_TARGET, "owned_by": "sluice", "tasks": ["embed"]},
            {"alias": SELF_TEST_MODEL, "target": SELF_TEST_MODEL, "owned_by": "sluice", "max_output_tokens": 1024},
        ],
    }
    head = "# Written by `sluice mesh up` when there was none; yours to change. Keys are hashed; the clear ones are in demo.env.\n"
    return head + yaml.safe_dump(document, sort_keys=False)


def _digest(key: str) -> str:
    return hashlib.sha256(key.rsplit("-", 1)[1].encode("ascii")).hexdigest()


def _assignments(values: Mapping[str, str]) -> str:
    head = "# Where the mesh is, and keys for it. In a shell: set -a; . demo.env; set +a\n"
    return head + "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())

"""The kustomize overlays render, fit the Kubernetes schemas, and agree with the code."""

import functools
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from mesh_settings import GRPC_SERVICES, SERVICES, environment_names, expected_port

DEPLOY = Path(__file__).parents[2] / "deploy"
KUSTOMIZE = shutil.which("kustomize") or shutil.which("kustomize", path=str(Path(sys.executable).parent))
KUBERNETES_VERSION = "1.31"

pytestmark = pytest.mark.skipif(
    KUSTOMIZE is None, reason="kustomize could not be built (make .venv/bin/kustomize says why)"
)


@functools.cache
def render(service: str) -> tuple[dict, ...]:
    run = subprocess.run(
        [str(KUSTOMIZE), "build", str(DEPLOY / "services" / service)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return tuple(yaml.safe_load_all(run.stdout))


def one(service: str, kind: str) -> dict:
    (found,) = [d for d in render(service) if d["kind"] == kind]
    return found


def container(service: str) -> dict:
    (only,) = one(service, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    return only


def test_every_service_has_an_overlay_and_nothing_else_has():
    assert {p.name for p in (DEPLOY / "services").iterdir()} == set(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_every_manifest_fits_the_schema(service):
    for manifest in render(service):
        kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_deploys_without_touching_another(service):
    names = {d["metadata"]["name"] for d in render(service)}
    assert all(name == f"sluice-{service}" or name.startswith(f"mesh-{service}-") for name in names), names


@pytest.mark.parametrize("service", SERVICES)
def test_every_environment_name_is_one_the_service_reads(service):
    names = {e["name"] for e in container(service)["env"]} | set(one(service, "ConfigMap")["data"])
    assert names - environment_names(service) == set()


@pytest.mark.parametrize("service", SERVICES)
def test_every_port_is_the_port_of_the_code(service):
    kinds = {
        "grpc": "grpc",
        "http": "http",
        "metrics": "web" if service in ("quality", "drift", "fairness") else "metrics",
    }
    ports = {p["name"]: p["containerPort"] for p in container(service)["ports"]}
    assert ports == {name: expected_port(service, kinds[name]) for name in ports}
    assert {p["name"]: p["port"] for p in one(service, "Service")["spec"]["ports"]} == ports
    assert ("grpc" in ports) == (service in GRPC_SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_the_process_runs_hardened_and_bounded(service):
    spec = one(service, "StatefulSet")["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    assert container(service)["securityContext"]["readOnlyRootFilesystem"] is True
    assert container(service)["resources"]["limits"]["memory"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container(service)[probe]


def test_policies_of_ones_own_can_be_given_to_moderation_and_need_not_be():
    spec = one("moderation", "StatefulSet")["spec"]["template"]["spec"]
    (volume,) = [v for v in spec["volumes"] if v["name"] == "policies"]
    assert volume["configMap"] == {"name": "sluice-moderation-policies", "optional": True}
    (mount,) = [m for m in container("moderation")["volumeMounts"] if m["name"] == "policies"]
    folder = {e["name"]: e.get("value") for e in container("moderation")["env"]}["SLUICE_MODERATION_POLICIES"]
    assert (mount["mountPath"], mount["readOnly"]) == (folder, True)


def test_a_wrong_manifest_would_be_noticed():
    wrong = yaml.safe_load(yaml.safe_dump(one("cost", "StatefulSet")))
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePullPolicyy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES_VERSION, strict=True)

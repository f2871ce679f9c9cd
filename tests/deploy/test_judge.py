"""The judge of answers is off in every deployment, one setting away in each, and agrees with the code there."""

import functools
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from sluice_kit.addresses import DEFAULT_PORTS
from sluice_quality.settings import QualitySettings

sys.path.insert(0, str(Path(__file__).parent))
from mesh_settings import environment_names

ROOT = Path(__file__).parents[2]
OVERLAY = ROOT / "deploy" / "judge"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
PORT = DEFAULT_PORTS["quality_judge_web"]
KUSTOMIZE = shutil.which("kustomize") or shutil.which("kustomize", path=str(Path(sys.executable).parent))
needs_kustomize = pytest.mark.skipif(
    KUSTOMIZE is None, reason="kustomize could not be built (make .venv/bin/kustomize says why)"
)


@functools.cache
def rendered() -> tuple[dict, ...]:
    run = subprocess.run([str(KUSTOMIZE), "build", str(OVERLAY)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return tuple(yaml.safe_load_all(run.stdout))


def one(kind: str) -> dict:
    (found,) = [each for each in rendered() if each["kind"] == kind]
    return found


def container() -> dict:
    (only,) = one("StatefulSet")["spec"]["template"]["spec"]["containers"]
    return only


def in_compose() -> dict:
    return COMPOSE["services"]["quality-judge"]


def starts_judging(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the process, given this, would judge: it refuses to start otherwise."""
    for name, value in environment.items():
        monkeypatch.setenv(name, re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", value))
    return QualitySettings().is_judging


def test_its_script_is_one_of_the_quality_services_image() -> None:
    project = tomllib.loads((ROOT / "services/quality/pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"]["sluice-quality-judge"] == "sluice_quality.main:judge"


def test_no_other_container_is_optional_and_nothing_waits_for_the_judge() -> None:
    assert [name for name, each in COMPOSE["services"].items() if "profiles" in each] == ["quality-judge"]
    assert in_compose()["profiles"] == ["judge"]
    assert not any("quality-judge" in each.get("depends_on", {}) for each in COMPOSE["services"].values())


def test_the_profile_alone_starts_a_judge_of_the_code_with_the_keys_of_the_texts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment = in_compose()["environment"]
    assert in_compose()["entrypoint"] == ["sluice-quality-judge"]
    assert in_compose()["image"] == COMPOSE["services"]["quality"]["image"]
    assert in_compose()["build"] == COMPOSE["services"]["quality"]["build"]
    assert set(environment) <= environment_names("quality")
    assert environment["SLUICE_QUALITY_JUDGE_METRICS_LISTEN"] == f"0.0.0.0:{PORT}"
    assert in_compose()["healthcheck"]["test"][-1] == f"127.0.0.1:{PORT}"
    assert f"keys:{environment['SLUICE_KEY_STORE_FOLDER']}" in in_compose()["volumes"]
    assert starts_judging(environment, monkeypatch)


def test_it_is_scraped_where_it_runs_and_missed_nowhere() -> None:
    scrape = yaml.safe_load((ROOT / "deploy/observability/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    (job,) = scrape["scrape_configs"]
    assert not any("quality-judge" in target for each in job["static_configs"] for target in each["targets"])
    assert job["dns_sd_configs"] == [{"names": ["quality-judge"], "type": "A", "port": PORT}]
    # Static targets have no such label and keep the service that stands beside them.
    (labelled,) = job["relabel_configs"]
    assert labelled == {"source_labels": ["__meta_dns_name"], "regex": "(.+)", "target_label": "service"}


def test_no_overlay_of_a_service_brings_it() -> None:
    overlays = [*(ROOT / "deploy/services").glob("*/*.yaml"), *(ROOT / "deploy/base").iterdir()]
    assert not any("quality-judge" in path.read_text(encoding="utf-8") for path in overlays)


@needs_kustomize
def test_every_manifest_fits_the_schema_and_is_the_judges_own() -> None:
    for manifest in rendered():
        kubernetes_validate.validate(manifest, "1.31", strict=True)
    names = {each["metadata"]["name"] for each in rendered()}
    assert all(name == "sluice-quality-judge" or name.startswith("mesh-quality-judge-") for name in names), names
    selected = one("Service")["spec"]["selector"]["app.kubernetes.io/name"]
    assert selected == "quality-judge"  # the processor's service must not lead to it


@needs_kustomize
def test_the_overlay_alone_starts_a_judge_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {each["name"]: each["value"] for each in container()["env"] if "value" in each}
    assert container()["command"] == ["sluice-quality-judge"]
    assert container()["image"].startswith("sluice/quality:")
    assert set(environment) | set(one("ConfigMap")["data"]) <= environment_names("quality") | {"SLUICE_INSTANCE"}
    assert environment["SLUICE_QUALITY_JUDGE_METRICS_LISTEN"] == f"0.0.0.0:{PORT}"
    assert container()["ports"] == [{"name": "metrics", "containerPort": PORT}]
    assert [each["port"] for each in one("Service")["spec"]["ports"]] == [PORT]
    assert starts_judging(environment, monkeypatch)


@needs_kustomize
def test_the_process_runs_hardened_and_bounded() -> None:
    spec = one("StatefulSet")["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    assert container()["securityContext"]["readOnlyRootFilesystem"] is True
    assert container()["resources"]["limits"]["memory"]
    assert all(container()[probe] for probe in ("startupProbe", "readinessProbe", "livenessProbe"))

"""docker-compose.yml agrees with the code: services, ports, environment names, health checks, limits."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from compose_spec import PyCompose

sys.path.insert(0, str(Path(__file__).parent))
from mesh_settings import SERVICES, environment_names, expected_port

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
LISTEN = re.compile(r"^SLUICE_[A-Z]+_(GRPC|HTTP|METRICS|WEB)_LISTEN$")


def test_every_service_of_the_workspace_is_in_the_compose_file():
    folders = {p.parent.name for p in (ROOT / "services").glob("[a-z]*/pyproject.toml")}
    assert folders == set(SERVICES)
    assert set(SERVICES) <= set(COMPOSE["services"])


@pytest.mark.parametrize("name", sorted(COMPOSE["services"]))
def test_every_container_has_a_memory_limit(name):
    assert re.match(r"^\d+[mg]$", COMPOSE["services"][name]["mem_limit"])


@pytest.mark.parametrize("name", [n for n in COMPOSE["services"] if n != "topics"])
def test_every_container_that_stays_has_a_health_check(name):
    assert COMPOSE["services"][name]["healthcheck"]["test"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_environment_name_is_one_the_service_reads(name):
    known = environment_names(name)
    unknown = {key for key in COMPOSE["services"][name]["environment"] if key not in known}
    assert unknown == set()


@pytest.mark.parametrize("name", SERVICES)
def test_every_listen_address_has_the_port_of_the_code(name):
    seen = 0
    for key, value in COMPOSE["services"][name]["environment"].items():
        if match := LISTEN.match(key):
            assert int(value.rsplit(":", 1)[1]) == expected_port(name, match[1].lower())
            seen += 1
    assert seen >= 1


@pytest.mark.parametrize("name", SERVICES)
def test_the_targets_name_containers_and_their_ports(name):
    for key, value in COMPOSE["services"][name]["environment"].items():
        if key.endswith("_TARGET"):
            host, port = value.split(":")
            assert host == key.removeprefix("SLUICE_").removesuffix("_TARGET").lower()
            assert int(port) == expected_port(host, "grpc")


def test_alerts_link_to_the_console_where_it_is_published():
    [published] = COMPOSE["services"]["console"]["ports"]
    address = published.rsplit(":", 1)[0]
    default = COMPOSE["services"]["insight"]["environment"]["SLUICE_INSIGHT_CONSOLE_URL"]
    assert default == f"${{SLUICE_INSIGHT_CONSOLE_URL:-http://{address}}}"


@pytest.mark.parametrize("name", SERVICES)
def test_the_health_check_asks_the_port_that_is_served(name):
    port = int(COMPOSE["services"][name]["healthcheck"]["test"][-1].rsplit(":", 1)[1])
    assert port == expected_port(name, "web" if name in ("quality", "drift", "fairness") else "metrics")


@pytest.mark.parametrize("name", SERVICES)
def test_the_image_is_built_from_the_services_own_folder(name):
    assert COMPOSE["services"][name]["build"]["args"]["SERVICE"] == name
    assert (ROOT / "requirements" / f"{name}.txt").exists()


def test_the_key_of_the_self_tests_is_no_folder_where_the_file_is_missing():
    (key,) = [v for v in COMPOSE["services"]["probes"]["volumes"] if isinstance(v, dict)]
    assert key["target"] == COMPOSE["services"]["probes"]["environment"]["SLUICE_PROBES_KEY_FILE"]
    assert key["bind"] == {"create_host_path": False}
    assert key["read_only"]


def test_the_dockerfile_starts_the_console_script_that_each_package_declares():
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "/opt/sluice/bin/sluice-${SERVICE}" in dockerfile
    assert "USER 10001:10001" in dockerfile
    for name in SERVICES:
        project = tomllib.loads((ROOT / "services" / name / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert project["scripts"][f"sluice-{name}"] == f"sluice_{name}.main:main"


def interpolated() -> dict:
    """The file as compose sees it: variables filled in, x- fragments merged and dropped."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    text = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", text)
    text = re.sub(r"\$\{[A-Z_]+:\?[^}]*\}", "filled-in", text)
    return {key: value for key, value in yaml.safe_load(text).items() if not key.startswith("x-")}


def test_the_file_is_valid_by_the_compose_specification():
    parsed = PyCompose.from_yaml(yaml.safe_dump(interpolated()))
    assert set(SERVICES) <= set(parsed.service_names())


def test_a_misspelt_key_would_be_noticed():
    wrong = interpolated()
    wrong["services"]["kafka"]["mem_limitt"] = "1g"
    with pytest.raises(ValueError, match="mem_limitt"):
        PyCompose.from_yaml(yaml.safe_dump(wrong))

"""Every metric and label that rules and dashboards name is one that a service exposes; what is provisioned fits together."""

import functools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import kubernetes_validate
import promql_parser
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from mesh_settings import SERVICES, expected_port

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "observability"
RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "prometheus/rules.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
DASHBOARDS = {
    path.name: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((FOLDER / "grafana/dashboards").glob("*.json"))
}
SCRAPE = yaml.safe_load((FOLDER / "prometheus/prometheus.yml").read_text(encoding="utf-8"))
PARTS = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_count", "_sum"),
    "gauge": ("",),
    "summary": ("_count", "_sum"),
}
GIVEN_BY_PROMETHEUS = {"job", "instance", "service", "pod"}
KUSTOMIZE = shutil.which("kustomize") or shutil.which("kustomize", path=str(Path(sys.executable).parent))


def expressions() -> Iterator[Any]:
    for rule in RULES:
        yield pytest.param(rule["expr"], id=rule["alert"])
    for name, dashboard in DASHBOARDS.items():
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                yield pytest.param(target["expr"], id=f"{name}: {panel['title']} {target['refId']}")


def queries() -> Iterator[Any]:
    for name, dashboard in DASHBOARDS.items():
        for variable in dashboard["templating"]["list"]:
            yield pytest.param(variable["query"]["query"], id=f"{name}: {variable['name']}")


@pytest.fixture(scope="session")
def exposed() -> dict[str, set[str]]:
    """Name of each series a service exposes, and its labels."""
    found: dict[str, set[str]] = {"up": set()}
    with ThreadPoolExecutor(2) as pool:
        for families in pool.map(_families, SERVICES):
            for family, (kind, labels) in families.items():
                for suffix in PARTS[kind]:
                    more = {"le"} if suffix == "_bucket" else set()
                    found[family + suffix] = set(labels) | more | GIVEN_BY_PROMETHEUS
    found["up"] = GIVEN_BY_PROMETHEUS
    return found


def _families(service: str) -> dict[str, tuple[str, list[str]]]:
    command = [sys.executable, str(Path(__file__).with_name("exposed_metrics.py")), service]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def nodes(expression: Any) -> Iterator[Any]:
    """Everything that an expression is made of."""
    if isinstance(expression, str):
        expression = promql_parser.parse(expression.replace("$__rate_interval", "1m"))
    yield expression
    for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
        if (inner := getattr(expression, name, None)) is not None:
            yield from nodes(inner)
    for inner in getattr(expression, "args", ()):
        yield from nodes(inner)


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Name and matched labels of every series in an expression."""
    for node in nodes(expression):
        if isinstance(node, promql_parser.VectorSelector):
            yield node.name, {matcher.name for matcher in node.matchers.matchers}


def grouped_by(expression: str) -> set[str]:
    found: set[str] = set()
    for node in nodes(expression):
        modifier = getattr(node, "modifier", None)
        matching = getattr(modifier, "matching", modifier)
        found |= set(getattr(matching, "labels", ()))
    return found


@pytest.mark.parametrize("expression", list(expressions()))
def test_every_metric_and_label_of_an_expression_exists(expression: str, exposed: dict[str, set[str]]) -> None:
    named = list(selectors(expression))
    assert named, "names no metric"
    for name, labels in named:
        assert name in exposed, f"no service exposes {name}"
        assert labels <= exposed[name], f"{name} has no label {labels - exposed[name]}"
    known = set.union(*(exposed[name] for name, _ in named))
    assert grouped_by(expression) <= known


@pytest.mark.parametrize("query", list(queries()))
def test_the_variables_of_a_dashboard_are_labels_that_exist(query: str, exposed: dict[str, set[str]]) -> None:
    found = re.fullmatch(r"label_values\((\w+), (\w+)\)", query)
    assert found, query
    assert found[2] in exposed[found[1]]


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("sum by (a) (rate(sluice_x_total{b=\"c\"}[5m])) / sum(y)", {("sluice_x_total", frozenset("b")), ("y", frozenset())}),
        ("x > 0 and on (tenant) y_z", {("x", frozenset()), ("y_z", frozenset())}),
        ("time() - min(a_seconds)", {("a_seconds", frozenset())}),
    ],
)  # fmt: skip
def test_the_names_in_an_expression_are_all_found(expression: str, names: set[tuple[str, frozenset[str]]]) -> None:
    assert {(name, frozenset(labels)) for name, labels in selectors(expression)} == names


def test_the_labels_an_expression_groups_and_joins_by_are_found() -> None:
    assert grouped_by("sum by (a, b) (x) / on (c) group_left (d) max by (e) (y)") == {"a", "b", "c", "e"}


def test_an_invented_metric_would_be_noticed(exposed: dict[str, set[str]]) -> None:
    ((name, _),) = selectors("rate(sluice_gateway_request_total[5m])")
    assert name not in exposed


def test_every_service_is_scraped_where_it_serves_its_metrics() -> None:
    (job,) = SCRAPE["scrape_configs"]
    targets = {each["labels"]["service"]: each["targets"] for each in job["static_configs"]}
    kinds = {name: "web" if name in ("quality", "drift", "fairness") else "metrics" for name in SERVICES}
    assert targets == {name: [f"{name}:{expected_port(name, kinds[name])}"] for name in SERVICES}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["action"].endswith(".")


def test_alerts_and_dashboards_have_names_of_their_own() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    assert {f"{each['uid']}.json" for each in DASHBOARDS.values()} == set(DASHBOARDS)


def test_every_panel_asks_the_data_source_that_is_provisioned() -> None:
    for path in ("grafana/provisioning/datasources/prometheus.yml", "kubernetes/datasource.yml"):
        (source,) = yaml.safe_load((FOLDER / path).read_text(encoding="utf-8"))["datasources"]
        used = {t["datasource"]["uid"] for d in DASHBOARDS.values() for p in d["panels"] for t in p["targets"]}
        assert used == {source["uid"]}


@functools.cache
def rendered() -> tuple[dict[str, Any], ...]:
    run = subprocess.run([str(KUSTOMIZE), "build", str(FOLDER)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return tuple(yaml.safe_load_all(run.stdout))


needs_kustomize = pytest.mark.skipif(
    KUSTOMIZE is None, reason="kustomize could not be built (make .venv/bin/kustomize says why)"
)


@needs_kustomize
def test_every_manifest_fits_the_schema() -> None:
    for manifest in rendered():
        kubernetes_validate.validate(manifest, "1.31", strict=True)


@needs_kustomize
def test_every_dashboard_and_rule_is_mounted() -> None:
    files = {name for each in rendered() if each["kind"] == "ConfigMap" for name in each["data"]}
    assert files >= set(DASHBOARDS) | {"rules.yml", "prometheus.yml", "datasource.yml", "sluice.yml"}
    maps = {each["metadata"]["name"] for each in rendered() if each["kind"] == "ConfigMap"}
    pods = [each["spec"]["template"]["spec"] for each in rendered() if each["kind"] in ("Deployment", "StatefulSet")]
    mounted = {volume["configMap"]["name"] for pod in pods for volume in pod["volumes"] if "configMap" in volume}
    assert mounted == maps

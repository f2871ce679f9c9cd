"""The configuration file: what it means, and that every mistake is told at once."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_gateway.domain.configuration import (
    Configuration,
    ConfigurationError,
    ContentCapture,
    Task,
    configuration_of,
)


def _document(**changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "tenants": [{"id": "acme", "content_capture": "redacted", "limits": {"max_tokens": 99}}],
        "api_keys": [{"id": "one", "sha256": "a" * 64, "tenant": "acme"}],
        "models": [{"alias": "small", "target": "smollm2"}, {"alias": "vec", "target": "minilm", "tasks": ["embed"]}],
    } | changes


def test_a_minimal_file_gets_the_documented_defaults() -> None:
    configuration = configuration_of(_document())
    tenant = configuration.tenants["acme"]
    assert tenant.content_capture is ContentCapture.REDACTED
    assert tenant.fail_open is False
    assert (tenant.limits.max_tokens, tenant.limits.concurrency) == (99, 32)
    assert configuration.deployments["small"].route == "small/smollm2"


def test_a_model_is_found_only_for_its_task_and_an_empty_alias_means_the_first() -> None:
    configuration = configuration_of(_document())
    assert configuration.deployment("vec", Task.CHAT) is None
    assert configuration.deployment("", Task.EMBED) is configuration.deployments["vec"]


def test_a_model_of_self_tests_is_known_by_what_the_file_says_or_by_its_id_and_is_nobodys_default() -> None:
    models = [
        {"alias": "probe", "target": "sluice-self-test"},
        {"alias": "other", "target": "scripted", "synthetic": True},
        {"alias": "open", "target": "sluice-self-test", "synthetic": False},
        {"alias": "small", "target": "smollm2"},
    ]
    configuration = configuration_of(_document(models=models))
    assert {alias: each.synthetic for alias, each in configuration.deployments.items()} == {
        "probe": True,
        "other": True,
        "open": False,
        "small": False,
    }
    default = configuration_of(_document(models=[models[0], models[1], models[3]])).deployment("", Task.CHAT)
    assert default is not None
    assert default.alias == "small"


def test_cohorts_stand_with_a_tenant_and_with_a_key() -> None:
    cohorts = {"plan": ["free", "pro"], "channel": ["kiosk", "web"]}
    key = {"id": "one", "sha256": "a" * 64, "tenant": "acme", "cohorts": {"channel": "kiosk"}}
    configuration = configuration_of(_document(tenants=[{"id": "acme", "cohorts": cohorts}], api_keys=[key]))
    assert configuration.tenants["acme"].cohorts == {"plan": ("free", "pro"), "channel": ("kiosk", "web")}


@pytest.mark.parametrize(
    ("cohorts", "told"),
    [
        (["plan"], "tenants[0].cohorts: must be a mapping of at most 4"),
        ({name: ["a", "b"] for name in "abcde"}, "tenants[0].cohorts: must be a mapping of at most 4"),
        ({"Plan Name": ["a", "b"]}, "tenants[0].cohorts: every attribute must match"),
        ({"plan": ["free"]}, "tenants[0].cohorts.plan: must be a list of 2 to 12 different"),
        ({"plan": ["free", "free"]}, "tenants[0].cohorts.plan: must be a list of 2 to 12 different"),
        ({"plan": ["free", "others"]}, "tenants[0].cohorts.plan: must be a list of 2 to 12 different"),
        ({"plan": ["free", ["x"]]}, "tenants[0].cohorts.plan: must be a list of 2 to 12 different"),
        ({"plan": [f"v{i}" for i in range(13)]}, "tenants[0].cohorts.plan: must be a list of 2 to 12 different"),
    ],
)
def test_mistakes_in_cohorts_are_told(cohorts: object, told: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        configuration_of(_document(tenants=[{"id": "acme", "cohorts": cohorts}]))


@pytest.mark.parametrize("standing", [{"plan": "gold"}, {"site": "free"}, {"plan": ["free"]}, "free"])
def test_a_key_stands_only_in_cohorts_of_its_tenant(standing: object) -> None:
    key = {"id": "one", "sha256": "a" * 64, "tenant": "acme", "cohorts": standing}
    with pytest.raises(ConfigurationError, match=re.escape("api_keys[0].cohorts: must be a mapping")):
        configuration_of(_document(tenants=[{"id": "acme", "cohorts": {"plan": ["free", "pro"]}}], api_keys=[key]))


def test_prompt_versions_and_experiment_arms_stand_with_a_tenant() -> None:
    names = {"prompt_versions": ["greeting@3", "refund@1.2.0-rc1"], "experiment_arms": ["tone/a"]}
    tenant = configuration_of(_document(tenants=[{"id": "acme"} | names])).tenants["acme"]
    assert (tenant.prompt_versions, tenant.experiment_arms) == (("greeting@3", "refund@1.2.0-rc1"), ("tone/a",))


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("prompt_versions", "greeting@3"),
        ("prompt_versions", ["greeting"]),
        ("prompt_versions", ["greeting@3", "greeting@3"]),
        ("prompt_versions", ["greeting@3", 4]),
        ("prompt_versions", ["jane.doe@example.org"]),
        ("prompt_versions", ["greeting@3\n"]),
        ("prompt_versions", ["Jane Doe@3"]),
        ("prompt_versions", [f"greeting@{i}" for i in range(33)]),
        ("experiment_arms", {"tone": ["a", "b"]}),
        ("experiment_arms", ["tone"]),
        ("experiment_arms", ["tone/a/b"]),
        ("experiment_arms", ["jane@example.org/a"]),
        ("experiment_arms", [f"tone/{i}" for i in range(9)]),
    ],
)
def test_mistakes_in_prompt_versions_and_experiment_arms_are_told(field: str, names: object) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"^tenants\[0\]\.{field}: must be a list of at most (32|8) different"
    ):
        configuration_of(_document(tenants=[{"id": "acme", field: names}]))


def test_a_key_may_be_bound_to_few_tokens_of_all_models_but_some() -> None:
    key = {"id": "one", "sha256": "a" * 64, "tenant": "acme"}
    configuration = configuration_of(
        _document(tenants=[{"id": "acme"}], api_keys=[key | {"max_tokens": {"small": 9, "*": 1}}, key | {"id": "two"}])
    )
    bound, unbound = configuration.keyring._keys["one"], configuration.keyring._keys["two"]
    assert (bound.most_tokens("small"), bound.most_tokens("large"), unbound.most_tokens("small")) == (9, 1, None)


@pytest.mark.parametrize("bounds", [9, ["small"], {"": 1}, {1: 1}, {"small": 0}, {"small": "9"}, {"*": None}])
def test_a_keys_bounds_that_are_none_are_told(bounds: object) -> None:
    key = {"id": "one", "sha256": "a" * 64, "tenant": "acme", "max_tokens": bounds}
    with pytest.raises(ConfigurationError, match=re.escape("api_keys[0].max_tokens")):
        configuration_of(_document(tenants=[{"id": "acme"}], api_keys=[key]))


def test_every_mistake_is_reported_and_no_value_is_quoted() -> None:
    document = _document(
        version=2,
        tenants=[
            {"id": "Acme!", "fail_open": "yes", "limits": {"concurrency": 0, "speed": 1}},
            {"id": "b"},
            {"id": "b"},
        ],
        api_keys=[{"id": "one", "sha256": "sk-sluice-a-secret", "tenant": "nobody"}],
        models=[],
        extra=1,
    )
    with pytest.raises(ConfigurationError) as caught:
        configuration_of(document)
    told = "\n".join(caught.value.mistakes)
    for path in (
        "version", "extra", "tenants[0].id", "tenants[0].fail_open", "tenants[0].limits.concurrency",
        "tenants[0].limits.speed", "tenants[2].id: stands twice", "api_keys[0].sha256", "api_keys[0].tenant", "models",
    ):  # fmt: skip
        assert path in told
    assert "sk-sluice-a-secret" not in told


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["version", "tenants", "api_keys", "models"]), _json) | _json)
def test_any_document_is_either_good_or_has_mistakes(document: object) -> None:
    try:
        outcome: object = configuration_of(document)
    except ConfigurationError as error:
        outcome = error.mistakes
    assert outcome
    assert isinstance(outcome, Configuration | tuple)

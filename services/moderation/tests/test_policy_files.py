"""Policies as files: what ships is valid, and every mistake is told with its file and line."""

import subprocess
import sys
from pathlib import Path

import pytest
from sluice_kit.configuration import ConfigurationRefused
from sluice_moderation.adapters import detectors
from sluice_moderation.adapters.policy_check import checked
from sluice_moderation.adapters.policy_files import SHIPPED, load_policies
from sluice_moderation.domain.detector import CATEGORIES
from sluice_moderation.domain.policies import is_sampled
from sluice_moderation.domain.policy import Action, Direction

GOOD = """policy: strict
version: 2
description: Blocks early.
fail_closed: true
rules:
  input:
    toxicity: {flag: 0.3, block: 0.6}
"""
FULL = (
    GOOD
    + """  output:
    toxicity: {flag: 0.3, redact: 0.5, hold: 0.7, block: 0.9}
languages:
  de:
    output:
      toxicity: {block: 0.99}
terms:
  deny:
    - phrase: project titan
      action: hold
      directions: [output]
    - {phrase: foo bar}
  allow: [scunthorpe]
tenants: [acme]
"""
)
SHADOW = GOOD.replace("strict", "on-trial").replace("rules:", "shadow_of: strict\nsample: 0.25\nrules:")


def written(folder: Path, text: str, name: str = "p.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_policies_are_valid_and_fail_closed() -> None:
    policies = load_policies(SHIPPED).by_id
    assert "general" in policies
    assert all(policy.fail_closed and not policy.tenants and not policy.shadow_of for policy in policies.values())
    assert "prompt_injection" in policies["general"].categories(Direction.INPUT)


def test_every_category_of_a_shipped_policy_has_a_detector() -> None:
    scored = set(detectors.load().panel.detector_of())
    for policy in load_policies(SHIPPED).by_id.values():
        assert {rule.category for rule in policy.rules} <= scored


def test_a_policy_is_read_with_everything_it_can_say(tmp_path: Path) -> None:
    written(tmp_path, FULL)
    policy = load_policies(tmp_path).by_id["strict"]
    assert [(r.threshold, r.action) for r in policy.sheet(Direction.OUTPUT, "en").rules["toxicity"]] == [
        (0.3, Action.FLAG), (0.5, Action.REDACT), (0.7, Action.HOLD), (0.9, Action.BLOCK),
    ]  # fmt: skip
    assert [r.threshold for r in policy.sheet(Direction.OUTPUT, "de").rules["toxicity"]] == [0.99]
    assert [(t.phrase, t.action, t.directions) for t in policy.terms.denied] == [
        ("project titan", Action.HOLD, {Direction.OUTPUT}), ("foo bar", Action.BLOCK, set(Direction)),
    ]  # fmt: skip
    assert policy.terms.allowed == ("scunthorpe",)
    assert policy.digest.startswith("sha256:")


def test_a_policy_of_ones_own_replaces_a_shipped_one(tmp_path: Path) -> None:
    written(tmp_path, GOOD.replace("strict", "general").replace("version: 2", "version: 77"))
    assert load_policies(SHIPPED, tmp_path).by_id["general"].version == 77


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    toxicity: {flag: 0.3, b", "    toxicty: {flag: 0.3, b", ":7: rules.input.toxicty: unknown category; known are toxicity,"),
        ("block: 0.6", "block: 1.6", ":7: rules.input.toxicity.block: must be less than or equal to 1"),
        ("block: 0.6", "block: high", ":7: rules.input.toxicity.block: must be a valid number"),
        ("flag: 0.3, block: 0.6", "flag: 0.7, block: 0.6", ":7: rules.input.toxicity: flag must be lower than block"),
        ("{flag: 0.3, block: 0.6}", "{}", ":7: rules.input.toxicity: must give at least one threshold"),
        ("flag: 0.3, block: 0.6", "warn: 0.3, block: 0.6", ":7: rules.input.toxicity.warn: unknown field"),
        ("input:", "inward:", ":6: rules.inward: unknown field"),
        ("version: 2", "version: two", ":2: version: must be a valid integer"),
        ("version: 2", "versoin: 2", ":2: versoin: unknown field"),
        ("fail_closed: true", "fail_closed: maybe", ":4: fail_closed: must be a valid boolean"),
        ("version: 2", "version: 2\nversion: 3", ":3: version stands here a second time"),
        ("version: 2", "version: 2\nsample: 0.5", ":1: the file: sample is for policies with shadow_of"),
        ("version: 2", "version: 2\nshadow_of: strict", ":1: the file: shadow_of names the policy itself"),
        ("version: 2", "version: 2\nshadow_of: nowhere", ":3: there is no policy nowhere to be a shadow of"),
        ("version: 2", "version: 2\nlanguages: {no: {}}", ":3: a key of languages is read as bool: put it into quotes"),
        ("version: 2", "version: 2\nterms: {deny: [{phrase: x}]}", ":3: terms.deny[0].phrase: String should have at least 2"),
        ("rules:", "rules: [", "not YAML"),
        (GOOD, "", ":1: the file: policy is missing"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ConfigurationRefused) as refused:
        load_policies(tmp_path)
    assert "p.yaml:" in str(refused.value)
    assert message in str(refused.value)


def test_two_files_with_one_policy_are_refused(tmp_path: Path) -> None:
    written(tmp_path, GOOD), written(tmp_path, GOOD, "q.yaml")
    with pytest.raises(ConfigurationRefused, match=r"q\.yaml:1: policy strict also stands in p\.yaml; keep one"):
        load_policies(tmp_path)


def test_a_tenant_has_one_policy_and_may_have_shadows_of_it(tmp_path: Path) -> None:
    written(tmp_path, FULL), written(tmp_path, SHADOW + "tenants: [acme]\n", "q.yaml")
    load_policies(tmp_path)
    written(tmp_path, GOOD.replace("strict", "other") + "tenants:\n  - zeta\n  - acme\n", "r.yaml")
    with pytest.raises(ConfigurationRefused, match=r"r\.yaml:10: policy strict is this tenant's already"):
        load_policies(tmp_path)


def test_a_shadow_of_a_shadow_is_refused(tmp_path: Path) -> None:
    written(tmp_path, GOOD), written(tmp_path, SHADOW, "q.yaml")
    written(tmp_path, SHADOW.replace("on-trial", "third").replace("shadow_of: strict", "shadow_of: on-trial"), "r.yaml")
    with pytest.raises(ConfigurationRefused, match=r"r\.yaml:5: on-trial is a shadow itself"):
        load_policies(tmp_path)


def test_a_policy_for_what_no_detector_scores_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path, GOOD)
    assert checked(["check", str(tmp_path)], scored=set(CATEGORIES) - {"toxicity"}) == 1
    assert "p.yaml:7: no detector here scores toxicity" in capsys.readouterr().err


def test_a_tenants_own_policy_counts_where_none_is_named_and_does_not_exist_for_others(tmp_path: Path) -> None:
    written(tmp_path, FULL), written(tmp_path, SHADOW, "q.yaml")
    policies = load_policies(SHIPPED, tmp_path)

    def chosen(tenant: str, name: str = "") -> str | None:
        policy = policies.for_call(tenant, name)
        return policy and policy.policy_id

    assert (chosen("acme"), chosen("acme", "general"), chosen("acme", "strict")) == ("strict", "general", "strict")
    assert (chosen("other"), chosen("")) == ("general", "general")
    assert [chosen(t, "strict") for t in ("other", "", "ACME")] == [None] * 3
    assert chosen("acme", "on-trial") is None
    assert not {"strict", "on-trial"} & {p.policy_id for p in policies.visible_to("other")}
    assert {"strict", "on-trial"} <= {p.policy_id for p in policies.visible_to("acme")}


def test_a_shadow_is_sampled_by_request_at_about_its_share(tmp_path: Path) -> None:
    written(tmp_path, GOOD), written(tmp_path, SHADOW, "q.yaml")
    policies = load_policies(tmp_path)
    drawn = [bool(policies.shadows("strict", tenant_id="t", request_id=f"r{i}")) for i in range(4000)]
    assert 0.22 < sum(drawn) / len(drawn) < 0.28
    assert drawn == [is_sampled(policies.by_id["on-trial"], f"r{i}") for i in range(4000)]
    assert policies.shadows("general", tenant_id="t", request_id="r1") == ()


def test_the_command_says_what_is_good_and_what_is_not(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "sluice-moderation"), "check", str(tmp_path)]
    written(tmp_path, GOOD), written(tmp_path, SHADOW, "q.yaml")
    good = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert good.returncode == 0
    assert "strict version 2: 2 rules, sha256:" in good.stdout
    assert "on-trial version 2, shadow of strict" in good.stdout
    written(tmp_path, GOOD.replace("version: 2", "version: 0\ncolour: red"), "q.yaml")
    bad = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert bad.returncode == 1
    lines = bad.stderr.splitlines()
    assert lines == [
        f"{tmp_path}/q.yaml:2: version: must be greater than or equal to 1", f"{tmp_path}/q.yaml:3: colour: unknown field",
    ]  # fmt: skip
    assert subprocess.run([command[0], "chekc"], capture_output=True, timeout=60, check=False).returncode == 2

"""The README's examples are run: its policies are taken, and its table says what happens."""

import re
from pathlib import Path

import pytest
from sluice_moderation.adapters import detectors
from sluice_moderation.adapters.policy_check import checked
from sluice_moderation.adapters.policy_files import SHIPPED, load_policies
from sluice_moderation.domain.hearing import released
from sluice_moderation.domain.judgement import Judgement
from sluice_moderation.domain.policies import PolicySet
from sluice_moderation.domain.policy import Action, Direction
from sluice_moderation.domain.sentences import Text, read

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
PANEL = detectors.load().panel
ROWS = re.findall(r"^\| `([^`]+)` \| (blocked|flagged|allowed) \|", README, re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, text in enumerate(re.findall(r"```yaml\n(policy: .*?)```", README, re.DOTALL)):
        (tmp_path / f"{i}.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def judged(
    policies: PolicySet, policy: str, text: str, direction: Direction, language: str = "en"
) -> tuple[Action, str]:
    judgement = Judgement(policies.by_id[policy], direction, language, PANEL)
    given = ""
    for sentence in read([Text("a", text)]):
        windows = [policies.by_id[policy].terms.without_allowed(w.text) for w in sentence.windows]
        given += released(sentence, judgement.add(sentence, PANEL.score(windows, judgement.detectors)))
    return judgement.verdict("d").action, given


def test_the_examples_pass_the_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(["check", str(folder)], scored=PANEL.detector_of()) == 0
    told = capsys.readouterr().out
    assert "support-desk version 1:" in told
    assert "support-desk-next version 1, shadow of support-desk" in told


def test_the_example_does_what_its_comments_say(folder: Path) -> None:
    policies = load_policies(SHIPPED, folder)
    assert [policies.for_call(tenant, "").policy_id for tenant in ("acme", "other")] == ["support-desk", "general"]  # type: ignore[union-attr]
    assert policies.for_call("other", "support-desk") is None
    assert len(policies.shadows("support-desk", tenant_id="other", request_id="r1")) == 0
    rude = "All is well here. You are a fucking idiot and I hate you. We close at five."
    action, _ = judged(policies, "support-desk", rude, Direction.INPUT)
    assert action is Action.HOLD
    action, given = judged(policies, "support-desk", "We know of Project Titan, yes. It is late.", Direction.OUTPUT)
    assert (action, given) == (Action.REDACT, "[removed: denied_term] It is late.")
    assert judged(policies, "support-desk", rude, Direction.OUTPUT, "de")[0] is Action.HOLD


@pytest.mark.parametrize(("text", "said"), ROWS)
def test_the_table_says_what_happens(text: str, said: str) -> None:
    action, _ = judged(load_policies(SHIPPED), "general", text, Direction.INPUT)
    assert {"blocked": Action.BLOCK, "flagged": Action.FLAG, "allowed": Action.ALLOW}[said] is action


def test_the_table_has_rows_of_every_sort() -> None:
    assert {said for _, said in ROWS} >= {"blocked", "allowed"}
    assert len(ROWS) >= 8

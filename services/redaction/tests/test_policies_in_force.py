"""Policies and operators over real gRPC: whose they are, what they do to texts and streams, what is told of it."""

import asyncio
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from sluice.redaction.v1 import redaction_service_pb2 as pb
from sluice.types.v1 import verdict_pb2
from sluice_kit.configuration import source_files
from sluice_kit.context import TENANT_ID
from sluice_kit.errors import NotFound, PreconditionFailed, from_rpc_error
from sluice_redaction.adapters.journal import event_of
from sluice_redaction.adapters.policy_files import SHIPPED, Surroundings, read_book
from sluice_redaction.api import FINDINGS
from sluice_redaction.settings import Settings

Serving = Callable[..., AbstractAsyncContextManager[Any]]
CARD = {"CREDIT_CARD": re.compile(r"[0-9]{4}(?: [0-9]{4}){3}")}
SECRETS = (bytes(range(32)),)
HEAD = "version: 2\ndescription: test\ninclude: default\n"
ACME = f"""policy: acme
tenants: [acme]
{HEAD}
deny: {{CODE_NAME: [Bluebird]}}
recognizers:
  - name: staff number
    kind: STAFF_NUMBER
    patterns: [{{name: prefixed, regex: 'EMP-[0-9]{{6}}', score: 0.6}}]
"""


def policy_of(operator: str) -> str:
    return f"policy: {operator}\n{HEAD}operator: {operator}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "policies"
    path.mkdir()
    (path / "acme.yaml").write_text(ACME)
    for operator in ("mask", "hash", "encrypt", "surrogate", "redact", "keep"):
        (path / f"{operator}.yaml").write_text(policy_of(operator))
    return path


@pytest.fixture
async def running(serving: Serving, tmp_path: Path, folder: Path) -> Any:
    async with serving(tmp_path, policies=folder, secrets=SECRETS) as service:
        yield service


async def test_a_tenant_gets_its_own_policy_without_naming_it(running: Any) -> None:
    text = "Ann: EMP-004512 on bluebird"
    acme = await running.redact(text, tenant="acme")
    assert acme.segments[0].text == "<PERSON_1>: <STAFF_NUMBER_1> on <CODE_NAME_1>"
    assert (acme.policy_id, acme.policy_version) == ("acme", 2)
    other = await running.redact(text, tenant="other")
    assert other.segments[0].text == "<PERSON_1>: EMP-004512 on bluebird"
    assert other.policy_id == "default"
    assert acme.policy_digest.startswith("sha256:")
    assert acme.policy_digest != other.policy_digest


async def test_another_tenants_policy_is_not_found_in_the_words_for_one_that_nobody_has(running: Any) -> None:
    told = []
    for policy_id in ("acme", "nobodys"):
        for tenant in ("other", ""):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await running.redact("Ann", tenant=tenant, policy_id=policy_id)
            error = from_rpc_error(caught.value)
            assert isinstance(error, NotFound)
            told.append(error.message)
    assert len(set(told)) == 1
    assert "acme" not in told[0]


async def test_values_of_a_kind_of_ones_own_come_back_in_texts_and_in_streams(running: Any) -> None:
    redacted = await running.redact("EMP-004512 is Ann's.", tenant="acme")
    assert await running.restore(redacted, vault=redacted.vault) == ["EMP-004512 is Ann's."]
    answer = "About <STAFF_NUMBER_1>, staff number 1 <staff number 1>: and EMP-999999 is new."
    fields = {"tenant": "acme", "vault": redacted.vault, "restore": True, "direction": verdict_pb2.DIRECTION_OUTPUT}
    whole = await running.stream(answer, **fields)
    assert whole == "About EMP-004512, staff number 1 EMP-004512: and <STAFF_NUMBER_2> is new."
    for size in (1, 3, 11):
        assert await running.stream(*(answer[at : at + size] for at in range(0, len(answer), size)), **fields) == whole


async def test_a_placeholder_of_ones_own_kind_is_not_redacted_again(running: Any) -> None:
    redacted = await running.redact("EMP-004512 and Bluebird", tenant="acme")
    again = await running.redact(redacted.segments[0].text, tenant="acme", vault=redacted.vault)
    assert again.segments[0].text == redacted.segments[0].text


@pytest.mark.parametrize(
    ("operator", "shape"),
    [
        ("mask", r"I am \*\*\*\*\*\*\*\."),
        ("hash", r"I am <PERSON_HASH_[A-Z2-7]{24}>\."),
        ("encrypt", r"I am <PERSON_ENC_[A-Z2-7]{28,}>\."),
        ("surrogate", r"I am [A-Z]\S+ [A-Z]\S+\."),
        ("redact", r"I am \."),
        ("keep", r"I am Ann Lee\."),
    ],
)
async def test_an_operator_is_applied_and_told(running: Any, operator: str, shape: str) -> None:
    redacted = await running.redact("I am Ann Lee.", policy_id=operator)
    text = redacted.segments[0].text
    assert re.fullmatch(shape, text), text
    assert [finding.operator for finding in redacted.findings] == [operator]
    restorable = operator in ("encrypt", "surrogate")
    assert [entry.operator for entry in redacted.vault.entries][:1] == ([operator] if restorable else [])
    event = event_of(running.notes.summaries[-1])
    assert dict(event.operator_counts) == ({} if operator == "keep" else {operator: 1})
    assert event.policy_digest == redacted.policy_digest
    assert b"Ann" not in event.SerializeToString()
    if restorable:
        assert await running.restore(redacted, vault=redacted.vault) == ["I am Ann Lee."]


@pytest.mark.parametrize("operator", ["encrypt", "surrogate"])
async def test_tokens_come_back_in_streams_whatever_made_them_and_new_values_get_the_operator_too(
    running: Any, operator: str
) -> None:
    redacted = await running.redact("I am Ann Lee.", policy_id=operator)
    token = redacted.vault.entries[0].placeholder
    answer = f"Dear {token}, ask Bob Ray. Yours, {token}"
    fields = {
        "policy_id": operator,
        "vault": redacted.vault,
        "restore": True,
        "direction": verdict_pb2.DIRECTION_OUTPUT,
    }
    whole = await running.stream(answer, **fields)
    assert whole.startswith("Dear Ann Lee, ask ")
    assert whole.endswith(". Yours, Ann Lee")
    assert "Bob" not in whole
    for size in (1, 4, 9):
        assert await running.stream(*(answer[at : at + size] for at in range(0, len(answer), size)), **fields) == whole


async def test_made_up_values_differ_between_requests(running: Any) -> None:
    texts = {
        (await running.redact("I am Ann Lee.", policy_id="surrogate", request_id=f"r{n}")).segments[0].text
        for n in range(5)
    }
    assert len(texts) > 1


async def test_an_encrypted_value_comes_back_without_a_vault_for_its_own_tenant_only(running: Any) -> None:
    redacted = await running.redact("I am Ann Lee.", tenant="acme", policy_id="encrypt")
    assert await running.restore(redacted, tenant="acme", decrypt=True) == ["I am Ann Lee."]
    assert await running.restore(redacted, tenant="acme") == [redacted.segments[0].text]
    assert await running.restore(redacted, tenant="other", decrypt=True) == [redacted.segments[0].text]


async def test_encrypted_tokens_come_back_whatever_else_stands_for_their_value_and_however_they_are_cased(
    running: Any,
) -> None:
    token = (await running.redact("I am Ann Lee.", policy_id="encrypt")).segments[0].text[5:-1]
    vault = pb.Vault(entries=[pb.VaultEntry(placeholder="<PERSON_1>", value="Ann Lee", kind="PERSON")])
    segments = [pb.TextSegment(segment_id="0", text=f"<PERSON_1>, {token} and {token.lower()}")]
    restored = await running.stub.Restore(pb.RestoreRequest(segments=segments, vault=vault, decrypt=True))
    assert restored.segments[0].text == "Ann Lee, Ann Lee and Ann Lee"


async def test_a_kind_that_only_a_callers_vault_knows_gets_no_label_of_its_own(running: Any) -> None:
    vault = pb.Vault(entries=[pb.VaultEntry(placeholder="<MADE_UP_1>", value="Bluebird 7", kind="MADE_UP")])
    assert (await running.redact("about Bluebird 7", vault=vault)).segments[0].text == "about <MADE_UP_1>"
    labels = {sample.labels["kind"] for metric in FINDINGS.collect() for sample in metric.samples}
    assert "OTHER" in labels
    assert "MADE_UP" not in labels


async def test_without_a_key_a_service_says_that_it_cannot_decrypt(serving: Serving, tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.Restore(pb.RestoreRequest(decrypt=True))
        error = from_rpc_error(caught.value)
        assert isinstance(error, PreconditionFailed)
        assert "SLUICE_REDACTION_KEY_FILE" in error.message


async def test_a_kind_may_be_for_one_direction_only(serving: Serving, tmp_path: Path, folder: Path) -> None:
    (folder / "one.yaml").write_text(f"policy: one\n{HEAD}kinds: {{PERSON: {{direction: output}}}}\n")
    async with serving(tmp_path, policies=folder, secrets=SECRETS) as running:
        outward = await running.redact("Ann", policy_id="one", direction=verdict_pb2.DIRECTION_OUTPUT)
        inward = await running.redact("Ann", policy_id="one", direction=verdict_pb2.DIRECTION_INPUT)
        either = await running.redact("Ann", policy_id="one")
        assert [one.segments[0].text for one in (outward, inward, either)] == ["<PERSON_1>", "Ann", "<PERSON_1>"]
        assert [one.outgoing for one in running.notes.summaries] == [True, False, False]


async def test_recognizers_are_listed_with_those_of_the_policy_and_what_it_does(running: Any) -> None:
    request = pb.ListRecognizersRequest()
    listed = await running.stub.ListRecognizers(request, metadata=((TENANT_ID, "acme"),))
    own = {one.name: one for one in listed.recognizers if one.custom}
    assert set(own) == {"deny list", "staff number"}
    assert (list(own["staff number"].kinds), own["staff number"].pattern_count) == (["STAFF_NUMBER"], 1)
    assert own["staff number"].model_digest.startswith("sha256:")
    rules = {rule.kind: rule for rule in listed.rules}
    assert (rules["STAFF_NUMBER"].operator, rules["STAFF_NUMBER"].restorable) == ("replace", True)
    assert (listed.policy_id, listed.policy_version) == ("acme", 2)
    masking = await running.stub.ListRecognizers(pb.ListRecognizersRequest(policy_id="mask"))
    assert {(rule.operator, rule.restorable) for rule in masking.rules} == {("mask", False)}
    assert not (await running.stub.ListRecognizers(pb.ListRecognizersRequest(policy_id="keep"))).enabled_kinds


async def test_a_changed_folder_comes_into_force_while_the_service_runs_and_a_bad_one_does_not(
    running: Any, folder: Path
) -> None:
    watching = asyncio.create_task(running.policies.watch(poll_seconds=0.02))

    async def text_is(expected: str) -> None:
        async with asyncio.timeout(10):
            while (await running.redact("project Redbird", tenant="acme")).segments[0].text != expected:
                await asyncio.sleep(0.02)

    try:
        await text_is("project Redbird")
        (folder / "acme.yaml").write_text(ACME.replace("Bluebird", "Redbird"))
        await text_is("project <CODE_NAME_1>")
        (folder / "acme.yaml").write_text(ACME.replace("Bluebird", "Redbird").replace("CODE_NAME", "code name"))
        async with asyncio.timeout(10):
            while running.policies.reload():
                await asyncio.sleep(0.02)
        await text_is("project <CODE_NAME_1>")
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def test_a_thousand_requests_at_once_never_see_each_others_made_up_values(running: Any) -> None:
    async def one(number: int) -> None:
        name = f"User{number}"
        redacted = await running.redact(f"I am {name}.", policy_id="surrogate", request_id=f"r{number}")
        token = redacted.vault.entries[0].placeholder
        assert name not in redacted.segments[0].text
        fields = {"policy_id": "surrogate", "vault": redacted.vault, "restore": True, "request_id": f"r{number}"}
        assert await running.stream(f"Hello {token}", ", good day.", **fields) == f"Hello {name}, good day."

    turn = asyncio.Semaphore(100)

    async def bounded(number: int) -> None:
        async with turn:
            await one(number)

    await asyncio.gather(*(bounded(number) for number in range(1_000)))


def _readme() -> str:
    return (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


async def test_the_example_in_the_readme_does_what_its_table_says(serving: Serving, tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    section = _readme().split("## A recognizer or policy of your own\n")[1].split("\n## ")[0]
    (folder / "example.yaml").write_text(section.split("```yaml\n")[1].split("```")[0])
    rows = re.findall(r"^\| (?!text|---)(.+?) \| (.+?) \|$", section, re.MULTILINE)
    assert len(rows) == 2
    async with serving(tmp_path, policies=folder, find=CARD) as running:
        for text, becomes in rows:
            redacted = await running.redact(text, tenant="acme")
            assert redacted.segments[0].text == becomes.replace("`", "")
            assert redacted.policy_id == "acme-support"


def test_the_readme_names_every_setting() -> None:
    text = _readme()
    for name, field in Settings.model_fields.items():
        alias = str(field.validation_alias or "")
        variable = alias or name.upper()
        shortened = (
            "..._" + variable.removeprefix("SLUICE_KAFKA_") if variable.startswith("SLUICE_KAFKA_") else variable
        )
        assert f"`{variable}`" in text or f"`{shortened}`" in text, variable


def test_every_kind_in_the_table_on_hipaa_is_replaced_by_the_policy_for_healthcare() -> None:
    section = _readme().split("\n## HIPAA\n")[1].split("\n## ")[0]
    kinds = set(re.findall(r"`([A-Z][A-Z_]+)`", section))
    healthcare = read_book(source_files(SHIPPED), Surroundings()).find("healthcare")
    assert len(kinds) > 20
    assert kinds <= healthcare.replaced_kinds


def test_every_shipped_policy_has_its_row_in_the_readme() -> None:
    for path in SHIPPED.glob("*.yaml"):
        assert f"| `{path.stem}` |" in _readme()


async def test_many_values_are_replaced_as_a_few_are(running: Any) -> None:
    text = "; ".join(f"User{number}" for number in range(200))
    redacted = await running.redact(text, policy_id="surrogate")
    assert not re.search(r"User\d", redacted.segments[0].text)
    assert len({entry.placeholder for entry in redacted.vault.entries}) == 200
    assert await running.restore(redacted, vault=redacted.vault) == [text]

"""What `sluice cost` sends and reads."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice.cost.v1 import cost_service_pb2_grpc as rpc
from sluice.types.v1 import money_pb2
from sluice_cli import cost
from sluice_cli.mesh.problem import MeshProblem
from typer.testing import CliRunner


def test_a_price_file_is_sent_in_parts_with_every_number_as_it_stood_there(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    entries = ",".join(
        f'"model-{n}": {{"input_cost_per_token": 1.50e-07, "mode": "ch\\u00e4t", "tiers": [null, true], "litellm_provider": "one"}}'
        for n in range(1_001)
    )
    path.write_text("{" + entries + "}")
    parts = list(cost._parts(path, approved_by="Ada", providers=["one"], dry_run=True))
    assert [len(json.loads(part.document)) for part in parts] == [500, 500, 1]
    assert b'"input_cost_per_token":1.50e-07' in parts[0].document
    assert json.loads(parts[2].document) == {"model-1000": json.loads(path.read_text())["model-1000"]}
    assert {(part.approved_by, part.dry_run, part.book) for part in parts} == {("Ada", True, parts[0].book)}


def test_a_provider_that_the_file_does_not_have_is_named_with_those_it_has(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text('{"m": {"litellm_provider": "one"}, "n": {"litellm_provider": "two"}}')
    with pytest.raises(MeshProblem, match="no model of nope stands in the file; it has: one, two"):
        list(cost._parts(path, approved_by="Ada", providers=["one", "nope"], dry_run=True))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--currency", "euro", "--monthly-budget", "5"], "--currency euro is no currency code"),
        (["--currency", "EUR"], "name both"),
    ],
)
def test_a_currency_that_would_be_ignored_is_an_error(options: list[str], told: str) -> None:
    result = CliRunner().invoke(cost.app, ["forecast", *options])
    assert result.exit_code == 1
    assert told in str(result.exception)


@pytest.mark.parametrize(("hours", "shown"), [(0, "7 - - -"), (1, "7 9 - -"), (2, "7 9 8 10")])
def test_nothing_is_forecast_from_no_history_and_no_interval_from_an_hour(
    hours: int, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def usd(units: int) -> money_pb2.Money:
        return money_pb2.Money(currency_code="USD", nano_units=units * 10**9)

    period = pb.PeriodForecast(spent=usd(7), expected=usd(9), lower=usd(8), upper=usd(10))
    cost._show_forecast(pb.SpendForecast(currency_code="USD", day=period, month=period, history_hours=hours))
    [row] = [line for line in capsys.readouterr().out.splitlines() if " month " in line and "until" not in line]
    assert re.sub(r"\W*USD|[^-0-9 ]", "", row).split() == shown.split()


def test_what_is_no_format_is_named_before_anything_is_asked() -> None:
    result = CliRunner().invoke(
        cost.app, ["export-focus", "--from", "2026-11-01", "--until", "2026-11-02", "--format", "xml"]
    )
    assert "--format xml is not known: csv or parquet." in str(result.exception)


@pytest.mark.parametrize("content", ["{", "[1]", "\xff"])
def test_what_is_no_price_file_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text(content)
    with pytest.raises(MeshProblem, match="is no price file"):
        list(cost._parts(path))


def test_heads_are_read_as_saved_and_as_events(tmp_path: Path) -> None:
    path = tmp_path / "heads.jsonl"
    saved = {"chain": "t/0", "row_count": 3, "hash": "ab"}
    event = {"type": "LedgerSealed", "data": {"chain": "t/1", "rowCount": "4", "headHash": "cd"}}
    path.write_text(f"{json.dumps(saved)}\n{json.dumps(event)}\n")
    assert [(head.chain, head.row_count, head.hash) for head in cost._read_heads(path)] == [
        ("t/0", 3, "ab"),
        ("t/1", 4, "cd"),
    ]
    path.write_text("no heads")
    with pytest.raises(MeshProblem, match="holds no heads"):
        cost._read_heads(path)


def test_an_empty_file_of_heads_is_refused_because_it_would_prove_nothing(tmp_path: Path) -> None:
    path = tmp_path / "heads.jsonl"
    path.touch()
    with pytest.raises(MeshProblem, match="is empty, and would prove nothing"):
        cost._read_heads(path)


def test_amounts_are_read_exactly() -> None:
    assert [cost._nano(text) for text in ("500", "0.25", "0")] == [500 * 10**9, 25 * 10**7, 0]


@pytest.mark.parametrize("text", ["abc", "-5", "NaN", "1e400", "999999999999999999999"])
def test_what_is_no_amount_is_named(text: str) -> None:
    with pytest.raises(MeshProblem, match="is no amount"):
        cost._nano(text)


def test_a_time_without_a_zone_is_utc_and_what_is_no_time_is_named() -> None:
    assert cost._moment("2026-11-24").ToJsonString() == "2026-11-24T00:00:00Z"
    assert cost._moment("2026-11-24T13:00+01:00").ToJsonString() == "2026-11-24T12:00:00Z"
    with pytest.raises(MeshProblem, match="is no time"):
        cost._moment("tuesday")


class _Books(rpc.CostServiceServicer):
    """A cost service that has been asked to verify its budgets."""

    def __init__(self, *differences: pb.BudgetDifference) -> None:
        self._differences = differences

    def VerifyBudgets(self, request: pb.VerifyBudgetsRequest, context: Any) -> pb.VerifyBudgetsResponse:
        return pb.VerifyBudgetsResponse(account_count=2, differences=self._differences)


@pytest.mark.parametrize(
    ("differences", "code", "told"),
    [
        ((), 0, "exact: 2 accounts"),
        (
            (
                pb.BudgetDifference(
                    budget_id="acme-day",
                    subject_id="anna",
                    counter="held",
                    counted=money_pb2.Money(currency_code="USD", nano_units=7),
                    added_up=money_pb2.Money(currency_code="USD"),
                ),
            ),
            1,
            "differs acme-day of anna: held is 0.000000007 USD, the ledger and the holds add up to 0 USD",
        ),
    ],
)
def test_budgets_that_are_not_exact_are_told_and_are_an_error(
    differences: tuple[pb.BudgetDifference, ...], code: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    rpc.add_CostServiceServicer_to_server(_Books(*differences), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("SLUICE_COST_TARGET", f"127.0.0.1:{port}")
    result = CliRunner().invoke(cost.app, ["verify-budgets"])
    server.stop(None).wait()
    assert (result.exit_code, told in result.output) == (code, True), result.output

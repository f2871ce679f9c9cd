"""`sluice cost`: prices, the proof of the ledger, corrections, forecasts and exports, asked of the cost service over gRPC."""

import hashlib
import json as json_
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToJson
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice.cost.v1 import cost_service_pb2_grpc as rpc
from sluice.types.v1 import money_pb2

from sluice_cli import terminal
from sluice_cli.mesh import demo_env
from sluice_cli.mesh.home import Home
from sluice_cli.mesh.problem import MeshProblem
from sluice_cli.service_channel import service_channel

app = typer.Typer(no_args_is_help=True, help="Look at, prove and put right what answers cost.")
console = terminal.console()

_SECONDS = 60.0
_LARGEST_AMOUNT = 10**9
_WALK_SECONDS = 6 * 3600.0
# Part of a price file a call: its answer stays well under the largest message.
_MODELS_A_CALL = 500
_Json = Annotated[bool, typer.Option("--json", help="As JSON.")]
_From = Annotated[str, typer.Option("--from", help="First moment, such as 2026-11-24 or 2026-11-24T13:00Z.")]
_Until = Annotated[str, typer.Option("--until", help="Moment after the last.")]


@contextmanager
def _service() -> Iterator[rpc.CostServiceStub]:
    """The cost service of the environment, or of the mesh of this home. MeshProblem where it refuses or is away."""
    home = Home(Path(os.environ.get("SLUICE_HOME") or ".sluice").absolute())
    target = os.environ.get("SLUICE_COST_TARGET") or demo_env.read(home)["SLUICE_COST_TARGET"]
    with service_channel(target, "cost", whose_work="keeps the ledger") as channel:
        yield rpc.CostServiceStub(channel)


def _moment(text: str) -> Timestamp:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise MeshProblem(f"{text!r} is no time: write 2026-11-24 or 2026-11-24T13:00Z.") from None
    stamp = Timestamp()
    stamp.FromDatetime(at if at.tzinfo else at.replace(tzinfo=UTC))
    return stamp


def _nano(text: str) -> int:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or not 0 <= amount <= _LARGEST_AMOUNT:
        raise MeshProblem(f"{text!r} is no amount: write one from 0 to {_LARGEST_AMOUNT}, such as 500 or 0.25.")
    return int(amount * 10**9)


def _money(money: money_pb2.Money) -> str:
    return f"{Decimal(money.nano_units) / 10**9:f} {money.currency_code}"


def _show_json(message: Any) -> None:
    console.out(MessageToJson(message, preserving_proto_field_name=True), highlight=False)


@app.command()
def verify(
    heads: Annotated[
        Path | None,
        typer.Option(help="File of heads told earlier (of --save-heads or LedgerSealed events, JSON lines)."),
    ] = None,
    save_heads: Annotated[
        Path | None, typer.Option(help="Write the heads there, to be given to --heads later.")
    ] = None,
    json: _Json = False,
) -> None:
    """Prove that no row of the ledger was changed, taken out or put in. Exit code 1 when one was."""
    published = _read_heads(heads) if heads else []
    answer = pb.VerifyLedgerResponse()
    with _service() as cost, console.status("walking the ledger") as status:
        for answer in cost.VerifyLedger(pb.VerifyLedgerRequest(published=published), timeout=_WALK_SECONDS):
            status.update(f"{answer.row_count:,} rows")
    if save_heads is not None and not answer.HasField("broken"):
        lines = [json_.dumps({"chain": h.chain, "row_count": h.row_count, "hash": h.hash}) for h in answer.heads]
        save_heads.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if json:
        _show_json(answer)
    else:
        _show_verified(answer)
        if published and not answer.HasField("broken"):
            console.print(f"{len(published)} heads told earlier stand in it")
    raise typer.Exit(0 if not answer.HasField("broken") and answer.sums_agree else 1)


def _read_heads(path: Path) -> list[pb.ChainHead]:
    """Lines as written by --save-heads, or events as printed by `sluice events tail --type LedgerSealed`."""
    heads = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            told = json_.loads(line)
            told = told.get("data", told)
            facts = {
                name: told.get(name) or told.get(_camel(name)) for name in ("chain", "row_count", "hash", "head_hash")
            }
            hash_ = facts["hash"] or facts["head_hash"]
            heads.append(pb.ChainHead(chain=facts["chain"], row_count=int(facts["row_count"]), hash=hash_))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise MeshProblem(f"{path} holds no heads ({type(error).__name__}).") from None
    if not heads:
        raise MeshProblem(f"{path} holds no heads: it is empty, and would prove nothing.")
    return heads


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _show_verified(answer: pb.VerifyLedgerResponse) -> None:
    if answer.HasField("broken"):
        broken = answer.broken
        place = f"chain {broken.chain}, row {broken.row_number} (entry {broken.entry_id or '-'}, event {broken.event_id or '-'})"
        console.print(f"[red]broken[/] after {answer.row_count:,} good rows: {place}: {broken.reason}", soft_wrap=True)
        return
    for head in answer.heads:
        console.print(f"{head.chain}  {head.row_count:,} rows  {head.hash}", highlight=False, soft_wrap=True)
    sums = "the sums are those of the rows" if answer.sums_agree else "[red]the sums are not those of the rows[/]"
    console.print(f"[green]whole[/]: {answer.row_count:,} rows, {sums}")


@app.command("verify-budgets")
def verify_budgets(json: _Json = False) -> None:
    """Prove that what budgets have spent and hold is the sum of the ledger's rows and the open holds. Exit code 1 when it is not."""
    with _service() as cost:
        answer = cost.VerifyBudgets(pb.VerifyBudgetsRequest(), timeout=_WALK_SECONDS)
    if json:
        _show_json(answer)
    else:
        _show_budgets(answer)
    raise typer.Exit(1 if answer.differences else 0)


def _show_budgets(answer: pb.VerifyBudgetsResponse) -> None:
    for found in answer.differences:
        whose = f" of {found.subject_id}" if found.subject_id else ""
        console.print(
            f"[red]differs[/] {found.budget_id}{whose}: {found.counter} is {_money(found.counted)}, "
            f"the ledger and the holds add up to {_money(found.added_up)}",
            highlight=False,
            soft_wrap=True,
        )
    if not answer.differences:
        console.print(f"[green]exact[/]: {answer.account_count:,} accounts are what the ledger and the holds add up to")


@app.command()
def recompute(
    from_: _From,
    until: _Until,
    model: Annotated[str, typer.Option(help="Only this model, alias or served.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell the differences, enter nothing.")] = False,
    approved_by: Annotated[str, typer.Option(help="Who signs the corrections off.")] = "",
    plan: Annotated[str, typer.Option(help="Digest of the dry run: nothing else is entered.")] = "",
    json: _Json = False,
) -> None:
    """Price the past anew by the prices as they are known now; enter the differences as corrections."""
    request = pb.RecomputeRequest(
        until=_moment(until), model=model, dry_run=dry_run, approved_by=approved_by, plan_digest=plan
    )
    getattr(request, "from").CopyFrom(_moment(from_))
    with _service() as cost:
        answer = cost.Recompute(request, timeout=_WALK_SECONDS)
    if json:
        _show_json(answer)
        return
    table = Table("tenant", "model", "corrections", "charged", "should be", "difference")
    for group in answer.groups:
        difference = money_pb2.Money(
            currency_code=group.after.currency_code, nano_units=group.after.nano_units - group.before.nano_units
        )
        amounts = (_money(one) for one in (group.before, group.after, difference))
        table.add_row(group.tenant_id, group.model, f"{group.correction_count:,}", *amounts)
    console.print(table)
    verb = "would be entered" if dry_run else "entered"
    console.print(f"{answer.row_count:,} rows priced anew, {answer.correction_count:,} corrections {verb}")
    if dry_run and answer.correction_count:
        console.print(f"to enter exactly these: --approved-by NAME --plan {answer.plan_digest}", soft_wrap=True)


@app.command("import-prices")
def import_prices(
    file: Annotated[Path, typer.Argument(help="model_prices_and_context_window.json of LiteLLM.")],
    approved_by: Annotated[str, typer.Option(help="Who signs the prices off.")] = "",
    provider: Annotated[list[str] | None, typer.Option(help="Only this litellm_provider (may be repeated).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would happen.")] = False,
    json: _Json = False,
) -> None:
    """Put the prices of a public price file that are new or changed; list what can not be taken over exactly."""
    total = pb.ImportPricesResponse()
    with _service() as cost, console.status("reading"):
        for request in _parts(file, approved_by=approved_by, providers=provider or [], dry_run=dry_run):
            answer = cost.ImportPrices(request, timeout=_SECONDS)
            for name, count in answer.ignored_fields.items():
                total.ignored_fields[name] += count
            answer.ClearField("ignored_fields")
            total.MergeFrom(answer)
    if json:
        _show_json(total)
        return
    for one in total.left_out:
        console.print(f"left out: {one.model}: {one.reason}", highlight=False, markup=False, soft_wrap=True)
    for name, count in sorted(total.ignored_fields.items(), key=lambda item: (-item[1], item[0])):
        console.print(f"not read: {name} of {count} models (usage the ledger does not know)", highlight=False)
    changed = sum(one.HasField("before") for one in total.imported)
    verb = "would be put" if dry_run else "put"
    told = f"{len(total.imported) - changed:,} new and {changed:,} changed prices {verb}"
    console.print(
        f"{told}, {len(total.unchanged_models):,} are in force already, {len(total.left_out):,} entries left out"
    )


def _parts(file: Path, **facts: Any) -> Iterator[pb.ImportPricesRequest]:
    try:
        content = file.read_bytes()
        # Numbers stay the text they are: this only cuts the file into parts.
        entries = json_.loads(content, parse_float=_Number, parse_int=_Number)
    except (OSError, ValueError) as error:
        raise MeshProblem(f"{file} is no price file ({type(error).__name__}).") from None
    if not isinstance(entries, dict):
        raise MeshProblem(f"{file} is no price file: it must be a JSON object of model to prices.")
    _check_providers(entries, facts["providers"])
    book = f"litellm@{hashlib.sha256(content).hexdigest()[:12]}"
    models = list(entries)
    for start in range(0, max(len(models), 1), _MODELS_A_CALL):
        part = {model: entries[model] for model in models[start : start + _MODELS_A_CALL]}
        yield pb.ImportPricesRequest(document=_as_json(part).encode(), book=book, **facts)


def _check_providers(entries: Mapping[str, Any], wanted: Iterable[str]) -> None:
    known = {
        str(one["litellm_provider"]) for one in entries.values() if isinstance(one, dict) and "litellm_provider" in one
    }
    if unknown := sorted(set(wanted) - known):
        raise MeshProblem(
            f"no model of {', '.join(unknown)} stands in the file; it has: {', '.join(sorted(known)) or 'none'}."
        )


class _Number(str):
    """A JSON number as it stood in the file."""


def _as_json(value: Any) -> str:
    if isinstance(value, _Number):
        return value
    if isinstance(value, dict):
        return "{" + ",".join(f"{json_.dumps(name)}:{_as_json(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_as_json(one) for one in value) + "]"
    return json_.dumps(value)


@app.command()
def forecast(
    monthly_budget: Annotated[str, typer.Option(help="To compare with, such as 500 (in --currency).")] = "",
    currency: Annotated[str, typer.Option(help="Currency of the budget.")] = "USD",
    json: _Json = False,
) -> None:
    """Tell what will have been spent at the end of the day and the month. Exit code 1 when a burn rate is an alert."""
    if not re.fullmatch("[A-Z]{3}", currency):
        raise MeshProblem(f"--currency {currency} is no currency code: write one of ISO 4217, such as EUR.")
    if currency != "USD" and not monthly_budget:
        raise MeshProblem(
            "--currency is that of --monthly-budget: name both. (Forecasts are told in every currency of the ledger.)"
        )
    request = pb.ForecastSpendRequest()
    if monthly_budget:
        request.monthly_budget.CopyFrom(money_pb2.Money(currency_code=currency, nano_units=_nano(monthly_budget)))
    with _service() as cost:
        answer = cost.ForecastSpend(request, timeout=_SECONDS)
    if json:
        _show_json(answer)
    else:
        for one in answer.forecasts:
            _show_forecast(one)
    raise typer.Exit(1 if any(burn.alert for one in answer.forecasts for burn in one.burn_rates) else 0)


def _show_forecast(found: pb.SpendForecast) -> None:
    table = Table("until the end of the", "spent", "expected", "90 % from", "to", title=found.currency_code)
    for name, period in (("day", found.day), ("month", found.month)):
        # Of no hour nothing is known; and one does not differ from itself, so that its interval has no width.
        expected = _money(period.expected) if found.history_hours else "-"
        interval = [_money(one) if found.history_hours > 1 else "-" for one in (period.lower, period.upper)]
        table.add_row(name, _money(period.spent), expected, *interval)
    console.print(table)
    for burn in found.burn_rates:
        hours = burn.long_window.seconds / 3600
        state = "[red]alert[/]" if burn.alert else "ok"
        console.print(
            f"  last {hours:g} h: {_money(burn.spent)}, burn rate {burn.long_rate:.2f} (alert from {burn.threshold:g}): {state}"
        )
    console.print(f"[dim]{found.history_hours} h of history; {found.method}[/]", soft_wrap=True)


@app.command("export-focus")
def export_focus(
    from_: _From,
    until: _Until,
    output: Annotated[Path | None, typer.Option(help="File; standard output without it (CSV only).")] = None,
    format_: Annotated[str, typer.Option("--format", help="csv or parquet.")] = "csv",
) -> None:
    """Write the ledger as a FOCUS 1.2 cost and usage table."""
    from sluice_cli import focus

    if format_ not in ("csv", "parquet"):
        raise MeshProblem(f"--format {format_} is not known: csv or parquet.")
    request = pb.ExportFocusRequest(until=_moment(until))
    getattr(request, "from").CopyFrom(_moment(from_))
    with _service() as cost:
        rows: Iterable[Mapping[str, str]] = (row.columns for row in cost.ExportFocus(request, timeout=_WALK_SECONDS))
        write = focus.write_parquet if format_ == "parquet" else focus.write_csv
        count = write(rows, output)
    Console(stderr=True).print(f"{count:,} rows")

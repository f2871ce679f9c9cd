"""The commands of `sluice privacy`."""

import asyncio
import contextlib
import sys
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToJson
from rich.table import Table
from sluice_kit.sealing.file_keys import FileKeyStore
from sluice_kit.sealing.keys import KeyStore, KeyStoreUnavailable
from sluice_kit.sealing.text import key_name
from sluice_kit.settings import MeshSettings

from sluice_cli import terminal
from sluice_cli.events import connection
from sluice_cli.mesh.home import Home
from sluice_cli.mesh.problem import MeshProblem
from sluice_cli.privacy import erasure, reading, subjects

privacy = typer.Typer(
    no_args_is_help=True, help="Erase a person, show the keys of captured texts, give a person what is kept of them."
)
console = terminal.console()

SUBJECT = Annotated[
    str, typer.Option(help="What callers send as `user`, or the pseudonym (sub_...); `-`: read it from standard input.")
]
TENANT = Annotated[str, typer.Option(help="The tenant's id.")]


@privacy.command()
def erase(
    tenant: TENANT,
    subject: SUBJECT = "",
    anonymous_day: Annotated[
        str, typer.Option("--anonymous-day", help="Instead: texts of this day (UTC) whose requests named nobody.")
    ] = "",
    reason: Annotated[str, typer.Option(help="A code or ticket; it is published.")] = "",
    requested_by: Annotated[
        str, typer.Option("--requested-by", help="Id of who asks; it is published. Without it your user number.")
    ] = "",
) -> None:
    """Destroy the keys of a person's texts, for ever, and publish the receipt (printed as JSON). Again it does no harm."""
    if bool(subject) is bool(anonymous_day):
        raise MeshProblem("Say whom: either --subject or --anonymous-day.")
    home = Home.here()
    whom = subjects.anonymous_day(anonymous_day, tenant) if anonymous_day else _subject(subject, tenant, home)
    by = erasure.check_code("--requested-by", requested_by) or erasure.own_id()
    settings = connection(home)
    receipt, is_delivered = erasure.erase(
        settings, whom, requested_by=by, reason=erasure.check_code("--reason", reason)
    )
    print(MessageToJson(receipt, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))
    if not is_delivered:
        raise MeshProblem(
            f"The keys are destroyed, and the receipt is kept in {home.path}/outbox, but Kafka did not take it yet: run the same"
            " command again when it answers, so that services that keep copies hear of it."
        )


@privacy.command()
def status(
    tenant: Annotated[str, typer.Option(help="Only this tenant.")] = "",
    subject: Annotated[str, typer.Option(help="Only this person: what callers send as `user`, or the pseudonym.")] = "",
) -> None:
    """Show the key store and its keys, with how many were destroyed."""
    home = Home.here()
    store = erasure.opened_store(MeshSettings())
    if store is None:
        console.print("Encryption is off (SLUICE_KEY_STORE=off): captured texts are published in clear.")
        return
    _show_store(store)
    prefix = key_name(tenant, "") if tenant else ""
    if subject:
        whom = _subject(subject, tenant, home)
        prefix = key_name(whom.tenant_id, whom.id)
    _show_keys(store, prefix)


@privacy.command()
def export(tenant: TENANT, subject: SUBJECT) -> None:
    """Print every event of a person that is still kept, texts decrypted, one JSON line each: for an access request."""
    home = Home.here()
    whom = _subject(subject, tenant, home)
    settings = connection(home)
    opened = reading.opener(settings)

    async def show() -> int:
        count = 0
        async with contextlib.aclosing(reading.of_subject(settings, whom)) as found:
            async for event in found:
                print(event.as_json(opened), flush=True)
                count += 1
        return count

    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        if not asyncio.run(show()):
            print(f"No event of {whom.id} is kept for tenant {whom.tenant_id}.", file=sys.stderr)


@privacy.command("rotate-master")
def rotate_master() -> None:
    """Wrap all keys by a new master key and destroy the old one: old copies of the key store's blocks are then worthless."""
    store = erasure.opened_store(MeshSettings())
    if not isinstance(store, FileKeyStore):
        raise MeshProblem("Only the file key store has a master key of its own; Vault's is rotated by its operator.")
    try:
        console.print(f"Master key version {store.rotate_master()} is in force; the former ones are destroyed.")
    except KeyStoreUnavailable as error:
        raise MeshProblem(str(error)) from None


def _subject(told: str, tenant: str, home: Home) -> subjects.Subject:
    # A name on the command line stands in the shell's history and in the list of processes.
    name = sys.stdin.readline().strip() if told == "-" else told
    return subjects.subject_of(name, tenant, home=home.path)


def _show_store(store: KeyStore) -> None:
    kind = f"file, master key version {store.master_version}" if isinstance(store, FileKeyStore) else "Vault"
    console.print(f"Key store {store.id} ({kind})", highlight=False)


def _show_keys(store: KeyStore, prefix: str) -> None:
    table = Table("key", "version in force", "destroyed versions", box=None)
    names = store.names(prefix)
    for name in names:
        state = store.describe(name)
        if state is not None:
            destroyed = ", ".join(map(str, state.destroyed)) or "-"
            table.add_row(name, str(state.current or "-"), destroyed)
    console.print(table if names else "There are no such keys.")

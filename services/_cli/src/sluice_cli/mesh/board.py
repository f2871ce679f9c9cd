"""What a starting or running mesh looks like on the terminal."""

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sluice_cli.mesh.home import Home
from sluice_cli.mesh.plan import Program
from sluice_cli.mesh.supervisor import ProcessState

CHAT = '{"model":"%s","messages":[{"role":"user","content":"I am Maria Keller, maria@example.com. Say hello to me."}]}'


class Board:
    """Lines of a start, one a process."""

    def __init__(self, console: Console, programs: Sequence[Program]) -> None:
        self._console = console
        self._width = max(len(program.name) for program in programs)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[Callable[[Sequence[Program]], None]]:
        """Shows, on a terminal, who is still awaited; call what it yields with them."""
        with self._console.status("") as spinner:
            yield lambda programs: spinner.update(
                f"[dim]waiting for {', '.join(program.name for program in programs)}[/]"
            )

    def say(self, text: str) -> None:
        """A plain remark."""
        self._console.print(f"  [dim]{escape(text)}[/]", highlight=False)

    def ready(self, program: Program, state: ProcessState, seconds: float) -> None:
        """A process has become ready."""
        self._console.print(
            f"  [green]✓[/] [bold]{program.name:<{self._width}}[/]  {program.address:<15}  {seconds:5.1f} s"
            f"  [dim]pid {state.pid:<7} {state.resident_bytes / 1e6:5.0f} MB[/]",
            highlight=False,
        )

    def late(self, program: Program, state: str, seconds: float, words: Iterable[str]) -> None:
        """A process has not become ready in time."""
        self._console.print(
            f"  [red]✗[/] [bold]{program.name}[/] is not ready after {seconds:.0f} s ({state}); its last words:",
            highlight=False,
        )
        for line in list(words) or ["(none)"]:
            self._console.print(f"      [dim]{escape(line)}[/]", highlight=False, soft_wrap=True)

    def restarted(self, name: str, pid: int) -> None:
        """A process died and runs again."""
        self._console.print(f"  [yellow]↻[/] {name} died and was started again (pid {pid})", highlight=False)


def print_addresses(console: Console, home: Home, values: Mapping[str, str]) -> None:
    """Where everything is, and lines to paste."""
    table = Table.grid(padding=(0, 2))
    for label, address in (
        ("OpenAI HTTP", f"{values['SLUICE_HTTP_URL']}/v1"),
        ("gRPC", values["SLUICE_GRPC_TARGET"]),
        ("Kafka", values["SLUICE_KAFKA_BOOTSTRAP"]),
        *console_lines(values),
        ("live metrics", f"insight {values['SLUICE_INSIGHT_TARGET']} (gRPC)"),
        ("keys, addresses", str(home.demo_env)),
        ("logs", str(home.logs)),
    ):
        table.add_row(f"  [dim]{label}[/]", address)
    console.print()
    console.print(table, highlight=False)
    for title, snippet in snippets(home, values).items():
        console.print(f"\n  [dim]{title}[/]", highlight=False)
        console.print(snippet, highlight=False, markup=False, soft_wrap=True)
    console.print()


def console_lines(values: Mapping[str, str]) -> list[tuple[str, str]]:
    """Where a person looks, and the key that opens it."""
    if "SLUICE_CONSOLE_KEY" not in values:
        return []
    return [("console", values["SLUICE_CONSOLE_URL"]), ("its key", values["SLUICE_CONSOLE_KEY"])]


def snippets(home: Home, values: Mapping[str, str]) -> dict[str, str]:
    """Commands to paste into a shell; each stands alone and works as it is."""
    python, env = shlex.quote(sys.executable), f". {shlex.quote(str(home.demo_env))}"
    chat = CHAT % values["SLUICE_MODEL"]
    return {
        "curl:": f'({env}; curl -s $SLUICE_HTTP_URL/v1/chat/completions -H "authorization: Bearer $SLUICE_API_KEY"'
        f" -H 'content-type: application/json' -d '{chat}')",
        "Python, the official openai client, streamed:": f"(set -a; {env}; {python} - <<'PY'\n{_OPENAI}PY\n)",
        "Python, gRPC:": f"(set -a; {env}; {python} - <<'PY'\n{_GRPC}PY\n)",
    }


_OPENAI = """\
import os, openai
client = openai.OpenAI(base_url=os.environ["SLUICE_HTTP_URL"] + "/v1", api_key=os.environ["SLUICE_API_KEY"])
stream = client.chat.completions.create(model=os.environ["SLUICE_MODEL"], stream=True, messages=[{"role": "user", "content": "What is a sluice?"}])
for chunk in stream: print((chunk.choices and chunk.choices[0].delta.content) or "", end="", flush=True)
print()
"""

_GRPC = """\
import os, grpc
from sluice.gateway.v1 import gateway_service_pb2 as pb, gateway_service_pb2_grpc
from sluice.types.v1 import chat_pb2
stub = gateway_service_pb2_grpc.GatewayServiceStub(grpc.insecure_channel(os.environ["SLUICE_GRPC_TARGET"], options=[("grpc.enable_http_proxy", 0)]))
spec = pb.ChatSpec(model=os.environ["SLUICE_MODEL"], messages=[chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content="What is a sluice?")])
print(stub.Chat(pb.ChatRequest(spec=spec), metadata=[("authorization", "Bearer " + os.environ["SLUICE_API_KEY"])]).choices[0].message.content)
"""


def print_status(
    console: Console, programs: Sequence[Program], states: Mapping[str, ProcessState], ready: Mapping[str, bool]
) -> None:
    """A table of the processes."""
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for column in ("", "process", "state", "address"):
        table.add_column(column)
    for column in ("pid", "up", "memory"):
        table.add_column(column, justify="right")
    for program in programs:
        state = states.get(program.name, ProcessState(program.name, "UNKNOWN", 0, 0))
        mark, word = ("[green]✓[/]", "ready") if ready[program.name] else ("[red]✗[/]", state.state.lower())
        memory = f"{state.resident_bytes / 1e6:.0f} MB" if state.pid else ""
        table.add_row(
            mark, program.name, word, program.address, str(state.pid or ""), _duration(state.uptime_seconds), memory
        )
    total = sum(state.resident_bytes for state in states.values())
    table.add_row("", "[dim]all[/]", "", "", "", "", f"[dim]{total / 1e6:.0f} MB[/]")
    console.print(table, highlight=False)


def _duration(seconds: int) -> str:
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"

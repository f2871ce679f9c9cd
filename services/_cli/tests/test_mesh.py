"""The parts of `sluice mesh` that need no process."""

import configparser
import os
import signal
import socket
import stat
import struct
import sys
import threading
from pathlib import Path

import pytest
import yaml
from sluice_cli.mesh import apache, broker, demo_env, embedded, logs, plan, ports
from sluice_cli.mesh.board import snippets
from sluice_cli.mesh.home import LONGEST_SOCKET_PATH, Home
from sluice_cli.mesh.leash import hold
from sluice_cli.mesh.plan import Check, Program
from sluice_cli.mesh.problem import MeshProblem
from sluice_cli.mesh.supervisor import SERVICES_GROUP, Supervisor, render


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.prepare()
    return made


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLUICE_")]:
        monkeypatch.delenv(name)


def program(name: str = "cost", port: int = 1, **more: object) -> Program:
    return Program(
        name=name, command=("/bin/odd path/run", "100%", "a'b"), ports={name: port}, check=Check("tcp", port), **more
    )  # type: ignore[arg-type]


def parsed(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    return parser


def test_the_supervisor_restarts_for_ever_and_kills_what_does_not_stop(home: Home) -> None:
    told = parsed(render(home, None, [program()]))["program:cost"]
    assert (told["autorestart"], told["stopasgroup"], told["killasgroup"], told["stopsignal"]) == (
        "true",
        "true",
        "true",
        "TERM",
    )
    assert int(told["startretries"]) > 10**6
    assert told["autostart"] == "false"


def test_the_broker_starts_first_and_stops_last_with_the_signal_it_saves_on(home: Home) -> None:
    kafka = embedded.program(home, 19092)
    told = parsed(render(home, kafka, [program()]))
    assert (told["program:kafka"]["autostart"], told["program:kafka"]["stopsignal"]) == ("true", "INT")
    # supervisord stops the group of the highest priority number first, and its members all at once.
    assert int(told[f"group:{SERVICES_GROUP}"]["priority"]) > int(told["program:kafka"]["priority"])


def test_odd_characters_in_a_command_or_value_survive_the_configuration(home: Home) -> None:
    from supervisor.options import ServerOptions

    service = program(environment={"ODD": "50% of a,b"})
    path = home.run / "supervisord.conf"
    path.write_text(render(home, None, [service]))
    options = ServerOptions()
    options.realize(["-c", str(path)])
    (config,) = options.process_group_configs[0].process_configs
    import shlex

    assert shlex.split(config.command) == list(service.command)
    assert config.environment == {"ODD": "50% of a,b"}
    assert config.stopsignal == signal.SIGTERM


def test_a_long_home_gets_a_short_socket() -> None:
    deep = Home(Path("/") / "/".join(["deep-folder"] * 20))
    assert len(os.fsencode(deep.socket)) <= LONGEST_SOCKET_PATH
    assert deep.socket != Home(deep.path / "other").socket


def test_a_supervisor_that_does_not_run_has_no_pid_and_nothing_to_stop(home: Home) -> None:
    assert Supervisor(home).pid() is None
    assert not Supervisor(home).stop()


def test_every_service_of_the_mesh_has_a_check_and_ports_shifted_by_the_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_script", lambda name: Path("/bin") / name)
    services = {service.name: service for service in plan.services(plan.SERVICES, 100)}
    assert set(services) == {
        "gateway",
        "inference",
        "redaction",
        "moderation",
        "feedback",
        "cost",
        "quality",
        "drift",
        "fairness",
        "insight",
        "console",
        "probes",
    }
    assert services["console"].check == Check("http", 8190)
    assert services["gateway"].ports == {"gateway": 50151, "gateway_http": 8180, "metrics_gateway": 9551}
    assert services["drift"].check == Check("http", 6167)
    assert services["fairness"].check == Check("http", 6168)


@pytest.mark.parametrize(
    ("settings", "is_judging"),
    [
        ({}, False),
        ({"RATE": ""}, False),
        ({"RATE": "0.0", "RATES": "{}"}, False),
        ({"RATES": '{"acme": 0}'}, False),
        ({"RATE": "0.05"}, True),
        ({"RATES": '{"acme": 0.1}'}, True),
        ({"RATE": "much"}, True),  # the judge says what is wrong with it
        ({"RATES": "[1]"}, True),
    ],
)
def test_the_judge_is_part_of_the_mesh_where_answers_are_to_be_judged(
    settings: dict[str, str], is_judging: bool
) -> None:
    names = plan.whole_mesh({f"SLUICE_QUALITY_JUDGE_{name}": value for name, value in settings.items()})
    assert names == (*plan.SERVICES, "quality-judge") if is_judging else names == plan.SERVICES


def test_the_judge_serves_its_health_on_a_port_of_its_own_and_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_script", lambda name: Path("/bin") / name)
    (judge,) = plan.services(("quality-judge",), 100)
    assert (judge.command, judge.check) == (("/bin/sluice-quality-judge",), Check("http", 6169))
    assert judge.ports == {"quality_judge_web": 6169}
    assert judge.environment == {"SLUICE_QUALITY_JUDGE_METRICS_LISTEN": "127.0.0.1:6169"}
    assert [one.name for one in plan.running(("kafka", "quality-judge", "quality"), 0)] == [
        "kafka",
        "quality",
        "quality-judge",
    ]


def test_alerts_link_to_the_console_of_the_same_mesh_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_script", lambda name: Path("/bin") / name)
    monkeypatch.delenv("SLUICE_INSIGHT_CONSOLE_URL", raising=False)
    insight, console = plan.services(("insight", "console"), 100)
    assert insight.environment == {"SLUICE_INSIGHT_CONSOLE_URL": f"http://127.0.0.1:{console.ports['console']}"}
    assert plan.services(("insight",), 100)[0].environment == {}
    monkeypatch.setenv("SLUICE_INSIGHT_CONSOLE_URL", "https://sluice.example")
    assert plan.services(("insight", "console"), 100)[0].environment == {}


def test_a_gateway_without_a_cost_service_holds_nothing_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_script", lambda name: Path("/bin") / name)
    monkeypatch.delenv("SLUICE_COST_TARGET", raising=False)
    off = {"SLUICE_GATEWAY_BUDGETS": "false"}
    assert plan.services(("gateway",), 0)[0].environment == off
    assert plan.services(("gateway", "cost"), 0)[0].environment == {}
    monkeypatch.setenv("SLUICE_COST_TARGET", "elsewhere:50056")
    assert plan.services(("gateway",), 0)[0].environment == {}


def test_an_unknown_service_is_named_with_those_there_are() -> None:
    with pytest.raises(MeshProblem, match=r"no service costs; there are .*cost"):
        plan.services(("costs",), 0)


def test_a_service_that_is_not_installed_says_what_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(MeshProblem, match=r"sluice-cost is not installed .*make setup"):
        plan.services(("cost",), 0)


def test_a_taken_port_is_named_with_its_user_its_holder_and_the_way_out() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(
            MeshProblem, match=rf"^Port {port}, which cost needs, is taken by .*SLUICE_PORT_BASE_OFFSET=200\.$"
        ):
            ports.check_free([program(port=port)], 100, print)


def test_a_port_held_by_an_outgoing_connection_is_waited_for() -> None:
    said: list[str] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.create_connection(server.getsockname()) as client:
            port = client.getsockname()[1]
            with pytest.raises(MeshProblem, match="is held by an outgoing connection of"):
                ports.check_free([program(port=port)], 0, said.append, patience_seconds=1)
            # An abortive close leaves nothing behind, so that the port is free at once.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            timer = threading.Timer(0.5, client.close)
            timer.start()
            ports.check_free([program(port=port)], 0, said.append)
            timer.join()
    assert all("Waiting for port" in line for line in said)
    assert len(said) == 2


def test_a_free_port_is_free_and_what_just_stopped_listening_does_not_hold_it() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    assert ports.is_free(port)


def test_a_home_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MeshProblem, match="cannot be written"):
        Home(tmp_path / "file" / "home").prepare()


def test_a_full_disk_is_one_sentence(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice_cli.mesh.home.LEAST_FREE_BYTES", 1 << 62)
    with pytest.raises(MeshProblem, match=r"MB are free .* needs 1 GB"):
        home.prepare()


def test_keys_are_hashed_for_the_gateway_and_survive(home: Home) -> None:
    demo_env.write(home, 0, {"SLUICE_KAFKA_BOOTSTRAP": "127.0.0.1:9092"})
    first = demo_env.read(home)
    gateway = home.gateway_file.read_text()
    demo_env.write(home, 100, {"SLUICE_KAFKA_BOOTSTRAP": "127.0.0.1:9192"})
    second = demo_env.read(home)
    assert demo_env.tenant_keys(first) == demo_env.tenant_keys(second)
    assert second["SLUICE_HTTP_URL"] == "http://127.0.0.1:8180"
    assert home.gateway_file.read_text() == gateway
    for key in demo_env.tenant_keys(first).values():
        assert key.rsplit("-", 1)[1] not in gateway
    assert stat.S_IMODE(home.demo_env.stat().st_mode) == 0o600


def test_lost_keys_are_replaced_and_the_old_file_is_kept(home: Home) -> None:
    demo_env.write(home, 0, {})
    before = demo_env.tenant_keys(demo_env.read(home))
    home.demo_env.unlink()
    demo_env.write(home, 0, {})
    after = demo_env.tenant_keys(demo_env.read(home))
    assert set(before) == set(after)
    assert before != after
    assert home.gateway_file.with_suffix(".yaml.before").exists()


def test_only_tenants_whose_file_lists_them_declare_prompt_versions_in_the_demonstration(home: Home) -> None:
    assert demo_env.tenants_with_variants(home) == frozenset()
    demo_env.write(home, 0, {})
    assert demo_env.tenants_with_variants(home) == frozenset(demo_env.TENANTS)
    document = yaml.safe_load(home.gateway_file.read_text())
    del document["tenants"][0]["experiment_arms"]
    home.gateway_file.write_text(yaml.safe_dump(document))
    assert demo_env.tenants_with_variants(home) == frozenset(demo_env.TENANTS[1:])
    for broken in ("tenants: [", "tenants: 3", "[]", "tenants: [acme]", "tenants: [{id: acme, prompt_versions: 3}]"):
        home.gateway_file.write_text(broken)
        assert demo_env.tenants_with_variants(home) == frozenset()


def test_a_home_with_spaces_and_quotes_can_be_sourced(tmp_path: Path) -> None:
    odd = Home(tmp_path / "it's a home")
    odd.prepare()
    demo_env.write(odd, 0, {"SLUICE_KAFKA_BOOTSTRAP": "x:1"})
    assert demo_env.read(odd)["SLUICE_HOME"] == str(odd.path)
    assert all("demo.env" in snippet for snippet in snippets(odd, demo_env.read(odd)).values())


def test_a_named_broker_is_used_and_never_started(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_KAFKA_BOOTSTRAP", "kafka.example:9092")
    chosen = broker.choose(home, 0, print)
    assert (chosen.kind, chosen.program, chosen.bootstrap) == ("external", None, "kafka.example:9092")
    assert chosen.environment["SLUICE_KAFKA_EMBEDDED"] == "false"


def test_without_apache_kafka_the_embedded_broker_is_taken_and_says_why(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(say: object) -> None:
        raise apache.CannotRun("no Java")

    monkeypatch.setattr(apache, "resolve", cannot)
    chosen = broker.choose(home, 5, print)
    assert (chosen.kind, chosen.bootstrap) == ("embedded", "127.0.0.1:9097")
    assert "no Java" in chosen.why


def test_a_home_keeps_the_broker_it_was_begun_with(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_KAFKA", "embedded")
    broker.remember(home, broker.choose(home, 0, print))
    monkeypatch.delenv("SLUICE_KAFKA")
    monkeypatch.setattr(apache, "resolve", lambda say: pytest.fail("must not be looked for"))
    assert broker.choose(home, 0, print).kind == "embedded"
    # Whoever has sourced demo.env names our own broker.
    monkeypatch.setenv("SLUICE_KAFKA_BOOTSTRAP", "127.0.0.1:9092")
    assert broker.choose(home, 0, print).kind == "embedded"
    monkeypatch.delenv("SLUICE_KAFKA_BOOTSTRAP")
    monkeypatch.setenv("SLUICE_KAFKA", "apache")
    with pytest.raises(MeshProblem, match="begun with the embedded broker"):
        broker.choose(home, 0, print)


def test_a_half_copied_or_altered_library_is_not_run(tmp_path: Path) -> None:
    for name in apache._locked():
        (tmp_path / name).write_bytes(b"not what was pinned")
    assert not apache._complete(tmp_path)


def test_without_java_or_maven_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apache, "_java_candidates", list)
    with pytest.raises(apache.CannotRun, match="no Java 17"):
        apache.resolve(print)
    monkeypatch.setattr(apache, "_find_java", lambda: Path("/usr/bin/java"))
    monkeypatch.setenv("SLUICE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(apache.CannotRun, match="Maven"):
        apache.resolve(print)


def test_a_failed_fetch_is_not_tried_again_at_every_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maven = tmp_path / "mvn"
    maven.write_text("#!/bin/sh\necho x >> $(dirname $0)/tries\nexit 1\n")
    maven.chmod(0o755)
    monkeypatch.setattr(apache, "_find_java", lambda: Path("/usr/bin/java"))
    monkeypatch.setenv("SLUICE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for _ in range(3):
        with pytest.raises(apache.CannotRun, match="Maven cannot fetch it"):
            apache.resolve(lambda text: None)
    assert (tmp_path / "tries").read_text().count("x") == 1


def test_the_last_words_of_a_log_are_event_names_and_what_failed(tmp_path: Path) -> None:
    log = tmp_path / "cost.log"
    log.write_text(
        '{"event": "service.starting", "secret": "x"}\n{"event": "start.failed", "error": "disk full"}\nTraceback\n\n'
    )
    assert logs.last_words(log) == ["service.starting", "start.failed error=disk full", "Traceback"]
    assert logs.last_words(tmp_path / "none.log") == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes these ports for outgoing connections")
def test_a_held_port_goes_to_no_outgoing_connection_but_a_server_can_listen_there() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        free = [
            port
            for port in range(ports.ephemeral_ports().start + 2000, ports.ephemeral_ports().stop)
            if ports.is_free(port)
        ][:4000]
        held = hold(free)
        try:
            for _ in range(100):
                with socket.create_connection(server.getsockname()) as client:
                    assert client.getsockname()[1] not in free
                server.accept()[0].close()
            with socket.socket() as service:
                service.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                service.bind(("127.0.0.1", free[0]))
                service.listen()
                assert not ports.is_free(free[0])
        finally:
            for holder in held:
                holder.close()


def test_a_cluster_id_is_never_taken_for_an_option() -> None:
    made = {apache._cluster_id() for _ in range(2000)}
    assert len(made) == 2000
    assert not [one for one in made if one.startswith("-") or len(one) != 22]

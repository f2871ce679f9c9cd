"""The Faust app and its process, set up by what was measured of Faust (README of the quality service, "Faust as it is run here")."""

from __future__ import annotations

import faulthandler
import gc
import logging
from collections.abc import Callable, Mapping
from typing import Any

import faust
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from faust.assignor.client_assignment import ClientMetadata
from faust.assignor.partition_assignor import PartitionAssignor
from faust.auth import Credentials
from faust.web import Request, Response, View
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from sluice_kit.streams.fetching import Transport
from sluice_kit.streams.options import WorkerOptions
from sluice_kit.streams.runner import Publisher
from sluice_kit.streams.table import ConfirmedTable

__all__ = ["Worker", "WorkerOptions", "add_pages", "create_app", "credentials", "host_publisher", "run"]

SHUTDOWN_SECONDS = 25.0
"""A worker that crashed was once seen to wait for ever for its services to stop: it counted nothing, and no supervisor could know."""
_METRICS_TYPE = CONTENT_TYPE_LATEST.split("; charset")[0]  # aiohttp adds the charset, and refuses it in the type


def create_app(options: WorkerOptions) -> faust.App:
    """A Faust app without agents. Its id is the consumer group and the prefix of the changelog topic."""
    options.data_dir.mkdir(parents=True, exist_ok=True)
    return App(
        options.group,
        broker=[f"kafka://{address}" for address in options.bootstrap.split(",")],
        broker_credentials=credentials(options.security),
        # Static membership: a restart needs no rebalance, and the embedded broker loses the group without it.
        consumer_group_instance_id=f"{options.group}-{options.instance}",
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=10.0,
        broker_heartbeat_interval=2.0,
        broker_commit_interval=1.0,
        processing_guarantee="at_least_once",  # exactly once by the offsets in the windows, not by transactions
        producer_acks=-1,
        producer_linger=0.005,
        # A batch of windows is a megabyte, and with aiokafka's 16 KiB it went in sixty pieces, packed with lz4 at level 9.
        producer_max_batch_size=512 << 10,
        producer_compression_type="snappy",
        stream_wait_empty=False,
        topic_disable_leader=True,
        topic_partitions=options.partitions,
        topic_replication_factor=options.replication_factor,
        table_standby_replicas=0,  # a standby's copy was seen hundreds of counts behind
        store=options.store,
        datadir=str(options.data_dir / f"{options.group}-{options.instance}"),
        Table=ConfirmedTable,
        PartitionAssignor=Assignor,
        web_enabled=True,
        web_bind=options.web_host,
        web_host=options.web_host,
        web_port=options.web_port,
        web_tables_enabled=False,
        web_router_enabled=False,
        web_stats_enabled=False,
        web_graph_enabled=False,
        web_metrics_enabled=False,
        worker_redirect_stdouts=False,
        autodiscover=False,
    )


def credentials(security: Mapping[str, Any]) -> Credentials | None:
    """Faust's form of aiokafka's security options; None for plaintext."""
    protocol = security.get("security_protocol", "PLAINTEXT")
    context = security.get("ssl_context")
    if protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=security.get("sasl_plain_username"),
            password=security.get("sasl_plain_password"),
            mechanism=security.get("sasl_mechanism"),
            ssl_context=context,
        )
    return faust.SSLCredentials(context=context) if protocol == "SSL" else None


class App(faust.App):
    """Reads by our transport."""

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)


class Assignor(PartitionAssignor):
    """Takes an assignment whatever the address in it.

    A static member that is back within its session is given its old assignment, and in it the address that it had then. Faust
    asserts that it has it still: with another port or host the worker neither read nor ended.
    """

    _told_url: Any = None

    @property
    def _url(self) -> Any:
        return self._told_url or super()._url

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Called by aiokafka with what the group's leader has decided."""
        self._told_url = ClientMetadata.loads(self._decompress(assignment.user_data)).url
        try:
            super().on_assignment(assignment)
        finally:
            self._told_url = None


class Worker(faust.Worker):
    """A worker that leaves the process's logging as `main` set it up, and prints nothing."""

    def _setup_logging(self) -> None:
        # Faust builds a log record for every message unless its loggers are raised: 15-25 % of the throughput.
        for name in ("faust", "mode", "aiokafka", "sluice_kit.streams.table"):
            logging.getLogger(name).setLevel(logging.WARNING)

    def on_worker_shutdown(self) -> None:
        """Ends the process, with the stacks of its threads on stderr, when stopping takes too long: its successor reads again."""
        faulthandler.dump_traceback_later(SHUTDOWN_SECONDS, exit=True)
        super().on_worker_shutdown()


def host_publisher(app: faust.App, publisher: Publisher) -> None:
    """Start and stop a publisher with the app, in its event loop."""

    @app.task
    async def start_publisher() -> None:
        await publisher.start()

    @app.on_before_shutdown.connect(weak=False)
    async def stop_publisher(*_: Any, **__: Any) -> None:
        await publisher.stop()


def run(app: faust.App) -> None:
    """Run until SIGTERM or SIGINT; exits the process."""
    # The windows are many long-lived objects: scanning them all at every 7,000 allocations took 5 % of the CPU time.
    gc.set_threshold(100_000, 20, 20)
    worker = Worker(app, quiet=True, redirect_stdouts=False)
    worker.spinner = None
    worker.execute_from_commandline()


def add_pages(app: faust.App, *, is_ready: Callable[[], bool]) -> None:
    """GET /healthz (200 or 503) and GET /metrics (Prometheus text)."""

    @app.page("/healthz")
    async def healthz(view: View, request: Request) -> Response:
        ready = is_ready()
        return view.text("ok\n" if ready else "not ready\n", status=200 if ready else 503)

    @app.page("/metrics")
    async def metrics(view: View, request: Request) -> Response:
        return view.bytes(generate_latest(), content_type=_METRICS_TYPE)

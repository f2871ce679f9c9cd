"""`sluice explain`, against a moderation service over real gRPC."""

from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest
from rich.console import Console
from sluice.moderation.v1 import moderation_service_pb2 as pb
from sluice.moderation.v1 import moderation_service_pb2_grpc as rpc
from sluice.types.v1 import verdict_pb2
from sluice_cli import decision
from sluice_cli.mesh.problem import MeshProblem

EVIDENCE = pb.ExplainResponse(
    verdict=verdict_pb2.Verdict(
        decision_id="d1",
        action=verdict_pb2.ACTION_BLOCK,
        policy_id="general",
        policy_version=4,
        scores=[
            verdict_pb2.CategoryScore(
                category="insult", score=0.91, threshold=0.85, action=verdict_pb2.ACTION_BLOCK, detector="cascade"
            ),
            verdict_pb2.CategoryScore(category="threat", score=0.1, threshold=0.5, action=verdict_pb2.ACTION_FLAG),
        ],
        skipped=[verdict_pb2.SkippedCheck(check="secrets", reason="not_in_policy")],
    ),
    summary="Blocked: insult 0.910 reached 0.850.",
    contributions=[pb.Contribution(category="insult", feature="idiot", weight=3.2)],
)


class Moderation(rpc.ModerationServiceServicer):
    def Explain(self, request: pb.ExplainRequest, context: grpc.ServicerContext) -> pb.ExplainResponse:
        tenant = dict(context.invocation_metadata()).get("x-sluice-tenant-id")
        if request.decision_id == "d3":
            context.set_trailing_metadata((("grpc-status-details-bin", b""),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "the evidence cannot be read now")
        if (request.decision_id, tenant) != ("d1", "acme"):
            context.abort(grpc.StatusCode.NOT_FOUND, "no decision d2 is known")
        return EVIDENCE


@pytest.fixture
def known() -> Iterator[dict[str, str]]:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    rpc.add_ModerationServiceServicer_to_server(Moderation(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield {"SLUICE_MODERATION_TARGET": f"127.0.0.1:{port}", "SLUICE_TENANT": "acme"}
    server.stop(None).wait()


def told(*, as_json: bool = False) -> str:
    console = Console(width=120, record=True, quiet=False)
    with console.capture() as captured:
        decision.show(EVIDENCE, console, as_json=as_json)
    return captured.get()


def test_the_evidence_is_asked_for_as_the_tenant_it_belongs_to(known: dict[str, str]) -> None:
    assert decision.explained("d1", "", known) == EVIDENCE
    with pytest.raises(MeshProblem, match=r"no decision d2 is known \(asked as tenant globex; as another: --tenant\)"):
        decision.explained("d1", "globex", known)


def test_a_moderation_that_answers_that_something_is_away_is_heard(known: dict[str, str]) -> None:
    with pytest.raises(MeshProblem, match=r"^the evidence cannot be read now$"):
        decision.explained("d3", "", known)


def test_a_moderation_that_is_away_is_said_to_be(known: dict[str, str]) -> None:
    known["SLUICE_MODERATION_TARGET"] = "127.0.0.1:1"
    with pytest.raises(
        MeshProblem,
        match=r"^moderation, which keeps the evidence of its decisions, does not answer: see `sluice mesh status`",
    ):
        decision.explained("d1", "", known)


def test_a_person_reads_what_was_reached_by_what_and_what_was_not_checked() -> None:
    text = told()
    for part in ("Blocked: insult", "0.910", "0.850", "block", "+3.200 idiot", "not checked: secrets", "general@4"):
        assert part in text
    threat = next(line for line in text.splitlines() if "threat" in line)
    assert "flag" not in threat, "a threshold that was not reached asks for nothing"


def test_a_program_gets_json() -> None:
    assert '"decision_id": "d1"' in told(as_json=True)

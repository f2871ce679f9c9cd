"""Why a text was blocked: the evidence of one moderation decision, for a person to read."""

import os
from collections.abc import Mapping

from google.protobuf.json_format import MessageToJson
from rich.console import Console
from rich.table import Table
from sluice.moderation.v1 import moderation_service_pb2 as pb
from sluice.moderation.v1 import moderation_service_pb2_grpc as rpc
from sluice.types.v1 import verdict_pb2

from sluice_cli.mesh import demo_env
from sluice_cli.mesh.home import Home
from sluice_cli.service_channel import as_tenant, service_channel

_SECONDS = 10.0


def environment(home: Home) -> dict[str, str]:
    """Where the mesh is: what the environment says, else what the demo.env of this home says."""
    told = {name: value for name, value in os.environ.items() if name in ("SLUICE_MODERATION_TARGET", "SLUICE_TENANT")}
    return told if len(told) == 2 else demo_env.read(home) | told


def explained(decision_id: str, tenant: str, known: Mapping[str, str]) -> pb.ExplainResponse:
    """The evidence. MeshProblem where the decision is not this tenant's or moderation does not answer."""
    tenant = tenant or known["SLUICE_TENANT"]
    with service_channel(
        known["SLUICE_MODERATION_TARGET"],
        "moderation",
        whose_work="keeps the evidence of its decisions",
        not_found=f"asked as tenant {tenant}; as another: --tenant",
    ) as channel:
        return rpc.ModerationServiceStub(channel).Explain(
            pb.ExplainRequest(decision_id=decision_id), metadata=as_tenant(tenant), timeout=_SECONDS
        )


def show(evidence: pb.ExplainResponse, console: Console, *, as_json: bool = False) -> None:
    """A summary, the scores beside their thresholds, and the words of the models' own vocabulary that moved them."""
    if as_json:
        console.out(MessageToJson(evidence, preserving_proto_field_name=True), highlight=False)
        return
    verdict = evidence.verdict
    console.print(evidence.summary, highlight=False, markup=False, soft_wrap=True)
    console.print(_scores(verdict))
    for contribution in evidence.contributions:
        line = f"  {contribution.category}: {contribution.weight:+.3f} {contribution.feature}"
        console.print(line, highlight=False, markup=False)
    for check in verdict.skipped:
        console.print(f"  not checked: {check.check} ({check.reason})", highlight=False, markup=False)
    policy = f"policy {verdict.policy_id}@{verdict.policy_version} {evidence.policy_digest}"
    models = "".join(f"\n  {name} {digest}" for name, digest in sorted(verdict.model_digests.items()))
    console.print(f"request {evidence.request_id}\n{policy}{models}", highlight=False, markup=False, soft_wrap=True)


def _scores(verdict: verdict_pb2.Verdict) -> Table:
    table = Table("category", "score", "threshold", "asks for", "detector")
    for score in sorted(verdict.scores, key=lambda one: -one.score):
        reached = score.score >= score.threshold
        action = verdict_pb2.Action.Name(score.action).removeprefix("ACTION_").lower() if reached else "-"
        table.add_row(score.category, f"{score.score:.3f}", f"{score.threshold:.3f}", action, score.detector)
    return table

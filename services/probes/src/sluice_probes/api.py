"""ProbeService over the prober."""

from __future__ import annotations

from typing import Any

import grpc
from sluice.probe.v1 import probe_service_pb2 as pb
from sluice.probe.v1 import probe_service_pb2_grpc as pb_grpc
from sluice_kit.errors import NotFound, ResourceExhausted

from sluice_probes.adapters.prober import Prober
from sluice_probes.domain.canaries import KINDS, ORIGINS
from sluice_probes.domain.findings import ROUTES, guards_of

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["ProbeService"].full_name
MOST_WAITING = 8


class ProbeService(pb_grpc.ProbeServiceServicer):
    """Answers what is tried and what was found."""

    def __init__(self, prober: Prober, *, interval: float) -> None:
        self._prober, self._interval, self._waiting = prober, interval, 0

    async def ListProbes(self, request: pb.ListProbesRequest, context: Any) -> pb.ListProbesResponse:
        """What a round tries."""
        answer = pb.ListProbesResponse(
            probes=[pb.Probe(route=route, guards=guards_of(route)) for route in ROUTES],
            kinds=KINDS,
            name_origins=ORIGINS,
        )
        answer.interval.FromMilliseconds(int(self._interval * 1000))
        return answer

    async def RunProbes(self, request: pb.RunProbesRequest, context: grpc.aio.ServicerContext) -> pb.RunProbesResponse:
        """A round now, or the one that runs. Raises ResourceExhausted."""
        if self._waiting >= MOST_WAITING:
            raise ResourceExhausted("Rounds of self-tests wait already; try again in a minute.", retry_after_seconds=60)
        self._waiting += 1
        try:
            return pb.RunProbesResponse(report=await self._prober.run_one())
        finally:
            self._waiting -= 1

    async def GetProbeReport(self, request: pb.GetProbeReportRequest, context: Any) -> pb.GetProbeReportResponse:
        """The newest round. Raises NotFound."""
        if self._prober.newest is None:
            raise NotFound("No round of self-tests has ended yet; ask RunProbes for one.")
        return pb.GetProbeReportResponse(report=self._prober.newest)

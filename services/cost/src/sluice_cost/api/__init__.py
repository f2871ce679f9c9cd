"""CostService over gRPC: proto <-> domain.

Called from inside the mesh only. A call with `x-sluice-tenant-id` in its metadata acts for that tenant and sees its
spend alone; a call without one is an operator's.
"""

from sluice_cost.api.servicer import CostServicer

__all__ = ["CostServicer"]

"""All policies in force, and which of them a call is judged by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from sluice_moderation.domain.policy import Policy

DEFAULT_POLICY = "general"


@dataclass(frozen=True)
class PolicySet:
    """Policies by id. At most one that is enforced belongs to a tenant."""

    by_id: Mapping[str, Policy]

    def for_call(self, tenant_id: str, policy_id: str) -> Policy | None:
        """The named policy, or without a name the tenant's own, or the default. None where the tenant has no such policy.

        Another tenant's policy and a shadow are as unknown as one that never was.
        """
        policy = self.by_id.get(policy_id or self._own.get(tenant_id, DEFAULT_POLICY))
        if policy is None or policy.shadow_of or not policy.belongs_to(tenant_id):
            return None
        return policy

    def shadows(self, policy_id: str, *, tenant_id: str, request_id: str) -> tuple[Policy, ...]:
        """What is judged beside a policy, for this request: the same for its input and its output."""
        return tuple(
            shadow
            for shadow in self._shadows.get(policy_id, ())
            if shadow.belongs_to(tenant_id) and is_sampled(shadow, request_id)
        )

    def visible_to(self, tenant_id: str) -> list[Policy]:
        """Policies a tenant may know of, by id."""
        return [policy for _, policy in sorted(self.by_id.items()) if self._is_visible(policy, tenant_id)]

    def _is_visible(self, policy: Policy, tenant_id: str) -> bool:
        """A shadow is seen by whoever sees the policy beside which it is judged."""
        beside = self.by_id.get(policy.shadow_of)
        return policy.belongs_to(tenant_id) and (beside is None or beside.belongs_to(tenant_id))

    @cached_property
    def _own(self) -> dict[str, str]:
        return {tenant: p.policy_id for p in self.by_id.values() if not p.shadow_of for tenant in p.tenants}

    @cached_property
    def _shadows(self) -> dict[str, list[Policy]]:
        shadows: dict[str, list[Policy]] = {}
        for _, policy in sorted(self.by_id.items()):
            if policy.shadow_of:
                shadows.setdefault(policy.shadow_of, []).append(policy)
        return shadows


def is_sampled(policy: Policy, request_id: str) -> bool:
    """Whether a request falls into the policy's sample; a hash decides, so that every call of a request decides alike."""
    drawn = hashlib.blake2b(f"{policy.policy_id}\0{request_id}".encode(), digest_size=8).digest()
    return int.from_bytes(drawn, "big") < policy.sample * 2**64

"""The policies in force: which of them a caller may use, and which it gets without naming one."""

from collections.abc import Iterable, Iterator

from .policy import Policy

DEFAULT = "default"


class NoSuchPolicy(LookupError):
    """There is none of this id for this tenant. The message names those there are."""


class PolicyBook:
    """Policies by id. One that names tenants exists for nobody else."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        """Raises ValueError if an id stands twice, two policies name one tenant, or there is no `default` for all."""
        self._by_id: dict[str, Policy] = {}
        self._by_tenant: dict[str, Policy] = {}
        for policy in policies:
            if policy.id in self._by_id:
                raise ValueError(f"policy {policy.id} stands there twice")
            self._by_id[policy.id] = policy
            for tenant in policy.tenants:
                if tenant in self._by_tenant:
                    raise ValueError(f"tenant {tenant} has two policies: {self._by_tenant[tenant].id} and {policy.id}")
                self._by_tenant[tenant] = policy
        if DEFAULT not in self._by_id or self._by_id[DEFAULT].tenants:
            raise ValueError("there must be a policy `default` that names no tenants")

    def __iter__(self) -> Iterator[Policy]:
        return iter(self._by_id.values())

    def find(self, policy_id: str, *, tenant: str = "") -> Policy:
        """The policy of that id; with an empty one the tenant's own, else `default`. Raises NoSuchPolicy.

        Another tenant's policy is answered with the same words as one that nobody has.
        """
        if not policy_id:
            return self._by_tenant.get(tenant, self._by_id[DEFAULT])
        policy = self._by_id.get(policy_id)
        if policy is None or not _is_for(policy, tenant):
            known = ", ".join(sorted(one.id for one in self if _is_for(one, tenant)))
            raise NoSuchPolicy(f"there is no such policy; policies are {known}")
        return policy


def _is_for(policy: Policy, tenant: str) -> bool:
    return not policy.tenants or tenant in policy.tenants

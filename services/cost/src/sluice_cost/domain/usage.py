"""What a request consumed, in buckets that never overlap."""

from dataclasses import dataclass

# No request has a billion tokens: a larger number is a broken event, and could overflow a 64-bit amount.
LARGEST_TOKEN_COUNT = 10**9
# Nor does one compute for more than a month (in microseconds): at the largest price a second its cost still fits such an amount.
LONGEST_COMPUTE_US = 31 * 86_400 * 10**6


class AbsurdUsage(ValueError):
    """A token count or a time that no request can have."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens in disjoint buckets: their sum is what the model processed."""

    uncached_input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    is_estimated: bool = False
    """The backend gave no usage and Sluice counted for itself."""
    cpu_us: int = 0
    """Processor time in microseconds, shared by batch occupancy."""
    accelerator_us: int = 0
    """Accelerator time in microseconds, shared by batch occupancy."""

    def __post_init__(self) -> None:
        for name in TOKEN_BUCKETS:
            count = getattr(self, name)
            if not 0 <= count <= LARGEST_TOKEN_COUNT:
                raise AbsurdUsage(f"{name} is {count}; it must be 0 to {LARGEST_TOKEN_COUNT}")
        for name in COMPUTE_BUCKETS:
            if not 0 <= getattr(self, name) <= LONGEST_COMPUTE_US:
                raise AbsurdUsage(f"{name} is {getattr(self, name)}; it must be 0 to {LONGEST_COMPUTE_US}")

    @property
    def total_tokens(self) -> int:
        return (
            self.uncached_input_tokens
            + self.cached_input_tokens
            + self.cache_write_tokens
            + self.output_tokens
            + self.reasoning_tokens
        )

    @property
    def input_tokens(self) -> int:
        """All that was read, cached or not: what tiers go by."""
        return self.uncached_input_tokens + self.cached_input_tokens + self.cache_write_tokens

    @property
    def is_nothing(self) -> bool:
        """True when there is nothing to charge for."""
        return self.total_tokens == 0 and self.cpu_us == 0 and self.accelerator_us == 0


TOKEN_BUCKETS = (
    "uncached_input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
)
COMPUTE_BUCKETS = ("cpu_us", "accelerator_us")

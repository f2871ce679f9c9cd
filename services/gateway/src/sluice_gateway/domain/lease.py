"""One slice of a budget: what runs on it may cost at most what was leased."""

from dataclasses import dataclass, field

from sluice_gateway.domain.chat import Usage
from sluice_gateway.domain.pricing import Price, cost_of, output_that_fits, worst_case
from sluice_gateway.domain.size import Size

# For so long after its end it is of use to say what a lease was spent on, if the cost service was away before.
TELL_SECONDS = 120.0


@dataclass(slots=True)
class Lease:
    """Worst cases of what runs plus the cost of what ended never exceed `amount` (nano-units). Times are clock seconds."""

    id: str
    amount: int
    price: Price
    expires_at: float
    used_at: float
    spent: int = 0
    running: dict[str, int] = field(default_factory=dict)
    is_closed: bool = False
    """No request begins on it any more; what is not committed belongs to the budgets again."""
    told: int | None = None
    """What the cost service was last told to be committed; None before it was given back."""

    @property
    def committed(self) -> int:
        """What requests on it cost or may still cost."""
        return self.spent + sum(self.running.values())

    @property
    def room(self) -> int:
        return self.amount - self.committed

    def is_open(self, now: float) -> bool:
        """Whether a request may still begin on it."""
        return not self.is_closed and now < self.expires_at

    def must_be_told(self, now: float) -> bool:
        """Whether the cost service counts more for it than it can still cost, and would listen."""
        is_of_use = bool(self.running) or now < self.expires_at + TELL_SECONDS
        is_less = self.told is None or self.committed < self.told
        return self.is_closed and is_less and is_of_use

    def output_tokens_for(self, size: Size) -> int:
        """How many of the wished-for output tokens fit; -1 when not even the prompt does."""
        return output_that_fits(self.price, self.room, prompt_tokens=size.prompt_tokens, most=size.output_tokens)

    def begin(self, request_id: str, size: Size, output_tokens: int, now: float) -> None:
        """Count a request's worst case."""
        self.running[request_id] = worst_case(self.price, prompt_tokens=size.prompt_tokens, output_tokens=output_tokens)
        self.used_at = now

    def end(self, request_id: str, usage: Usage | None) -> bool:
        """Count what it cost instead. False when that was more than its worst case, which is a wrong bound."""
        most = self.running.pop(request_id)
        cost = cost_of(usage, self.price) if usage else 0
        self.spent += cost
        return cost <= most

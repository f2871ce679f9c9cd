"""What a request may cost and what it did, at a lease's price: the cost service's arithmetic, held to it by tests/contracts."""

from dataclasses import dataclass

from sluice_gateway.domain.chat import Usage

TOKENS_PER_PRICE = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """What one model costs. Token prices are nano-units of the currency per million tokens, the others nano-units."""

    currency: str
    uncached_input: int
    cached_input: int
    cache_write: int
    output: int
    reasoning: int
    per_request: int = 0
    minimum: int = 0


def cost_of(usage: Usage, price: Price) -> int:
    """What the ledger will charge, in nano-units: one line a bucket, each rounded once, half-even."""
    tokens = usage.input_tokens + usage.output_tokens + usage.reasoning_tokens
    if not tokens:
        return 0
    lines = (
        _line(usage.uncached_input_tokens, price.uncached_input),
        _line(usage.cached_input_tokens, price.cached_input),
        _line(usage.cache_write_tokens, price.cache_write),
        _line(usage.output_tokens, price.output),
        _line(usage.reasoning_tokens, price.reasoning),
    )
    return max(sum(lines) + price.per_request, price.minimum)


def worst_case(price: Price, *, prompt_tokens: int, output_tokens: int) -> int:
    """The most that so many tokens can cost, in nano-units, in whichever buckets they come."""
    tokens = _at_most(prompt_tokens, (price.uncached_input, price.cached_input, price.cache_write))
    tokens += _at_most(output_tokens, (price.output, price.reasoning))
    return max(price.minimum, price.per_request + tokens)


def output_that_fits(price: Price, room: int, *, prompt_tokens: int, most: int) -> int:
    """The most output tokens, up to `most`, whose worst case is within `room`; -1 when it does not even cover the prompt."""
    if worst_case(price, prompt_tokens=prompt_tokens, output_tokens=most) <= room:
        return most
    low, high = -1, most - 1
    while low < high:
        middle = (low + high + 1) // 2
        if worst_case(price, prompt_tokens=prompt_tokens, output_tokens=middle) <= room:
            low = middle
        else:
            high = middle - 1
    return low


def _at_most(tokens: int, prices: tuple[int, ...]) -> int:
    # The ledger rounds each bucket: split over three of them, the roundings can add up to a nano-unit and a half.
    # A whole number of nano-units a token is never rounded.
    is_rounded = tokens > 1 and any(price % TOKENS_PER_PRICE for price in prices)
    return -(-tokens * max(prices) // TOKENS_PER_PRICE) + is_rounded


def _line(tokens: int, nano_per_million: int) -> int:
    return _divide_half_even(tokens * nano_per_million, TOKENS_PER_PRICE)


def _divide_half_even(numerator: int, denominator: int) -> int:
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    return quotient + (twice > denominator or (twice == denominator and quotient % 2 == 1))

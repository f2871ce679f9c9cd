"""Integer nano-units: the only form in which Sluice adds money up."""

from decimal import ROUND_HALF_EVEN, Decimal

NANO_PER_UNIT = 10**9


def to_nano(amount: Decimal) -> int:
    """Amount in currency units -> nano-units, half-even. Exact for up to nine decimal places."""
    return int((amount * NANO_PER_UNIT).to_integral_value(rounding=ROUND_HALF_EVEN))


def from_nano(nano_units: int) -> Decimal:
    """Nano-units -> currency units, exact."""
    return Decimal(nano_units) / NANO_PER_UNIT


def divide_half_even(numerator: int, denominator: int) -> int:
    """Integer division that rounds half to even, so that rounding favours neither side over many lines.

    `denominator` must be positive.
    """
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    is_nearer_to_next = twice > denominator or (twice == denominator and quotient % 2 == 1)
    return quotient + is_nearer_to_next

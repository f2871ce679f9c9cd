"""Token counts on the wire."""

from sluice.types.v1 import usage_pb2

from sluice_gateway.domain.chat import Usage


def usage_message(usage: Usage | None) -> usage_pb2.TokenUsage | None:
    """The counts as a message; none for none."""
    if usage is None:
        return None
    return usage_pb2.TokenUsage(
        uncached_input_tokens=usage.uncached_input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        estimated=usage.estimated,
    )

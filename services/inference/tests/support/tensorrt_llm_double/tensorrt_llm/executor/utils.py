"""Errors that concern one request."""


class RequestError(RuntimeError):
    """This request only."""

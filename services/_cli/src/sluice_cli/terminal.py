"""What the commands print to."""

import os
import sys

from rich.console import Console

_PIPED_COLUMNS = 160


def console() -> Console:
    """As wide as the terminal; where there is none (a pipe, a file), wide enough that no table is cut. COLUMNS overrides it."""
    is_measured = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if is_measured else _PIPED_COLUMNS)

"""What the tests of the judge share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .judge_world import World


@pytest.fixture
def world(tmp_path: Path) -> Callable[..., World]:
    return lambda **changes: World(tmp_path, **changes)

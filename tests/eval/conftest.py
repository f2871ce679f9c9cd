"""Lets the tests import the package `filters` as the commands of this folder do."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

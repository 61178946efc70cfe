"""Tests of the evaluation share `examples.py`, which is imported by that name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

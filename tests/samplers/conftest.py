"""Tests of samplers share `linear.py`, which is imported by that name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

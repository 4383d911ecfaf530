"""The studies import what they share from their own folder, as Python does for a script that is run."""

import sys
from pathlib import Path

DEMOS = Path(__file__).resolve().parents[2] / "demos"
sys.path[:0] = [str(DEMOS / "lattices"), str(DEMOS / "crystal"), str(DEMOS / "anvil")]

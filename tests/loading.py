"""Files that lie in no package as modules: demos, and what tests share. No other file of the tests loads one by hand.

The fixture `demo` of `tests/demos/conftest.py` gives a module of tests the demo that it names as DEMO.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

DEMOS = Path(__file__).resolve().parents[1] / "demos"


def load_file(path: Path, name: str = "") -> ModuleType:
    """Run a file and return it as a module, a new one at each call.

    Args:
        path: The file. It may import what lies beside it, as a script that is run may.
        name: Name of the module; by default that of the file after "loaded_", which hides no other module.
    """
    name = name or f"loaded_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up, and inspect the file of a class
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def load_demo(path: str) -> ModuleType:
    """Load a file by its path in `demos`, for example "lattices/torsion.py"."""
    return load_file(DEMOS / path)

"""The digest of a law: whether two laws compute with the same constants, weights and code name.

A checkpoint keeps it, so that a run does not go on with a law that was trained again or has other constants.
"""

from __future__ import annotations

import hashlib
import types
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

DEEPEST = 8  # of objects in objects; what lies deeper does not count
PLAIN = (type(None), bool, int, float, complex, str, bytes, np.generic)


def law_digest(law: object) -> str:
    """SHA-256 digest of a law, the same in every process.

    Of an artifact it is that of its content hash and of the precision in which it is evaluated. Of any other law it is
    that of its class and attributes: numbers, texts, arrays, weights of a network, and objects of these. Attributes
    that begin with an underscore and hold a list or a dictionary are taken for caches and do not count; a law that
    keeps counters must begin their names so, too, and keep them in such a container.

    Args:
        law: The law, or another object that holds constants.
    """
    manifest = getattr(law, "manifest", None)
    stored = getattr(manifest, "hash", None)
    found = hashlib.sha256()
    if isinstance(stored, str):
        found.update(f"artifact {stored} {getattr(manifest, 'dtype', '')}".encode())
    else:
        _feed(found, law, 0)
    return found.hexdigest()


def _feed(found: Any, value: object, depth: int) -> None:
    """Add a value to a digest."""
    kind = type(value)
    found.update(f"<{kind.__qualname__}>".encode())
    if isinstance(value, PLAIN):
        found.update(repr(value.item() if isinstance(value, np.generic) else value).encode())
    elif isinstance(value, np.ndarray):
        found.update(f"{value.dtype.str}{value.shape}".encode())
        found.update(np.ascontiguousarray(value).tobytes() if value.dtype.kind != "O" else b"")
    elif depth >= DEEPEST or isinstance(value, (types.ModuleType, type)) or "ctypes" in kind.__module__:
        found.update(getattr(value, "__qualname__", "").encode())
    elif isinstance(value, (tuple, list)):
        for item in value:
            _feed(found, item, depth + 1)
    elif isinstance(value, (set, frozenset)):
        for text in sorted(map(repr, value)):
            found.update(text.encode())
    elif isinstance(value, dict):
        for key in sorted(value, key=repr):
            found.update(repr(key).encode())
            _feed(found, value[key], depth + 1)
    elif callable(getattr(value, "state_dict", None)):
        _feed_module(found, value, depth)
    elif is_dataclass(value):
        for item in fields(value):
            found.update(item.name.encode())
            _feed(found, getattr(value, item.name), depth + 1)
    elif isinstance(value, (types.FunctionType, types.MethodType)):
        found.update(value.__qualname__.encode())
    else:
        _feed_attributes(found, value, depth)


def _feed_attributes(found: Any, value: object, depth: int) -> None:
    for name, item in sorted(getattr(value, "__dict__", {}).items()):
        if name != "source" and not (name.startswith("_") and isinstance(item, (list, dict, set))):
            found.update(name.encode())
            _feed(found, item, depth + 1)


def _feed_module(found: Any, module: Any, depth: int) -> None:
    """Add the weights of a PyTorch module, and its plain attributes."""
    for name, tensor in sorted(module.state_dict().items()):
        found.update(name.encode())
        if hasattr(tensor, "detach"):
            _feed(found, tensor.detach().cpu().numpy(), depth + 1)
    for name, part in module.named_modules():
        for key, item in sorted(getattr(part, "__dict__", {}).items()):
            if isinstance(item, PLAIN) and not key.startswith("_"):
                found.update(f"{name}.{key}={item!r}".encode())

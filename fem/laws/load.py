"""Laws by name: shipped laws, parameter sets of the classical laws, artifacts, and laws of one's own."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import logging
import sys
from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any, cast

from mpi4py import MPI

from fem.laws.j2 import J2
from fem.laws.johnson_cook import JohnsonCook, read_parameters
from fem.laws.law import Law
from fem.laws.linear_elastic import LinearElastic
from fem.laws.materials import FITTED, SETS
from fem.laws.neo_hookean import NeoHookean
from surrogates.artifact.shipped import find, law_names

logger = logging.getLogger(__name__)

CLASSICAL: dict[str, Any] = {law.name: law for law in (NeoHookean, J2, JohnsonCook, LinearElastic)}
# Parameter sets of finite and of small strain.
FINITE = (*(name for name, chosen in SETS.items() if CLASSICAL[chosen.law].strain == "finite"), FITTED)
SMALL = tuple(name for name in SETS if name not in FINITE)
# Short names of laws that other packages make: fem knows the import string alone.
NAMED = {"taylor-polycrystal": "micro.crystal.polycrystal_law:taylor_polycrystal"}
# What the protocol requires.
WORDS = (*Law.__annotations__, *(word for word in vars(Law) if callable(getattr(Law, word)) and word[0] != "_"))


def load_law(name: str | PathLike[str] | object, **options: Any) -> Law:
    """Make a law from its name.

    Args:
        name: One of these:
            a shipped law, "magnesium-recurrent" (`python3 -m surrogates.pretrained` lists them);
            the path of an artifact (`.pt`);
            a law of another package, "taylor-polycrystal" (the table `NAMED` of import strings);
            a parameter set of a classical law, "magnesium-j2" (`fem.laws.materials`);
            a classical law with all its constants as options, "neo-hookean";
            "module:callable" or "file.py:callable" for a law of one's own: what the callable returns, a law or a
            PyTorch module;
            a law or a PyTorch module itself.
        **options: Constants of a classical law, `parameters` (a file) of Johnson-Cook, `dtype`, `chunk` and `compiled`
            of an artifact, or arguments of the callable.

    Returns:
        The law; its attribute `source` is the name and the options, for `python3 -m fem.replay`.

    Raises:
        ValueError: If there is no such law or file, or the law refuses an option.
        FileNotFoundError: If a file of parameters is not there.
    """
    if not isinstance(name, (str, PathLike)):
        return as_law(name, **options)
    law = _named(fspath(name), options)
    with contextlib.suppress(AttributeError, TypeError):  # a law may be frozen
        law.source = (fspath(name), dict(options))  # type: ignore[attr-defined]
    return law


def _named(text: str, options: dict[str, Any]) -> Law:
    """The law of a name; see `load_law`."""
    if text in SETS:
        return _classical(SETS[text].law, options, SETS[text].values())
    if text == FITTED:
        return _classical("johnson-cook", {"parameters": _shipped_file(text), **options})
    if text in CLASSICAL:
        return _classical(text, options)
    if Path(text).is_file():
        return _artifact(text, options)
    entry = find(text)
    if entry is not None:
        if not entry.is_law:
            raise ValueError(f'"{text}" is a shipped file, {entry.about}, but no law.')
        return _artifact(entry.file, options)
    if text in NAMED:
        return _own(NAMED[text], options)
    if ":" in text and not text.endswith(".pt"):
        return _own(text, options)
    raise ValueError(
        f'There is no law or artifact file "{text}"; shipped laws are {", ".join((*law_names(), *NAMED))}; '
        f'parameter sets of classical laws are {", ".join((*FINITE, *SMALL))}; '
        'a law of your own is "module:callable".'
    )


def as_law(law: object, **options: Any) -> Law:
    """A law from what a solver is given: a name, a law, or a PyTorch module.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(law, (str, PathLike)):
        return load_law(law, **options)
    if isinstance(law, Law) and not _is_module(law):
        if options:
            raise ValueError(f"{law.name} is a law already and takes no options, got {', '.join(options)}.")
        return law
    if _is_module(law):
        from fem.laws import torchscript

        accepted = _accepted(torchscript.wrap, options, type(law).__name__)
        return torchscript.wrap(law, **accepted)  # type: ignore[arg-type]
    lacks = [word for word in WORDS if not hasattr(law, word)]
    if not lacks:  # a law that delegates to another one
        return cast(Law, law)
    raise ValueError(
        f"A law must be a name, a law or a PyTorch module, got {type(law).__name__}, which lacks {', '.join(lacks)}."
    )


def _is_module(law: object) -> bool:
    torch = sys.modules.get("torch")  # where it was never imported, nothing is one of its modules
    return torch is not None and isinstance(law, torch.nn.Module)


def _accepted(function: Any, options: dict[str, Any], label: str) -> dict[str, Any]:
    """The options, if a function takes them all by name.

    Raises:
        ValueError: If one is unknown, or one without a default is missing.
    """
    known = inspect.signature(function).parameters.values()
    names = [p.name for p in known if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if unknown := [name for name in options if name not in names]:
        raise ValueError(f"{label} takes the options {', '.join(names)}, got {', '.join(unknown)}.")
    return options


def _classical(law: str, options: dict[str, Any], constants: Mapping[str, float] | None = None) -> Law:
    """A classical law; options override a file of parameters, which overrides the constants of a parameter set."""
    kind, given = CLASSICAL[law], dict(constants or {})
    if law == "johnson-cook" and "parameters" in options:
        given |= read_parameters(options["parameters"])
        options = {name: value for name, value in options.items() if name != "parameters"}
    options = given | _accepted(kind, options, law)
    required = [p.name for p in inspect.signature(kind).parameters.values() if p.default is p.empty]
    if missing := [name for name in required if name not in options]:
        sets = [name for name, chosen in SETS.items() if chosen.law == law]
        sets += [FITTED] if law == "johnson-cook" else []
        raise ValueError(
            f"The law {law} needs {', '.join(missing)}; give them, or ask for a parameter set by its name: "
            f"{', '.join(sets)}."
        )
    made: Law = kind(**options)
    return made


def _shipped_file(name: str) -> Path:
    entry = find(name)
    if entry is None:
        raise ValueError(f'The file of the parameter set "{name}" is not there.')
    return entry.file


def _artifact(path: str | PathLike[str], options: dict[str, Any]) -> Law:
    from fem.laws import torchscript

    law = torchscript.read_law(path, **_accepted(torchscript.read_law, options, "An artifact"))
    if MPI.COMM_WORLD.rank == 0:
        logger.info(law.summary())
    return law


def _own(name: str, options: dict[str, Any]) -> Law:
    """The law that "module:callable" makes.

    Raises:
        ValueError: If there is no such module or callable, or what it returns is no law.
    """
    module, _, attribute = name.rpartition(":")
    try:
        maker: Any = _module_of_file(Path(module)) if module.endswith(".py") else importlib.import_module(module)
    except (ImportError, OSError, ValueError, TypeError, SyntaxError) as error:
        raise ValueError(f'The module "{module}" of the law "{name}" cannot be imported: {error}') from error
    for word in attribute.split("."):
        maker = getattr(maker, word, None)
    if not callable(maker):
        raise ValueError(f'The module "{module}" has no callable "{attribute}".')
    try:
        inspect.signature(maker).bind(**options)
    except TypeError as error:
        raise ValueError(f'The callable of the law "{name}" does not take these options: {error}.') from error
    made = maker(**options)
    if isinstance(made, (str, PathLike)):
        raise ValueError(f"The callable of the law \"{name}\" must return a law or a PyTorch module, got {made!r}.")
    return as_law(made)


def _module_of_file(path: Path) -> Any:
    """Import a file that lies in no package."""
    if not path.is_file():
        raise ImportError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # TorchScript and pickle look a class up by the name of its module
    spec.loader.exec_module(module)
    return module

"""Evaluate again the material point at which a run has failed.

    python3 -m fem.replay results/impact/failure-replay.npz
    python3 -m fem.replay FILE --law law.pt --law-options dtype=float64

The file holds what the law was given in the step that failed: F at its start and its end, the state at its start, and
the step. The command loads the law as the run did, or another one, evaluates the point, prints what comes out and cuts
the step in halves, to show from which size on the law works.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

from fem.command import Parser, finish, name_value_pairs
from fem.laws import load_law


@dataclass(frozen=True)
class Replay:
    """What a law was given where it failed.

    Attributes:
        F_n, F: Deformation gradients at the start and the end of the step, (n, d, d).
        state: States at its start, (n, k).
        dt: The step, s. time: Its start, s.
        law: Name of the law. source: How it was asked for, a name and options; None is not known.
        method: Method of the law that was called. reason: The sentence of the failure.
    """

    F_n: np.ndarray
    F: np.ndarray
    state: np.ndarray
    dt: float
    time: float
    law: str
    source: tuple[str, dict[str, Any]] | None
    method: str
    reason: str


def read(path: Path) -> Replay:
    """Read a replay file.

    Raises:
        ValueError: If it is none.
    """
    if not path.is_file():
        raise ValueError(f"There is no replay file {path}.")
    try:
        with np.load(path) as found:
            source = json.loads(str(found["source"]))
            values: dict[str, Any] = {name: np.asarray(found[name], dtype=float) for name in ("F_n", "F", "state")}
            values |= {name: float(found[name]) for name in ("dt", "time")}
            values |= {name: str(found[name]) for name in ("law", "method", "reason")}
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a replay file: {' '.join(str(error).split())}.") from error
    return Replay(**values, source=None if source is None else (source[0], dict(source[1])))


def trouble(F: np.ndarray, values: dict[str, np.ndarray] | None, error: str) -> str:
    """What is wrong with an evaluation, in words; empty if nothing is."""
    if values is None:
        return f"the law raises: {error}"
    if not np.linalg.det(F) > 0.0:
        return f"det F = {np.linalg.det(F):.6g} is not positive"
    for name, array in values.items():
        wrong = np.argwhere(~np.isfinite(array))
        if len(wrong):
            return f"{name}{wrong[0].tolist()} = {array[tuple(wrong[0])]} is the first value that is not finite"
    return ""


def evaluate(
    law: Any, method: str, F: np.ndarray, state: np.ndarray, dt: float
) -> tuple[dict[str, np.ndarray] | None, str]:
    """Results of the law at one point, F (d, d) and state (k,), by name; None and the error if it raises."""
    try:
        out = getattr(law, method)(F[None].copy(), state[None].copy(), dt)
    except Exception as error:  # a law may fail in any way
        return None, f"{type(error).__name__}: {error}"
    names = ("P", "state", "dP_dF")
    return {name: np.asarray(value)[0] for name, value in zip(names, out, strict=False)}, ""


def matrix(A: np.ndarray) -> str:
    """The rows of a matrix, one a line."""
    return "\n".join("    " + "  ".join(f"{value: .10e}" for value in row) for row in A)


def describe(F: np.ndarray, values: dict[str, np.ndarray] | None) -> list[str]:
    """Kinematics of a point and, if there are any, the results of the law there."""
    stretches = np.linalg.svd(F, compute_uv=False) if np.isfinite(F).all() else np.full(len(F), np.nan)
    J = float(np.linalg.det(F))
    lines = [f"F =\n{matrix(F)}", f"det F = {J:.10g}", f"principal stretches {_list(stretches)}"]
    if values is None:
        return lines
    P = values["P"]
    lines += [f"P (Pa) =\n{matrix(P)}"]
    if np.isfinite(P).all() and J > 0.0:
        sigma = P @ F.T / J
        lines += [f"principal Cauchy stresses (Pa) {_list(np.linalg.eigvalsh(0.5 * (sigma + sigma.T)))}"]
    if "dP_dF" in values and np.isfinite(values["dP_dF"]).all():
        tangent = values["dP_dF"].reshape(F.size, F.size)
        ends = np.linalg.eigvalsh(0.5 * (tangent + tangent.T))[[0, -1]]
        lines += [f"least and largest eigenvalue of the tangent (Pa) {_list(ends)}"]
    return [*lines, f"state after {_list(values['state'])}"]


def _list(values: np.ndarray) -> str:
    return " ".join(f"{value:.6g}" for value in np.atleast_1d(values))


def halvings(law: Any, method: str, point: tuple[np.ndarray, ...], dt: float, most: int) -> list[str]:
    """Cut the step of a point (F_n, F, state) in halves, and tell what each first part and all in a row give."""
    F_n, F, state = point
    lines = []
    for cut in range(1, most + 1):
        parts = 2**cut
        now, failed = state, ""
        for k in range(1, parts + 1):
            F_k = F_n + (F - F_n) * (k / parts)
            values, error = evaluate(law, method, F_k, now, dt / parts)
            wrong = trouble(F_k, values, error)
            if wrong or values is None:
                failed = f"part {k} of {parts} fails, where {wrong}"
                break
            now = values["state"]
        first = "" if failed.startswith("part 1 ") else "its first part works"
        lines.append(f"step / {parts}, dt = {dt / parts:.4g} s: " + ("all parts work." if not failed else
                     ", ".join(filter(None, [first, failed])) + "."))
        if not failed:
            lines.append(f"The law works from the step {dt / parts:.4g} s on, 1/{parts} of the one that failed.")
            return lines
    return [*lines, f"The law does not get through the step in {2**most} parts."]


def report(found: Replay, law: Any, most: int) -> list[str]:
    """The lines that the command prints."""
    lines = [f"The run stopped: {found.reason}", f"Law {law.name}, method {found.method}."]
    for n in range(len(found.F)):
        F, state = found.F[n], found.state[n]
        values, error = evaluate(law, found.method, F, state, found.dt)
        wrong = trouble(F, values, error)
        if not wrong and n + 1 < len(found.F):
            continue  # a file of all points of a rank: show the first that fails, or the last
        start = f"Point {n} of {len(found.F)} at time {found.time:.6g} s, dt = {found.dt:.6g} s:"
        lines += [start, f"state before {_list(state)}", f"At the start of the step F_n =\n{matrix(found.F_n[n])}"]
        lines += ["At its end:", *describe(F, values)]
        if not wrong:
            return [*lines, "The law gives finite values at this point."]
        lines.append(f"The point fails: {wrong}.")
        return lines + halvings(law, found.method, (found.F_n[n], F, state), found.dt, most)
    return [*lines, "The file holds no points."]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    p = Parser(prog="python3 -m fem.replay", description="Evaluate the point at which a run has failed again.")
    p.add_argument("file", type=Path, help="failure-replay.npz of the run")
    p.add_argument("--law", help="law to evaluate; none: that of the run")
    p.add_argument("--law-options", default="", help="options of --law, name=value,name=value")
    p.add_argument("--halvings", type=int, default=10, help="how often the step is cut in halves at most")
    o = p.parse_args(arguments)
    if not 0 <= o.halvings <= 20:
        raise ValueError(f"--halvings must be between 0 and 20, got {o.halvings}.")
    return o


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""

    def work() -> None:
        o = parse(arguments)
        found = read(o.file)
        if o.law is None and found.source is None:
            raise ValueError(f"{o.file} does not tell how its law {found.law} was made; name it by --law.")
        name, chosen = found.source or ("", {})
        if o.law is not None:
            name, chosen = o.law, name_value_pairs("--law-options", o.law_options)
        law = load_law(name, **chosen)
        if law.state_size != found.state.shape[1]:
            raise ValueError(
                f"The law of {o.file} must have a state of {found.state.shape[1]} numbers, {law.name} has "
                f"{law.state_size}."
            )
        sys.stdout.write("\n".join(report(found, law, o.halvings)) + "\n")

    return finish(MPI.COMM_SELF, work)


if __name__ == "__main__":
    sys.exit(main())

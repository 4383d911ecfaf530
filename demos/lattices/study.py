"""Study: a load case solved three times (the lattice, the box with the exact law, the box with the law asked for).

What the law has to answer for (`_learned`: law against exact law) stands apart from what homogenisation and mesh err
(`_exact`: exact law against lattice). A study module says what is its own: cases, checks, figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comparison import Outcome, costs, errors, imbalance, newton_summary, of_box, of_lattice, values
from load_cases import CASES, LoadCase
from loaded import LoadedBox, LoadedLattice
from models import Laws, go_on, lead, make_domain, make_lattice, warm_up
from mpi4py import MPI
from options import MESH, check_sizes
from tqdm import tqdm
from two_scale import bars_at

from fem.command import Stop, remove, together, write_text
from fem.io.fields import surface
from fem.threads import plan_threads

SWEEP = (1, 2, 4, 8, 16, 20)  # cells per side of a study
COMPARED = (("", "law", "lattice"), ("_exact", "exact", "lattice"), ("_learned", "law", "exact"))
Checks = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Found:
    """What was found for one load case; lists and panels are on rank 0 only where they hold arrays.

    Attributes:
        case: The load case.
        reports: For each number of cells.
        outcomes: For each number of cells: run -> outcome.
        bars: For each number of cells: run -> stress of the bars that end at the control point.
        panels: Pseudo-time -> skin of the box with the law (`fem.io.fields.surface`).
    """

    case: LoadCase
    reports: list[dict[str, Any]]
    outcomes: list[dict[str, Outcome]] = field(default_factory=list)
    bars: list[dict[str, Any]] = field(default_factory=list)
    panels: dict[float, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """What a study has of its own.

    Attributes:
        checks: Report, laws, case -> checks besides those of the work and of the law.
        draw: Folder, options, found by case, place of --n in the lists: writes the figures (rank 0).
        report: Outcomes by run, case, laws, options -> further entries of a report (rank 0).
        admit: Laws, options: raises Stop if the law does not do (collective).
        panels: Case, options -> pseudo-times at which the skin is kept.
        sweep: Cells per side with --study.
    """

    checks: Callable[[dict[str, Any], Laws, LoadCase], Checks]
    draw: Callable[[Path, argparse.Namespace, dict[str, Found], int], None]
    report: Callable[[dict[str, Outcome], LoadCase, Laws, argparse.Namespace], dict[str, Any]] = lambda *_: {}
    admit: Callable[[Laws, argparse.Namespace], None] = lambda *_: None
    panels: Callable[[LoadCase, argparse.Namespace], Sequence[float]] = lambda case, _: (case.end,)
    sweep: Sequence[int] = SWEEP


def solve(comm: MPI.Comm, o: argparse.Namespace, study: Study, laws: Laws, case: LoadCase, ns: Sequence[int]) -> Found:
    """One load case: boxes once, then every lattice (collective)."""
    folder, domain = Path(o.output), make_domain(comm, case, o, o.size)
    found, boxes = Found(case, []), {}
    names = ("exact", "law") if laws.exact is not laws.law else ("law",)
    for name in names:
        body = LoadedBox(domain, getattr(laws, name), case, degree=o.degree, linear=o.linear, output=folder)
        follow_box(o, study, body, name, found)
        boxes[name] = body
    boxes.setdefault("exact", boxes["law"])
    for n in ns:
        lattice = make_lattice(comm, laws, case, n)
        body = LoadedLattice(comm, lattice, laws.bar, case, linear=o.linear, output=folder)
        go_on(o, body, f"{case.name}-lattice-{n}")
        lead(o, body, f"{case.name}-lattice-{n}", f"{case.name}, lattice of {n}")
        outcome = {name: of_box(b, laws.cell, lattice, case.box[0] / n, body.node) for name, b in boxes.items()}
        outcome["lattice"] = of_lattice(body)
        cells = domain.mesh.topology.index_map(3).size_global
        report = {"case": case.name, "n": n, "cells": cells, **costs(boxes["law"], body)}
        if comm.rank == 0:
            for suffix, value, reference in COMPARED:
                differ = errors(outcome[value], outcome[reference], case, lattice, body.node)
                report |= {f"{key}{suffix}": error for key, error in differ.items()}
            report |= newton_summary(boxes["law"].rows)
            report["lattice_newton_iterations_max"] = newton_summary(body.rows)["newton_iterations_max"]
            report["values"] = {name: values(one) for name, one in outcome.items()}
            report["imbalance"] = {name: imbalance(one.rows) for name, one in outcome.items()}
            report |= study.report(outcome, case, laws, o)
            there = bars_at(lattice.bars, body.node)
            found.outcomes.append(outcome)
            found.bars.append({name: one.stress[there] for name, one in outcome.items()})
        found.reports.append(comm.bcast(report))
    return found


def follow_box(o: argparse.Namespace, study: Study, body: LoadedBox, name: str, found: Found) -> None:
    """Follow a load case on finite elements; of the law asked for, fields are written and panels kept (collective)."""
    case, label = body.case, f"{body.case.name}, {'exact ' * (name == 'exact')}law"
    go_on(o, body, f"{case.name}-{name}")  # before a writer is open, which could not be closed after an error
    if name == "exact":
        lead(o, body, f"{case.name}-{name}", label)
        return
    wanted = study.panels(case, o)
    with body.solver.writer(o.output) as out:

        def write(body: LoadedBox) -> None:
            out.update()
            if body.solver.time in wanted:
                found.panels[body.solver.time] = surface(out.functions)

        lead(o, body, f"{case.name}-{name}", label, each=write)
        if not body.solver.history:  # nothing was left to do after a restart
            write(body)


def standard_checks(report: dict[str, Any], checks: Checks) -> Checks:
    """The checks of a study, of the work (1e-8) and of the law against the exact law."""
    found = dict(checks)
    for run, value in report["imbalance"].items():
        found |= hold(f"work_{run}", value, 1e-8)
    for name, high in (("displacement", 0.005), ("energy", 0.005), ("dissipation", 0.02)):
        found |= hold(f"{name}_learned", report[f"{name}_error_learned"], high)
    return found


def hold(name: str, found: float, high: float) -> Checks:
    """One check: what was found, what was asked and whether it held."""
    return {name: {"found": found, "high": high, "holds": bool(found <= high)}}


def prepare(folder: Path, o: argparse.Namespace) -> None:
    """Make the folder, clear away what a former run left, hold a restart to the options it began with (rank 0)."""
    settings = {key: getattr(o, key) for key in (*MESH, "steps")} | {"law": Path(o.law).name}
    if o.restart is not None:
        begun = read_settings(Path(o.restart) / "checkpoint" / "options.json")
        wrong = [key for key, value in settings.items() if begun.get(key) != value]
        if wrong:
            key = wrong[0]
            raise ValueError(f"--restart goes on with --{key} {begun.get(key)}, but got {settings[key]}.")
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in ("summary.json", "history.json", "*.png", "fields*", "failure-*", "exact_law.*"):
        for path in folder.glob(pattern):
            remove(path)
    if o.checkpoint:
        if o.restart is None or Path(o.restart).resolve() != folder.resolve():
            remove(folder / "checkpoint")
        (folder / "checkpoint").mkdir(exist_ok=True)
        write_text(folder / "checkpoint" / "options.json", json.dumps(settings))


def read_settings(path: Path) -> dict[str, Any]:
    """The options that a run with checkpoints began with; ValueError if the file is damaged."""
    try:
        begun = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    if not isinstance(begun, dict):
        raise ValueError(f"{path} is damaged: it must hold the options by name.")
    return begun


def run(comm: MPI.Comm, o: argparse.Namespace, study: Study) -> None:
    """Laws, solves, comparison, figures, checks (collective)."""
    start, plan, folder = time.perf_counter(), plan_threads(comm, o.threads), Path(o.output)
    laws = Laws(comm, o.law)
    study.admit(laws, o)
    ns = sorted({*study.sweep, o.n}) if o.study else [o.n]
    check_sizes(comm, o, len(laws.cell.bars), ns[-1])
    together(comm, lambda: prepare(folder, o), root=True)
    laws.find_exact(comm, folder)
    if comm.rank == 0:
        tqdm.write(f"{laws.law.name}, {o.case}, n = {o.n}, {o.kind} of {o.size:g}, {plan}", file=sys.stderr)
    names = [name for name in CASES if name[:3] == o.case[:3]] if o.study else [o.case]
    warm_up(comm, o, laws, CASES[o.case])
    found: dict[str, Found] = {}
    for name in sorted(names, key=lambda name: name == o.case):  # the case asked for last: its fields stay
        found[name] = solve(comm, o, study, laws, CASES[name], ns)
    rows = {f"{name}_{row['n']}": (row, found[name].case) for name in sorted(found) for row in found[name].reports}
    held = {key: standard_checks(row, study.checks(row, laws, case)) for key, (row, case) in rows.items()}
    chosen = f"{o.case}_{o.n}"
    summary = {
        "law": laws.law.name, "law_source": o.law, "ranks": comm.size, **rows[chosen][0],
        **{key: getattr(o, key) for key in MESH}, "load_steps": len(CASES[o.case].times(o.steps)),
        "wall_seconds": time.perf_counter() - start, "checks": held[chosen],
    }  # fmt: skip
    if o.study:
        summary["study"] = [row for row, _ in rows.values()]

    def write() -> None:
        study.draw(folder, o, {name: found[name] for name in sorted(found)}, ns.index(o.n))
        write_text(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
        sys.stdout.write(sentence(summary))

    together(comm, write, root=True)
    failed = [f"{key} {name}: {e}" for key, entries in held.items() for name, e in entries.items() if not e["holds"]]
    if failed:
        raise Stop(f"The run does not pass its check of {'; '.join(failed)}.", code=1)


def sentence(s: dict[str, Any]) -> str:
    """The summary in a few lines."""
    keys = ("displacement", "energy", "dissipation", "bar_stress")
    labels = ("law against lattice", "exact law against lattice", "law against exact law")
    lines = [f"{s['case']}, n = {s['n']}, {s['cells']} cells; errors in %:"]
    for (suffix, _, _), label in zip(COMPARED, labels, strict=True):
        lines.append(f"  {label}: " + ", ".join(f"{key} {100 * s[f'{key}_error{suffix}']:.3g}" for key in keys))
    lines.append(
        f"  lattice over box: calls {s['cost_ratio_calls']:.1f}, seconds {s['cost_ratio_seconds']:.1f}; "
        f"Newton iterations at most {s['newton_iterations_max']}; {s['wall_seconds']:.0f} s."
    )
    return "\n".join(lines) + "\n"

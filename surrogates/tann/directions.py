"""Directions: the axes of a space of internal variables along which single variables move.

Internal variables are found as a space first, whose axes are arbitrary. Dissipation is a sum over single mechanisms;
in the axes of the mechanisms most of them rest in most steps; this tells these axes from all others.
"""

import torch
from torch import Tensor

REPEATED = 1e-6  # angle under which two directions are the same


def single_directions(change: Tensor, dissipation: Tensor, wanted: int, *, most: int = 6000) -> Tensor:
    """Directions (N, r) in which single variables move, up to sign.

    A direction that repeats exactly among the steps is that of one variable: two that move together keep no ratio.
    Those found are projected out, and directions that repeat in what is left are of one new variable beside known ones;
    each known one rests in some of these steps, so that the part along it that comes most often is the new one's own.

    Args:
        change: changes (S, r) of the coordinates in whitened axes, of steps that dissipate.
        dissipation: of those steps (S,).
        wanted: how many directions there should be.
        most: steps of least dissipation that are compared at once.

    Returns:
        The directions found; fewer than wanted where the walks do not tell.
    """
    change = change / change.norm(dim=1, keepdim=True)
    change = change[torch.argsort(dissipation)]
    found = change[:0]
    while len(found) < wanted:
        span = torch.linalg.qr(found.T).Q if len(found) else change.new_zeros(change.shape[1], 0)
        left = change - (change @ span) @ span.T
        length = left.norm(dim=1)
        rows = torch.nonzero(length > 1e-3).flatten()[:most]
        new = []
        for same in repeated(left[rows] / length[rows, None]):
            pick = rows[same]
            unit = left[pick[0]] / length[pick[0]]
            scaled = change[pick] / (left[pick] @ unit)[:, None]
            known = torch.linalg.lstsq(found.T, (scaled - unit).T).solution.T if len(found) else scaled[:, :0]
            level, share = most_frequent(known)
            if share >= 3:
                direction = unit + level @ found
                new.append(direction / direction.norm())
        if not new:
            break
        found = torch.cat([found, torch.stack(new)])[:wanted]
    return found


def most_frequent(values: Tensor) -> tuple[Tensor, int]:
    """The value of each column of (S, m) that most rows share, (m,), and how many rows share the rarest of them."""
    if values.shape[1] == 0:
        return values[0], len(values)
    ordered = values.sort(dim=0).values
    width = REPEATED * (1.0 + ordered.abs())
    upper = torch.searchsorted(ordered.T.contiguous(), (ordered + width).T.contiguous())
    count = upper - torch.arange(len(ordered))
    best = count.argmax(dim=1)
    columns = torch.arange(values.shape[1])
    middle = best + count[columns, best] // 2
    return ordered[middle.clamp(max=len(ordered) - 1), columns], int(count[columns, best].min())


def repeated(unit: Tensor, least: int = 5) -> list[Tensor]:
    """Rows of each group of at least `least` vectors (S, r) of one direction, up to sign; larger groups first."""
    alike = (unit @ unit.T).abs() > 1.0 - 0.5 * REPEATED**2
    count, groups = alike.sum(dim=1), []
    for row in torch.argsort(count, descending=True).tolist():
        if int(count[row]) < least:
            break
        if bool(alike[row, row]):
            same = torch.nonzero(alike[row]).flatten()
            groups.append(same)
            alike[same] = False
    return groups

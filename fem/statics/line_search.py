"""Length of a Newton step by the work of the residual along it.

Newton for plasticity overshoots where material that flows starts to unload, or the other way round. Along the step y
from x the work s(a) = y . F(x - a y) of the residual falls from s(0) > 0; a full step that turns it into less than
-0.8 s(0) has gone too far, and the length is taken back towards s = 0. Where Newton converges a full step brings s
close to zero and nothing more is evaluated: unlike a search that lowers |F|, this one does not stall at the kinks of a
plastic response. A step that cannot be evaluated (an inverted cell) is halved.

References:
    Matthies and Strang (1979), 10.1002/nme.1620141104, section 4; Crisfield (1991), Non-linear Finite Element Analysis
    of Solids and Structures, vol. 1, section 9.2 (tolerance 0.8).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

TOLERANCE = 0.8
TRIALS = 6


def step_length(work: Callable[[float], float], first: float) -> float:
    """Length of the step, in (0, 1].

    Args:
        work: s(a) of a trial; nan where it cannot be evaluated. The last call is with the length returned.
        first: s(0).

    Returns:
        The length a.
    """
    low, work_low, high = 0.0, first, 1.0
    length = 1.0
    for trial in range(TRIALS):
        s = work(length)
        if abs(s) <= TOLERANCE * abs(first) or (length == 1.0 and s * first > 0.0) or trial == TRIALS - 1:
            break
        if s * first > 0.0:
            low, work_low, length = length, s, 0.5 * (length + high)
        elif np.isfinite(s):
            high = length
            # The secant, kept away from both ends: a response with kinks can make it creep.
            fraction = work_low / (work_low - s)
            length = low + min(max(fraction, 0.1), 0.9) * (high - low)
        else:
            high = length
            length = 0.5 * (low + high)
    return length

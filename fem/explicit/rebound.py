"""When a body has bounced off a rigid plane."""

from __future__ import annotations

import numpy as np
from mpi4py import MPI

from fem.explicit.contact import RigidPlane, along


def transit_time(comm: MPI.Comm, x: np.ndarray, plane: RigidPlane, wave_speed: float) -> float:
    """Time of a longitudinal wave through a body along the normal of a rigid plane, s; collective.

    Args:
        comm: Communicator.
        x: Node coordinates of this rank, (n, 3), m.
        plane: The rigid plane.
        wave_speed: sqrt((K + 4 G / 3) / rho), m/s.
    """
    height = along(x, plane.normal)
    ends = np.array([height.max(initial=-np.inf), -height.min(initial=np.inf)])
    total = np.empty(2)
    comm.Allreduce(ends, total, op=MPI.MAX)
    return float(total.sum()) / wave_speed


def left_for_good(time: float, last_contact: float, transit: float, momentum: np.ndarray, plane: RigidPlane) -> bool:
    """Whether a body that had touched a rigid plane has been free for the transit time of a wave and moves away.

    Single nodes may lift off and land again while waves run in the body; after one passage of a wave none will return.

    Args:
        time: Now, s.
        last_contact: Time of the last contact, s; -inf if there was none.
        transit: Transit time, s.
        momentum: Of the body, (3,), N s.
        plane: The rigid plane.
    """
    free = np.isfinite(last_contact) and time - last_contact >= transit
    return bool(free and float(momentum @ np.asarray(plane.normal)) > 0.0)

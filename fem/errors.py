"""Errors of a run; they are raised on all ranks together."""


class SolverError(RuntimeError):
    """The run cannot continue; the solver is back at the start of the step."""


class ConvergenceError(RuntimeError):
    """The step did not converge; the caller may roll back and try a smaller one."""


class Interrupted(RuntimeError):
    """The run was told to terminate, and has written a checkpoint from which it goes on."""

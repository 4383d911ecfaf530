"""Finite trusses: elastoplastic bars between nodes, small strain, any number of ranks."""

from fem.truss.solver import TrussSolver

__all__ = ["TrussSolver"]

"""Periodic cells of any point law on a regular grid, solved by fast Fourier transforms at finite strain."""

from micro.spectral.point_law import PointLaw
from micro.spectral.solver import CellResult, CellState, SpectralCells
from micro.spectral.voronoi import voronoi

__all__ = ["CellResult", "CellState", "PointLaw", "SpectralCells", "voronoi"]

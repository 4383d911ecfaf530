"""Strain paths: random walks, protocols, impact-like and recorded paths, with holds, rate jumps and ringing."""

from micro.crystal.paths.insertions import Insertions
from micro.crystal.paths.mixture import PROTOCOLS, PathOptions, draw_paths
from micro.crystal.paths.walk import Paths, random_walk

__all__ = ["PROTOCOLS", "Insertions", "PathOptions", "Paths", "draw_paths", "random_walk"]

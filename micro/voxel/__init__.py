"""Voxel cells: their geometry, their effective stiffness and its bounds."""

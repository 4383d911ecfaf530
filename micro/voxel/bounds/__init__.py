"""Certified lower bounds of the effective stiffness of voxel cells."""

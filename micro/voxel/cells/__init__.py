"""Geometry of voxel cells: frames, minimal surfaces, random and graded cells, files."""

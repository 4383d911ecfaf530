"""Homogeniser of voxel cells: matrix-free stiffness, preconditioners and conjugate gradients."""

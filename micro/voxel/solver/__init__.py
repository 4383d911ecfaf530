"""The homogeniser of voxel cells: matrix-free operators, preconditioners and conjugate gradients."""

"""Networks that give the effective stiffness of voxel cells."""

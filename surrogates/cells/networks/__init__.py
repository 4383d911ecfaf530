"""Network architectures for voxel cells."""

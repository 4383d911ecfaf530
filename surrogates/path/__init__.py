"""Laws learned from strain paths of polycrystals."""

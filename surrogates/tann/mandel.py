"""Mandel vectors of symmetric tensors in two and three dimensions, in the order of the data sets of lattices.

3-D: 11, 22, 33, 12, 23, 13; 2-D: 11, 22, 12. Off-diagonal entries carry sqrt(2), so that a . b = A : B.
"""

import torch
from torch import Tensor

PAIRS = {2: ((0, 0), (1, 1), (0, 1)), 3: ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (0, 2))}


def components(d: int) -> Tensor:
    """Factors (c,) from Mandel vectors to tensor components: 1, and 1 / sqrt(2) off the diagonal."""
    return torch.tensor([1.0 if i == j else 0.5**0.5 for i, j in PAIRS[d]], dtype=torch.float64)


def basis(d: int) -> Tensor:
    """Symmetric unit tensors M (c, d, d): A = a_I M_I and a_I = M_I : A, also where A is not symmetric."""
    M = torch.zeros(len(PAIRS[d]), d, d, dtype=torch.float64)
    for row, (i, j) in enumerate(PAIRS[d]):
        M[row, i, j] = M[row, j, i] = 1.0 if i == j else 0.5**0.5
    return M

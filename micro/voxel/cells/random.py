"""Random voxels: Latin hypercube samples of all densities at once, as they are or penalised.

A design of N samples puts, in every voxel, one density into each of the N equal parts of the range. The permutation
that assigns the parts to the samples is a keyed bijection of the sample's number, with one key per voxel, so any
sample can be made alone, in any order, without the other N - 1.

References:
    Zhu, Wang, Zhong and Li (2024), Learning microstructure-property mapping via label-free 3D convolutional neural
    network, doi:10.1007/s00371-024-03411-5; data sets 3 and 4.
"""

from collections.abc import Sequence

import numpy as np

from micro.voxel.cells.frames import as_shape

#: Rounds of the Feistel network.
ROUNDS = 6
#: Standard deviation of the exponent of penalised densities.
PENALTY = 1.2


def stream(seed: int, sample: int, kind: int) -> np.random.Generator:
    """Return the random stream of a sample (Philox, counter-based); streams of different kinds are independent."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, kind, sample]))


def mix(words: np.ndarray) -> np.ndarray:
    """Return 64-bit words (...) scrambled (the finaliser of splitmix64)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def strata(sample: int, count: int, keys: np.ndarray) -> np.ndarray:
    """Return the part, from 0 to count - 1, that a sample takes of each voxel's range; for each key a bijection.

    Args:
        sample: Number of the sample, from 0 to count - 1.
        count: Number of samples of the design.
        keys: One 64-bit word per voxel (v,).
    """
    half = np.uint64(max(1, (int(count - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    result = np.full(keys.shape, sample, dtype=np.uint64)
    todo = np.ones(keys.shape, dtype=bool)
    while todo.any():  # cycle walking: the network permutes a power of four, words outside the range go round again
        word, key = result[todo], keys[todo]
        left, right = word >> half, word & mask
        for turn in range(ROUNDS):
            left, right = right, left ^ (mix(key + right + np.uint64((turn + 1) << 32)) & mask)
        result[todo] = (left << half) | right
        todo = result >= count
    return result.astype(np.int64)


def make_random(
    n: int | Sequence[int],
    sample: int,
    seed: int,
    *,
    count: int = 8192,
    least: float = 1e-9,
    penalised: bool = False,
) -> tuple[np.ndarray, float]:
    """Return the densities (X, Y, Z) of a sample, and the exponent they were raised to.

    Args:
        n: Voxels per side, or (X, Y, Z).
        sample: Number of the sample in the design.
        seed: Seed of the design.
        count: Number of samples of the design.
        least: Least density.
        penalised: Whether to raise the densities to the power |d|, d normal with standard deviation `PENALTY`.

    Raises:
        ValueError: An argument is out of its range.
    """
    shape = as_shape(n)
    if not 0 <= sample < count:
        raise ValueError(f"sample must lie between 0 and {count - 1}, got {sample}.")
    if not 0 <= least < 1:
        raise ValueError(f"least must be at least 0 and below 1, got {least}.")
    size = int(np.prod(shape))
    keys = stream(seed, 0, 1).integers(0, 2**64, size=size, dtype=np.uint64)
    rng = stream(seed, sample, 2)
    fraction = (strata(sample, count, keys) + rng.uniform(size=size)) / count
    exponent = abs(rng.normal(0.0, PENALTY)) if penalised else 1.0
    return (least + (1 - least) * fraction.reshape(shape)) ** exponent, float(exponent)

"""Periodic Voronoi tessellations: nearest seed in the periodic distance, streams of their own."""

import numpy as np
import pytest

from micro.spectral.voronoi import random_voronoi, seeds, stream, voronoi


@pytest.mark.parametrize("shape", [(12, 12), (8, 14), (6, 5, 7)])
def test_each_voxel_belongs_to_the_nearest_seed_or_image(shape: tuple[int, ...]) -> None:
    points = seeds(7, len(shape), stream(3, 1))
    grain = voronoi(points, shape)
    box, d = np.array(shape), len(shape)
    shifts = np.stack(np.meshgrid(*[[-1, 0, 1]] * d, indexing="ij"), -1).reshape(-1, 1, d)
    for voxel in np.ndindex(*shape):
        images = (points + shifts) * box - (np.array(voxel) + 0.5)
        distance = np.linalg.norm(images, axis=-1).min(0)
        assert distance[grain[voxel]] == pytest.approx(distance.min())


def test_moving_the_seeds_by_voxels_moves_the_grains() -> None:
    points = seeds(9, 2, stream(0, 0))
    moved = voronoi(points + np.array([3, -5]) / 16, (16, 16))
    assert np.array_equal(moved, np.roll(voronoi(points, (16, 16)), (3, -5), (0, 1)))


def test_a_cell_depends_on_its_seed_and_number_alone() -> None:
    one = random_voronoi(16, (32, 32), 5, 2)
    assert np.array_equal(one, random_voronoi(16, (32, 32), 5, 2))
    assert not np.array_equal(one, random_voronoi(16, (32, 32), 5, 3))
    assert not np.array_equal(one, random_voronoi(16, (32, 32), 6, 2))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="grains must be at least 1"):
        seeds(0, 2, stream(0, 0))
    with pytest.raises(ValueError, match="points must have shape"):
        voronoi(np.zeros((3, 2)), (4, 4, 4))

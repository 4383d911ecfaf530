"""Identification: variables found from displacements and forces are the bars' plastic strains, in another order."""

import pytest
import torch

from micro.lattice.bars import IsotropicBar
from micro.lattice.condensation import condense
from micro.lattice.data import lattice_of
from surrogates.tann.internal_variables import (
    discover,
    elastic_decoder,
    given,
    identify,
    k_means,
    merge,
    most_frequent,
    rank,
    repeated,
    single_directions,
    spectrum,
)
from surrogates.tann.model import coordinates_of


def mixed_steps(N=6, S=4000, seed=0, mean=1.5):
    """Changes along hidden directions of which few move in a step, never one by itself for the last; and the truth."""
    g = torch.Generator().manual_seed(seed)
    directions = torch.randn(N, N, dtype=torch.float64, generator=g)
    directions /= directions.norm(dim=1, keepdim=True)
    moves = torch.rand(S, N, generator=g) < mean / N
    moves[:, 0] |= moves[:, -1] & ~moves[:, :-1].any(dim=1)
    size = torch.randn(S, N, dtype=torch.float64, generator=g) * moves
    keep = moves.any(dim=1)
    return directions, (size @ directions)[keep], size.abs().sum(dim=1)[keep]


def test_directions_are_found_also_where_one_never_moves_alone():
    truth, change, lost = mixed_steps()
    found = single_directions(change, lost, len(truth))
    assert len(found) == len(truth)
    alike = (found @ truth.T).abs()
    torch.testing.assert_close(alike.amax(dim=1), torch.ones(len(truth), dtype=torch.float64), rtol=0, atol=1e-10)
    assert len(set(alike.argmax(dim=1).tolist())) == len(truth)


def test_dense_steps_show_no_direction():
    g = torch.Generator().manual_seed(0)
    change = torch.randn(2000, 5, dtype=torch.float64, generator=g)
    assert len(single_directions(change, change.norm(dim=1), 5)) == 0


def test_groups_of_one_direction_and_the_most_frequent_value():
    unit = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [1, 1e-9], [0.6, 0.8]], dtype=torch.float64)
    assert [group.tolist() for group in repeated(unit, least=3)] == [[0, 2, 3]]
    values = torch.tensor([[0.5, 1.0], [0.1, 3.0], [0.5, 3.0], [-2.0, 3.0], [0.5, 2.0]], dtype=torch.float64)
    level, count = most_frequent(values)
    assert level.tolist() == [0.5, 3.0]
    assert count == 3


@pytest.mark.parametrize(("cell", "perturbation"), [("square-2", 0.2), ("square-2", 0.0), ("cube-1", 0.0)])
@pytest.mark.parametrize("internal", ["discovered", "given"])
def test_the_numbers_of_a_cell_are_found_from_its_walks(cell, perturbation, internal, make_walks):
    walks = make_walks(cell, perturbation=perturbation, samples=150)
    xi, size = coordinates_of(walks)
    xi = xi / size
    way = discover(walks.strain, xi, walks.dissipation) if internal == "discovered" else None
    way = way or given(walks.strain, xi, walks.alpha)
    numbers = identify(walks.strain, walks.stress, walks.dissipation, way, hardens=False)
    form = condense(*lattice_of(walks.lattice))
    N = form.G.shape[1]
    assert numbers.G.shape[1] == N
    # Scaled as the identified ones, the variables of the cell are those found up to order and sign.
    size = torch.from_numpy(form.k / form.K.diagonal())
    G, k = torch.from_numpy(form.G) * size, torch.from_numpy(form.k) * size
    a, b = numbers.G / numbers.k, G / k
    order = ((a.T @ b).abs() / a.norm(dim=0)[:, None] / b.norm(dim=0)).argmax(dim=1)
    if perturbation:
        assert len(set(order.tolist())) == N
    torch.testing.assert_close(numbers.C, torch.from_numpy(form.C), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(numbers.k.sort().values, k.sort().values, rtol=1e-6, atol=1e-9)
    sign = torch.sign((numbers.G * G[:, order]).sum(dim=0))
    K = torch.from_numpy(form.K) * size[:, None] * size
    torch.testing.assert_close(
        numbers.K, sign[:, None] * K[order][:, order] * sign, rtol=1e-6, atol=1e-6 * float(K.max())
    )
    assert float(numbers.h.abs().max()) == 0


def test_isotropic_hardening_is_found(make_walks):
    walks = make_walks(bar=IsotropicBar(), samples=150)
    xi, size = coordinates_of(walks)
    way = discover(walks.strain, xi / size, walks.dissipation)
    numbers = identify(walks.strain, walks.stress, walks.dissipation, way, hardens=True)
    form = condense(*lattice_of(walks.lattice))
    size = torch.from_numpy(form.k / (form.K.diagonal() + form.h))
    truth = (torch.from_numpy(form.h) * size**2).sort().values
    torch.testing.assert_close(numbers.h.sort().values, truth, rtol=1e-6, atol=1e-9)


def test_walks_that_do_not_tell_are_refused_in_one_sentence(make_walks):
    walks = make_walks(samples=4, steps=20)
    xi, size = coordinates_of(walks)
    with pytest.raises(ValueError, match="internal variables change alone"):
        discover(walks.strain, xi / size, walks.dissipation)
    way = given(walks.strain, xi / size, walks.alpha)
    with pytest.raises(ValueError, match=r"moves in \d+ steps"):
        identify(walks.strain, walks.stress, walks.dissipation, way, hardens=False)
    plastic = torch.ones_like(walks.dissipation)
    with pytest.raises(ValueError, match="elastic steps"):
        elastic_decoder(walks.strain, xi, plastic)


def test_rank_counts_what_strain_leaves():
    g = torch.Generator().manual_seed(0)
    left = torch.randn(500, 3, dtype=torch.float64, generator=g) @ torch.randn(3, 9, dtype=torch.float64, generator=g)
    assert rank(spectrum(left)[0]) == 3


def test_merging_keeps_energy_and_dissipation_of_what_moves_together(make_walks):
    walks = make_walks(samples=150)
    xi, size = coordinates_of(walks)
    way = discover(walks.strain, xi / size, walks.dissipation)
    full = identify(walks.strain, walks.stress, walks.dissipation, way, hardens=False)
    N = len(full.k)
    assert torch.equal(merge(full, N, 0).k.sort().values, full.k.sort().values)
    few = merge(full, 5, 0)
    assert few.K.shape == (5, 5)
    torch.testing.assert_close(few.k.sum(), full.k.sum())
    assert float(torch.linalg.eigvalsh(few.K).min()) > 0


def test_k_means_finds_separate_groups():
    g = torch.Generator().manual_seed(0)
    points = torch.arange(4.0).repeat_interleave(10)[:, None] + 0.01 * torch.randn(40, 1, generator=g)
    group = k_means(points, 4, 0).reshape(4, 10)
    assert (group == group[:, :1]).all()
    assert len(set(group[:, 0].tolist())) == 4

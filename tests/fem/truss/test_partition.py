"""Truss on many ranks: shared out evenly; what makes no truss is refused."""

import numpy as np
import pytest

from fem.discretisation.dirichlet import Dirichlet
from fem.truss.partition import bisect, divide
from fem.truss.solver import TrussSolver
from micro.lattice.bars import KinematicBar

pytestmark = pytest.mark.mpi


def test_each_bar_and_node_has_one_owner_and_the_work_is_even(trusses):
    truss = trusses.lattice(3, "cube-2", 0.1)
    degree = np.bincount(truss.bars.ravel())
    for parts in (1, 2, 3, 5, 8):
        owner = bisect(truss.nodes, degree.astype(float), parts)
        work = np.bincount(owner, weights=degree, minlength=parts)
        assert work.max() - work.min() <= 2 * parts * degree.max()
        found = divide(truss.nodes, truss.bars, truss.area, parts)
        assert np.array_equal(np.sort(np.concatenate([p.bars for p in found])), np.arange(len(truss.bars)))
        assert np.array_equal(np.sort(np.concatenate([p.nodes for p in found])), np.arange(len(truss.nodes)))
        for p in found:
            ids = np.concatenate([p.nodes, p.ghost_nodes])
            assert np.array_equal(ids[p.ends], truss.bars[p.bars])
            assert np.array_equal(truss.nodes[ids], p.x)
        # Slabs or blocks: far fewer bars cross than within a part.
        crossing = np.count_nonzero(owner[truss.bars[:, 0]] != owner[truss.bars[:, 1]])
        assert crossing <= 0.22 * parts * len(truss.bars) / 2


SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
RING = np.array([[0, 1], [1, 2], [2, 3], [3, 0], [0, 2]])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"bars": np.array([[0, 1], [2, 2], [2, 3]])}, "Bar 1 joins node 2 to itself."),
        ({"bars": RING[:2]}, "Node 3 has no bar."),
        ({"bars": np.array([[0, 4]])}, "bars must name nodes 0 to 3, got 0 to 4."),
        ({"bars": RING.astype(float)}, r"bars must be integers of shape \(B, 2\), got float64 of shape \(5, 2\)."),
        ({"nodes": SQUARE[:, :1]}, r"nodes must be finite of shape \(N, 2\) or \(N, 3\), got shape \(4, 1\)."),
        ({"nodes": SQUARE * [1.0, 0.0]}, "Bar 1 has no length."),
        ({"area": np.ones(3)}, r"area must be positive, one number or \(5,\), got shape \(3,\)."),
        ({"area": -1.0}, "area must be positive"),
        ({"prescribed": [Dirichlet([4], 0, 0.0)]}, "There is no node 4 to prescribe, the truss has 4."),
        ({"prescribed": [Dirichlet([-1], 0, 0.0)]}, "There is no node -1 to prescribe"),
        ({"prescribed": [Dirichlet([0.5], 0, 0.0)]}, "Prescribed nodes must be integers"),
        ({"prescribed": [Dirichlet([0], 2, 0.0)]}, "A prescribed component must be below 2, got 2."),
        ({"prescribed": [Dirichlet("top", 0)]}, "The nodes of a truss are given by their numbers or a function"),
        ({"prescribed": [Dirichlet([], 0)]}, "Prescribed nodes must be integers"),
        ({"prescribed": [Dirichlet(lambda x: x[0] > 5.0, 0)]}, "There is no node to prescribe"),
        ({"prescribed": [Dirichlet([0, 1], 0, lambda x, t: np.zeros(5))]}, "A prescribed displacement must have shape"),
        ({"prescribed": [Dirichlet([0, 1], 0), Dirichlet([1], 0, 2.0)]}, r"node at \(1, 0\) m is prescribed twice"),
        ({"linear": "fast"}, 'linear must be "direct", "iterative" or "auto", got "fast".'),
    ],
)
def test_what_makes_no_truss_is_refused(change, sentence):
    arguments = {"nodes": SQUARE, "bars": RING, "area": 1.0, "prescribed": [], **change}
    nodes, bars, area = (arguments.pop(name) for name in ("nodes", "bars", "area"))
    with pytest.raises(ValueError, match=sentence):
        TrussSolver(nodes, bars, area, KinematicBar(), **arguments)


def test_the_same_value_twice_is_one_condition(trusses):
    conditions = [Dirichlet([0, 1], 1), Dirichlet([0], 0), Dirichlet([0], 0, lambda x, t: 0.0 * x[0])]
    conditions.append(Dirichlet(lambda x: x[1] > 0.5, 1, lambda x, t: 0.1 * t))
    solver = TrussSolver(SQUARE, RING, 1.0, KinematicBar(), prescribed=conditions)
    solver.run().finish()
    top = trusses.everywhere(solver.comm, solver.displacement())[2:, 1]
    np.testing.assert_allclose(top, 0.1, rtol=1e-12)

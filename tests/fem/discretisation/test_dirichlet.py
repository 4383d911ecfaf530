"""Dirichlet conditions: where they hold, their values in time, and what contradicts each other."""

import dolfinx.fem
import dolfinx.mesh
import numpy as np
import pytest
from mpi4py import MPI

from fem.discretisation.dirichlet import Dirichlet, DirichletSet, body_nodes
from fem.mesh import domain_from_mesh

pytestmark = pytest.mark.mpi


def foot(x):
    return np.isclose(x[2], 0.0)


def conditions(domain, *given):
    V = dolfinx.fem.functionspace(domain.mesh, ("Lagrange", 1, (3,)))
    return DirichletSet(body_nodes(domain, V), given)


def held(found):
    """Prescribed components of all ranks, as a set of (x, y, z, component, value)."""
    x = found.nodes.x[:, found.rows[: found.owned] // 3].T
    rows = np.column_stack([np.round(x, 9), found.rows[: found.owned] % 3, found.values[: found.owned]])
    return {tuple(row) for part in found.nodes.comm.allgather(rows) for row in part}


def test_a_predicate_a_group_and_a_tag_name_the_same_nodes(cells):
    domain = cells("tetrahedron", 3)
    tags = domain.facet_tags
    tag = int(domain.tag("foot"))
    sets = [held(conditions(domain, Dirichlet(where, 1, 0.5))) for where in (foot, "foot", (tags, tag))]
    assert sets[0] == sets[1] == sets[2] and len(sets[0]) == 16
    assert {row[3:] for row in sets[0]} == {(1.0, 0.5)}
    assert len(held(conditions(domain, Dirichlet(None, 0)))) == 64


def test_a_number_is_the_value_at_every_time_and_a_function_that_at_its_own(cells):
    found = conditions(cells("hexahedron", 2), Dirichlet("foot", 0, 0.25), Dirichlet("top", 2, lambda x, t: -t * x[0]))
    for t in (0.0, 0.5, 2.0):
        found.set_time(t)
        for *x, component, value in held(found):
            assert value == pytest.approx(0.25 if component == 0 else -t * x[0], abs=1e-15)


def test_all_components_take_one_number_d_numbers_or_a_function(cells):
    domain = cells("hexahedron", 1)
    for value, expected in (
        (0.5, lambda x: (0.5, 0.5, 0.5)),
        ((1.0, 2.0, 3.0), lambda x: (1.0, 2.0, 3.0)),
        (lambda x, t: 2.0 * x, lambda x: 2.0 * x),
        (lambda x, t: np.array([1.0, 0.0, t]), lambda x: (1.0, 0.0, 0.0)),
    ):
        rows = held(conditions(domain, Dirichlet("foot", None, value)))
        assert len(rows) == 12
        for *x, component, found in rows:
            assert found == pytest.approx(expected(np.array(x))[int(component)])


def test_two_conditions_may_agree_and_must_not_contradict(cells):
    domain = cells("tetrahedron", 2)
    angle = 0.3
    turned = Dirichlet(foot, 0, lambda x, t: np.cos(angle) * x[0] - x[0])
    other = Dirichlet("foot", 0, lambda x, t: (np.cos(angle) - 1.0) * x[0])  # the same but for rounding
    assert len(held(conditions(domain, turned, other))) == 9
    sentence = r'prescribed twice at time 0: 0 m by the condition on the group "foot" and 1 m by .* function foot'
    with pytest.raises(ValueError, match=sentence):
        conditions(domain, Dirichlet("foot", 0), Dirichlet(foot, 0, 1.0))
    # Another component, or other nodes, is no contradiction; one in time shows at its time.
    later = conditions(domain, Dirichlet("foot", 0), Dirichlet("top", 0, 1.0), Dirichlet(foot, 0, lambda x, t: t))
    with pytest.raises(ValueError, match="prescribed twice at time 0.5"):
        later.set_time(0.5)
    later.set_time(0.0)


def test_a_condition_that_is_refused_leaves_the_others_alone(cells):
    found = conditions(cells("tetrahedron", 2), Dirichlet("foot", 0))
    before = held(found)
    with pytest.raises(ValueError, match="prescribed twice"):
        found.add(Dirichlet("foot", None, 1.0))
    assert held(found) == before
    found.add(Dirichlet("foot", 1, 1.0))
    assert len(held(found)) == 2 * len(before)


def test_released_components_are_free_whatever_is_prescribed(cells):
    found = conditions(cells("tetrahedron", 2), Dirichlet("foot"), Dirichlet("top"))
    found.release(found.rows[found.rows % 3 == 2])
    assert {row[3] for row in held(found)} == {0.0, 1.0} and len(held(found)) == 36
    assert set(found.released % 3) <= {2} and found.nodes.comm.allreduce(len(found.released)) >= 18
    found.add(Dirichlet("top", 2, 0.5))  # a later condition holds again
    assert len(held(found)) == 45 and {row[4] for row in held(found)} == {0.0, 0.5}


def test_a_facet_in_two_groups_belongs_to_both():
    """The edge facets of a clamp may be in a second group, too: both hold all their nodes."""
    mesh = dolfinx.mesh.create_unit_cube(MPI.COMM_WORLD, 2, 2, 2)
    half = lambda x: foot(x) & (x[0] < 0.5 + 1e-9)
    for groups in ({"half": half, "foot": foot}, {"foot": foot, "half": half}):
        domain = domain_from_mesh(mesh, groups)
        assert len(held(conditions(domain, Dirichlet("foot", 0)))) == 9
        assert len(held(conditions(domain, Dirichlet("half", 0)))) == 6
        assert len(held(conditions(domain, Dirichlet("half", 0), Dirichlet("foot", 0)))) == 9


WRONG = [
    (("lid", 0), 'no surface group "lid"'),
    ((lambda x: x[0] > 7.0, 0), "There is no node to prescribe in the nodes of the function"),
    ((lambda x: np.ones(2, dtype=bool), 0), "A function of place must return the shape"),
    ((lambda x: 1 / 0, 0), "division by zero"),
    (([1, 2], 0), "nodes of a body are given by a function of the coordinates, a group or"),
    (("foot", 0, lambda x, t: np.zeros(2)), "A prescribed displacement must have shape"),
    (("foot", 0, lambda x, t: np.nan), "A prescribed displacement is not finite at time 0"),
    (("foot", 0, (1.0, 2.0)), "must be one number, got shape"),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG)
def test_conditions_that_do_not_fit_are_refused_on_all_ranks(cells, arguments, sentence):
    domain = cells("tetrahedron", 3)
    with pytest.raises(ValueError, match=sentence):
        conditions(domain, Dirichlet(*arguments))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(("foot", 3), "must be 0, 1 or 2"), (("foot", 0, np.inf), "must be finite"), (("foot", 0, "x"), "a number")],
)
def test_a_condition_is_checked_when_it_is_made(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Dirichlet(*arguments)

"""Reading meshes: files, live models, named groups, and refusals."""

import dolfinx.fem
import dolfinx.mesh
import gmsh
import numpy as np
import pytest
import ufl
from mpi4py import MPI

from fem.explicit import ExplicitSolver
from fem.laws import load_law
from fem.mesh import domain_from_mesh, read_mesh

NEO_HOOKEAN = load_law("magnesium-neo-hookean")


def build(cells=2, body="body", recombine=True):
    """A box 1 x 1 x 2 in the live gmsh model, extruded, with the groups body, foot, top and side."""
    gmsh.option.setNumber("General.Terminal", 0)
    gmsh.model.add("box")
    square = gmsh.model.occ.addRectangle(0, 0, 0, 1, 1)
    swept = gmsh.model.occ.extrude([(2, square)], 0, 0, 2, numElements=[2 * cells], recombine=recombine)
    gmsh.model.occ.synchronize()
    for dim, tag in gmsh.model.getEntities(1):
        gmsh.model.mesh.setTransfiniteCurve(tag, cells + 1)
    if recombine:
        gmsh.model.mesh.setTransfiniteSurface(square)
        gmsh.model.mesh.setRecombine(2, square)
    volume = next(tag for dim, tag in swept if dim == 3)
    if body:
        gmsh.model.addPhysicalGroup(3, [volume], name=body)
    others = []
    for _, tag in gmsh.model.getEntities(2):
        height = gmsh.model.occ.getCenterOfMass(2, tag)[2]
        name = {0.0: "foot", 2.0: "top"}.get(round(height, 6))
        if name:
            gmsh.model.addPhysicalGroup(2, [tag], name=name)
        else:
            others.append(tag)
    gmsh.model.addPhysicalGroup(2, others, name="side")
    gmsh.model.mesh.generate(3)


@pytest.fixture
def model():
    gmsh.initialize(interruptible=False)
    yield gmsh.model
    gmsh.finalize()


@pytest.fixture
def path(tmp_path, model):
    path = tmp_path / "box.msh"
    build()
    gmsh.write(str(path))
    return path


def check(domain):
    assert domain.mesh.topology.index_map(3).size_global == 16
    assert set(domain.names) == {"body", "foot", "top", "side"}
    assert [len(domain.facets(name)) for name in ("foot", "top", "side")] == [4, 4, 32]
    solver = ExplicitSolver(domain, NEO_HOOKEAN, density=3.0)
    assert solver.mass.sum() == pytest.approx(6.0, rel=1e-12)
    x = domain.mesh.geometry.x
    nodes = dolfinx.fem.locate_dofs_topological(solver.points.V, 2, domain.facets("top"))
    assert len(nodes) == 9
    np.testing.assert_allclose(x[nodes, 2], 2.0)


def test_live_model_and_file_give_the_same_domain(model, tmp_path):
    build()
    check(read_mesh(model, MPI.COMM_SELF))
    path = tmp_path / "box.msh"
    gmsh.write(str(path))
    check(read_mesh(path, MPI.COMM_SELF))
    assert gmsh.isInitialized()  # the reader leaves the session of its caller alone
    assert gmsh.model.getCurrent() == "box"


def test_a_file_needs_no_session(path):
    gmsh.finalize()
    domain = read_mesh(path, MPI.COMM_SELF)
    assert not gmsh.isInitialized()
    gmsh.initialize(interruptible=False)
    check(domain)


def test_tags_serve_ufl_measures(path):
    domain = read_mesh(path, MPI.COMM_SELF)
    ds = ufl.Measure("ds", domain=domain.mesh, subdomain_data=domain.facet_tags)
    one = dolfinx.fem.Constant(domain.mesh, 1.0)
    area = dolfinx.fem.assemble_scalar(dolfinx.fem.form(one * ds(domain.tag("side"))))
    assert area == pytest.approx(8.0)


def test_missing_and_broken_files_are_named(tmp_path, model):
    with pytest.raises(FileNotFoundError, match=r"absent\.msh does not exist"):
        read_mesh(tmp_path / "absent.msh", MPI.COMM_SELF)
    build()
    gmsh.write(str(tmp_path / "good.msh"))
    gmsh.clear()
    nan = (tmp_path / "good.msh").read_text().replace("\n0 0 0\n", "\nnan 0 0\n", 1)
    (tmp_path / "nan.msh").write_text(nan)
    with pytest.raises(ValueError, match=r"nan\.msh"):
        read_mesh(tmp_path / "nan.msh", MPI.COMM_SELF)
    broken = {"empty.msh": b"", "text.msh": b"hello\n", "cut.msh": b"$MeshFormat\n4.1 0 8\n$EndMeshFor"}
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            read_mesh(tmp_path / name, MPI.COMM_SELF)


def test_meshes_that_do_not_fit_are_refused(model):
    build(body="")
    with pytest.raises(ValueError, match='no physical volume; the cells must be in a group named "body"'):
        read_mesh(model, MPI.COMM_SELF)
    gmsh.clear()
    build()
    model.mesh.setOrder(2)
    with pytest.raises(ValueError, match="must hold linear cells of one kind only, got Hexahedron 27"):
        read_mesh(model, MPI.COMM_SELF)


def test_tetrahedra_and_plane_meshes_are_read(model):
    build(recombine=False)
    domain = read_mesh(model, MPI.COMM_SELF)
    facets = dolfinx.mesh.compute_midpoints(domain.mesh, 2, domain.facets("foot"))
    assert domain.mesh.topology.cell_type.name == "tetrahedron" and len(facets) > 0 and np.all(facets[:, 2] == 0.0)
    assert ExplicitSolver(domain, NEO_HOOKEAN).points.per_cell == 1
    gmsh.clear()
    model.add("plate")
    square = model.occ.addRectangle(0, 0, 0, 1, 1)
    model.occ.synchronize()
    model.addPhysicalGroup(2, [square], name="body")
    model.addPhysicalGroup(1, [1], name="foot")
    model.mesh.generate(2)
    domain = read_mesh(model, MPI.COMM_SELF)
    assert domain.mesh.geometry.dim == 2 == domain.mesh.topology.dim
    facets = dolfinx.mesh.compute_midpoints(domain.mesh, 1, domain.facets("foot"))
    assert len(facets) > 0 and np.all(facets[:, 1] == 0.0)


def test_unknown_groups_are_named(path):
    domain = read_mesh(path, MPI.COMM_SELF)
    with pytest.raises(ValueError, match='no surface group "hull"; it has foot, side, top'):
        domain.facets("hull")
    with pytest.raises(ValueError, match='no surface group "body"'):
        domain.facets("body")
    with pytest.raises(ValueError, match='no group "hull"'):
        domain.tag("hull")


def test_facets_by_location(box):
    domain = domain_from_mesh(box((1.0, 1.0, 1.0), (2, 2, 2)).mesh, {"left": lambda x: np.isclose(x[0], 0.0)})
    assert len(domain.facets("left")) == 4


def overlapping(model):
    """The box, whose foot is also in the group "clamp", and so is one of its sides."""
    build()
    foot, side = (model.getEntitiesForPhysicalGroup(2, tag) for tag in (2, 4))
    assert [model.getPhysicalName(2, tag) for tag in (2, 4)] == ["foot", "side"]
    model.addPhysicalGroup(2, [int(foot[0]), int(side[0])], name="clamp")


@pytest.mark.parametrize("as_file", [False, True])
def test_a_facet_of_two_groups_belongs_to_both(model, tmp_path, as_file):
    overlapping(model)
    before = [(group, model.getPhysicalName(*group)) for group in model.getPhysicalGroups()]
    if as_file:
        gmsh.write(str(tmp_path / "box.msh"))
    domain = read_mesh(tmp_path / "box.msh" if as_file else model, MPI.COMM_SELF)
    assert [(group, model.getPhysicalName(*group)) for group in model.getPhysicalGroups()] == before
    assert {name: len(domain.facets(name)) for name in ("foot", "top", "side", "clamp")} == {
        "foot": 4, "top": 4, "side": 32, "clamp": 12,
    }  # fmt: skip
    assert set(domain.facets("foot")) < set(domain.facets("clamp"))
    ds = ufl.Measure("ds", domain=domain.mesh, subdomain_data=domain.facet_tags)
    one = dolfinx.fem.Constant(domain.mesh, 1.0)
    area = lambda name: dolfinx.fem.assemble_scalar(dolfinx.fem.form(one * ds(domain.tag(name))))
    assert [area(name) for name in ("foot", "top", "side", "clamp")] == pytest.approx([1.0, 1.0, 8.0, 3.0])
    # A clamp holds all of its nodes: those of two faces that share an edge.
    solver = ExplicitSolver(domain, NEO_HOOKEAN)
    solver.prescribe("clamp")
    assert solver.prescribed.owned == 3 * (9 + 15 - 3)


def test_a_volume_of_two_groups_is_read(model):
    build()
    model.addPhysicalGroup(3, model.getEntitiesForPhysicalGroup(3, 1).tolist(), name="all")
    domain = read_mesh(model, MPI.COMM_SELF)
    dx = ufl.Measure("dx", domain=domain.mesh, subdomain_data=domain.cell_tags)
    one = dolfinx.fem.Constant(domain.mesh, 1.0)
    for name in ("body", "all"):
        assert dolfinx.fem.assemble_scalar(dolfinx.fem.form(one * dx(domain.tag(name)))) == pytest.approx(2.0)


@pytest.mark.mpi
def test_places_that_overlap_share_their_facets(box):
    places = {"left": lambda x: np.isclose(x[0], 0.0), "ends": lambda x: np.isclose(x[0], 0.0) | np.isclose(x[0], 1.0)}
    places["top"] = lambda x: np.isclose(x[2], 1.0)
    domain = domain_from_mesh(box((1.0, 1.0, 1.0), (2, 2, 2)).mesh, places)
    owned = domain.mesh.topology.index_map(2).size_local
    count = lambda name: MPI.COMM_WORLD.allreduce(int(np.count_nonzero(domain.facets(name) < owned)))
    assert [count(name) for name in places] == [4, 8, 4]
    assert domain.tag("top") == domain.names["top"][1]
    ds = ufl.Measure("ds", domain=domain.mesh, subdomain_data=domain.facet_tags)
    area = dolfinx.fem.form(dolfinx.fem.Constant(domain.mesh, 1.0) * ds(domain.tag("ends")))
    assert MPI.COMM_WORLD.allreduce(dolfinx.fem.assemble_scalar(area)) == pytest.approx(2.0)


@pytest.mark.mpi
def test_all_ranks_share_one_mesh_and_its_refusals(tmp_path_factory):
    comm = MPI.COMM_WORLD
    folder = comm.bcast(tmp_path_factory.mktemp("mesh") if comm.rank == 0 else None)
    if comm.rank == 0:
        gmsh.initialize(interruptible=False)
        build(cells=1)
        gmsh.write(str(folder / "box.msh"))
        gmsh.finalize()
        (folder / "text.msh").write_text("hello")
    comm.barrier()
    domain = read_mesh(folder / "box.msh", comm)
    assert domain.mesh.topology.index_map(3).size_global == 2  # some ranks may have no cells
    assert set(domain.names) == {"body", "foot", "top", "side"}
    owned = domain.mesh.topology.index_map(2).size_local
    assert comm.allreduce(int(np.count_nonzero(domain.facets("side") < owned))) == 8
    with pytest.raises(ValueError, match=r"text\.msh"):
        read_mesh(folder / "text.msh", comm)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_mesh(folder / "absent.msh", comm)

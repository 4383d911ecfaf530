"""What a mesh of gmsh says about its surface."""

import gmsh
import numpy as np
import pytest


def _facets(name):
    """Nodes of the facets of a group."""
    rows = []
    for dim, tag in gmsh.model.getPhysicalGroups(2):
        if gmsh.model.getPhysicalName(dim, tag) == name:
            for entity in gmsh.model.getEntitiesForPhysicalGroup(dim, tag):
                types, _, ends = gmsh.model.mesh.getElements(2, entity)
                assert list(types) == [3], "only four-node quadrilaterals"
                rows.append(ends[0].reshape(-1, 4).astype(int) - 1)
    return np.concatenate(rows)


def _boundary(cells):
    """Sorted nodes of the faces that belong to one cell only."""
    corners = [(0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)]
    faces = np.sort(np.concatenate([cells[:, list(c)] for c in corners]), axis=1)
    unique, count = np.unique(faces, axis=0, return_counts=True)
    assert count.max() == 2
    return unique[count == 1]


@pytest.fixture
def facets():
    """Nodes of the facets of a group of the current model, by its name."""
    return _facets


@pytest.fixture
def boundary():
    """Sorted nodes of the faces that belong to one cell only, of cells (n, 8)."""
    return _boundary

"""Geometries with named groups, meshed by gmsh; imports gmsh and numpy only."""

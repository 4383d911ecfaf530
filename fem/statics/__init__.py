"""Quasi-static equilibrium: Newton's method, load steps, linear solvers, and the implicit solver of bodies."""

"""Thermodynamics-based networks (TANN) of lattices."""

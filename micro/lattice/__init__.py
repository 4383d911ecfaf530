"""Lattices: periodic cells of elastoplastic bars."""

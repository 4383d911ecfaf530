"""Polycrystals: single-crystal plasticity with twinning, and the Taylor average."""

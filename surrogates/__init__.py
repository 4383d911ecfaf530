"""Learned laws: networks, training, and the exported law (the artifact).

This package imports nothing here on purpose: a macro solver needs `surrogates.artifact` alone and must not pay for,
or depend on, the training code.
"""

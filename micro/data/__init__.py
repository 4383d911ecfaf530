"""Data sets: shards, manifest, provenance, and the parallel job that makes them."""

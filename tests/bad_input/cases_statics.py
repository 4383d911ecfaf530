"""Bad input of the quasi-static studies: the lattices of demos/lattices, which run on `fem.statics` and `fem.truss`."""

from pathlib import Path

from bad_input import Case

LAW = str(Path(__file__).resolve().parents[2] / "surrogates" / "pretrained" / "lattice_cube_1.pt")
SMALL = ["--law", LAW, "--n", "2", "--size", "5", "--steps", "2", "--threads", "1", "--output", "{folder}/out"]

CASES = [
    Case("demos/lattices/torsion.py", [*SMALL, "--n", "0"], "--n must be at least 1, got 0"),
    Case("demos/lattices/torsion.py", [*SMALL, "--size", "1e-400"], "--size must be a positive finite number, got 0"),
    Case("demos/lattices/compression.py", [*SMALL, "--steps", "-3"], "--steps must be at least 1, got -3"),
    Case("demos/lattices/compression.py", ["--law", "magnesium-j2"], "--law must be an artifact of a lattice cell"),
    Case("demos/lattices/cyclic.py", [*SMALL, "--restart", "nowhere"], "there is no checkpoint in it"),
    Case("demos/lattices/cyclic.py", [*SMALL, "--panels", "1.5"], "--panels must be whole numbers"),
]

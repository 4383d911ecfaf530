"""Bad input at the commands that write meshes."""

from bad_input import Case

BAR, BOX, PLATE = "meshes.taylor_bar", "meshes.box", "meshes.plate"
MEMORY = r"The mesh would have about \S+ cells and need about \S+ GB of memory; this machine has \S+ GB\."
RANGE = r"must lie between 1e-09 m and 1e\+06 m"

CASES: list[Case] = [
    Case(BAR, ["--cells", "2000"], MEMORY),
    Case(BAR, ["--cells", "1" + "0" * 30], MEMORY),
    Case(BAR, ["--cells", "4", "--length", "1e6"], MEMORY),
    Case(BAR, ["--length", "1e308"], f"length {RANGE}, got 1e\\+308"),
    Case(BAR, ["--length", "1e-320"], f"length {RANGE}, got 1e-320"),
    Case(BAR, ["--diameter", "1e200"], f"diameter {RANGE}, got 1e\\+200"),
    Case(BAR, ["--diameter", "1e-320"], f"diameter {RANGE}"),
    Case(BAR, ["--grading", "1e300"], "grading 1e\\+300 makes a layer of .* of the length"),
    Case(BAR, ["--grading", "1e-320"], "grading 9.9.*e-321 makes a layer of"),
    Case(BAR, ["--grading", "nan"], "grading must be a positive finite number, got nan"),
    Case(BAR, ["--cells", "four"], "Argument --cells: invalid int value: 'four'"),
    Case(BAR, ["--output", "missing/bar.msh"], "folder 'missing' for the mesh file does not exist"),
    Case(BOX, ["--size", "1e-9"], MEMORY),
    Case(BOX, ["--size", "1e-320"], f"size {RANGE}"),
    Case(BOX, ["--lengths", "1e308", "1", "1"], f"a length {RANGE}"),
    Case(BOX, ["--lengths", "1", "1"], "Argument --lengths: expected 3 arguments"),
    Case(BOX, ["--grading", "1e300"], "grading 1e\\+300 makes a layer of .* of the length"),
    Case(BOX, ["--rim", "1e300"], "rim 1e\\+300 makes cells narrower than 1e-06 of the length"),
    Case(BOX, ["--rim", "1e-7", "--size", "0.5"], "rim 1e-07 makes cells narrower than 1e-06 of the length"),
    Case(PLATE, ["--cells", "4000"], MEMORY),
    Case(PLATE, ["--width", "1e308"], f"width {RANGE}, got 1e\\+308"),
    Case(PLATE, ["--fine", "1e-320"], f"fine {RANGE}"),
    Case(PLATE, ["--growth", "nan"], "growth must be a positive finite number, got nan"),
    Case(PLATE, ["--growth", "1.0000000001", "--fine", "1e-5"], "growth 1 needs more than 10000 rings up to the rim"),
    Case(PLATE, ["--layers", "0"], "layers must be a whole number of at least 1, got 0"),
    Case(PLATE, ["--output", "missing/plate.msh"], "folder 'missing' for the mesh file does not exist"),
    Case(BOX, ["--kind", "wedges"], "Argument --kind: invalid choice: 'wedges'"),
]

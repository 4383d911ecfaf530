"""Bad input at the solvers of fem: what fails on one rank ends all ranks with one sentence."""

from bad_input import Case

PROGRAM = "tests/bad_input/one_rank.py"
SENTENCES = {
    "velocity": "The initial velocity cannot be evaluated: ",
    "shape": r"The initial velocity must have shape \(3,\) or ",
    "value": "cannot follow what is prescribed: integer division",
    "where": "integer division or modulo by zero|integer modulo by zero",
    "restore": r"The checkpoint none\.h5 cannot be read: ",
    "mesh": r"Mesh file text\.msh is not a gmsh mesh",
    "law": "cannot be evaluated by the law j2: 'a word'",
}

CASES: list[Case] = [
    Case(PROGRAM, [name], sentence, ranks=3, code=1 if name in ("law", "value") else 2)
    for name, sentence in SENTENCES.items()
]

"""Bad input at the commands that write meshes."""

from bad_input import Case

CASES: list[Case] = []

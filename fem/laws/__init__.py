"""Material laws, one interface: compiled classical laws, exported learned laws and laws of one's own."""

from fem.laws.law import Law, check_fit, drawable
from fem.laws.load import FINITE, NAMED, SMALL, as_law, load_law
from fem.laws.materials import SETS, Constant, ParameterSet

__all__ = [
    "FINITE", "NAMED", "SETS", "SMALL",
    "Constant", "Law", "ParameterSet", "as_law", "check_fit", "drawable", "load_law",
]  # fmt: skip

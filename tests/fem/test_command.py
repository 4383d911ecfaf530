"""Command lines: one sentence from rank 0, the same end on all ranks, files whole or not at all."""

import pytest
from mpi4py import MPI

from fem.command import Parser, Stop, finish, together
from fem.errors import SolverError

pytestmark = pytest.mark.mpi
COMM = MPI.COMM_WORLD


def test_parser_speaks_in_sentences():
    p = Parser()
    p.add_argument("--n", type=int)
    with pytest.raises(ValueError) as caught:
        p.parse_args(["--n", "x"])
    assert str(caught.value) == "Argument --n: invalid int value: 'x'."


@pytest.mark.parametrize("kind", [ValueError, RuntimeError])
def test_what_fails_on_the_last_rank_stops_all(kind):
    def work():
        if COMM.rank == COMM.size - 1:
            raise kind("It is so.")

    with pytest.raises(Stop, match="It is so."):
        together(COMM, work)


def test_a_file_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(Stop, match=r"No such file or directory: .*none\."):
        together(COMM, lambda: (tmp_path / "none").read_text(), root=True)


def test_rank_0_alone_works():
    assert together(COMM, lambda: 7, root=True) == (7 if COMM.rank == 0 else None)


@pytest.mark.parametrize("kind", [Stop, ValueError, SolverError])
def test_finish_says_why_once(kind, capsys):
    def work():
        raise kind("No.")

    assert finish(COMM, work) == (1 if kind is SolverError else 2)
    assert capsys.readouterr().err == ("No.\n" if COMM.rank == 0 else "")
    assert finish(COMM, lambda: None) == 0


def test_a_failure_is_no_bad_input():
    def work():
        raise Stop("The check is not passed.", code=1)

    assert finish(COMM, work) == 1


def test_other_errors_are_not_hidden():
    with pytest.raises(KeyError):
        finish(COMM, lambda: {}["x"])

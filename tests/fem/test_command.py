"""Command lines: one sentence from rank 0, the same end on all ranks, files whole or not at all."""

import pytest
from mpi4py import MPI

from fem.command import Parser, Stop, finish, name_value_pairs, positive_numbers, together
from fem.errors import SolverError

pytestmark = pytest.mark.mpi
COMM = MPI.COMM_WORLD


def test_parser_speaks_in_sentences():
    p = Parser()
    p.add_argument("--n", type=int)
    with pytest.raises(ValueError) as caught:
        p.parse_args(["--n", "x"])
    assert str(caught.value) == "Argument --n: invalid int value: 'x'."


def test_lists_of_options_are_read():
    assert name_value_pairs("--o", "a=1, b=x,c=true,d=0.5") == {"a": 1, "b": "x", "c": True, "d": 0.5}
    assert positive_numbers("--o", "3, 1e-6,3") == [1e-6, 3.0]
    assert (name_value_pairs("--o", ""), positive_numbers("--o", "")) == ({}, [])
    with pytest.raises(ValueError, match="--o must be name=value pairs separated by commas, got 'a'"):
        name_value_pairs("--o", "b=1,a")
    for text in ("1,x", "0", "nan", "-1", "inf"):
        with pytest.raises(ValueError, match=f"--o must be positive finite numbers separated by commas, got '{text}'"):
            positive_numbers("--o", text)


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

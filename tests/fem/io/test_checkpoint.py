"""Checkpoints that know no solver: any number of ranks, whole or not at all, damaged ones refused on all ranks."""

import time

import h5py
import numpy as np
import pytest
from mpi4py import MPI

from fem.io import checkpoint, rows
from fem.io.checkpoint import Block, restore, save

COMM = MPI.COMM_WORLD
NODES, CELLS = 23, 11
IDENTITY = {"solver": "test", "law": "j2"}


def values(numbers, width, scale):
    """Rows that say where they belong."""
    return scale * (numbers[:, None] + 0.1 * np.arange(width))


def share(total, comm, *, ghosts=False):
    """Numbers of this rank in a scattered order; ghosts are those of the next rank."""
    order = np.random.default_rng(1).permutation(total)
    mine = order[comm.rank :: comm.size]
    return np.concatenate([mine, order[(comm.rank + 1) % comm.size :: comm.size]]) if ghosts else mine


def blocks(comm, *, ghosts=False):
    nodes, cells = share(NODES, comm, ghosts=ghosts), share(CELLS, comm)
    P = values(cells, 18, -2.0)
    return {
        "nodes": Block(nodes, NODES, {"u": values(nodes, 3, 1.0), "held": nodes % 2 == 0}),
        "cells": Block(cells, CELLS, {"P": P.reshape(-1, 2, 3, 3), "none": np.zeros((len(cells), 0))}),
    }


SCALARS = {"steps": 7, "last": -np.inf, "held": True, "totals": np.arange(4.0)}


def write(path, comm=COMM, **changes):
    save(path, comm, **{"time": 0.25, "blocks": blocks(comm), "scalars": SCALARS, "identity": IDENTITY} | changes)


def read(path, comm=COMM, **changes):
    like = {"steps": 0, "last": 0.0, "held": False, "totals": np.zeros(4)}
    return restore(path, comm, **{"blocks": blocks(comm, ghosts=True), "scalars": like, "identity": IDENTITY} | changes)


def shared(tmp_path_factory):
    return COMM.bcast(tmp_path_factory.mktemp("checkpoint") if COMM.rank == 0 else None)


@pytest.mark.mpi
@pytest.mark.parametrize("piece", [rows.PIECE, 100])
def test_every_rank_gets_its_rows_back(tmp_path_factory, monkeypatch, piece):
    monkeypatch.setattr(rows, "PIECE", piece)
    path = shared(tmp_path_factory) / "run.h5"
    write(path)
    for comm in (COMM, MPI.COMM_SELF):
        found = read(path, comm)
        assert found.time == 0.25
        assert found.scalars["steps"] == 7 and found.scalars["held"] is True and found.scalars["last"] == -np.inf
        np.testing.assert_array_equal(found.scalars["totals"], np.arange(4.0))
        for name, block in blocks(comm, ghosts=True).items():
            for key, expected in block.arrays.items():
                np.testing.assert_array_equal(found.arrays[name][key], expected)
    COMM.barrier()
    assert [entry.name for entry in path.parent.iterdir()] == ["run.h5"]


@pytest.mark.mpi
def test_the_file_does_not_depend_on_the_ranks_or_the_clock(tmp_path_factory):
    folder = shared(tmp_path_factory)
    write(folder / "all.h5")
    time.sleep(1.1)  # HDF5 counts the time of day in seconds
    write(folder / f"{COMM.rank}.h5", MPI.COMM_SELF)
    assert (folder / f"{COMM.rank}.h5").read_bytes() == (folder / "all.h5").read_bytes()


@pytest.mark.mpi
def test_rows_that_are_missing_are_refused_and_the_former_file_stays(tmp_path_factory):
    path = shared(tmp_path_factory) / "run.h5"
    write(path)
    before = path.read_bytes()
    numbers = share(NODES, COMM)
    numbers = numbers[1:] if COMM.rank == COMM.size - 1 else numbers
    with pytest.raises(ValueError, match="rows 0 to 22 of the nodes are not on one rank each"):
        write(path, blocks={"nodes": Block(numbers, NODES, {"u": values(numbers, 3, 1.0)})})
    with pytest.raises(ValueError, match="time of a checkpoint must be finite"):
        write(path, time=float("nan"))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        write(path.parent / "none" / "run.h5")
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["run.h5"]


def edited(change):
    """Change the content of a file and stamp it as whole."""

    def spoil(path):
        with h5py.File(path, "r+") as file:
            change(file)
        checkpoint.stamp(path)

    return spoil


def put(name, value):
    def change(file):
        del file[name]
        file[name] = value

    return change


def fill(name, value):
    def change(file):
        file[name][3] = value

    return change


def overturned(place):
    def spoil(path):
        content = bytearray(path.read_bytes())
        content[int(place * (len(content) - 1))] ^= 0x40
        path.write_bytes(content)

    return spoil


DAMAGED = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-200]), "damaged or truncated"),
    "empty": (lambda path: path.write_bytes(b""), "is not a checkpoint"),
    "text": (lambda path: path.write_text("hello"), "is not a checkpoint"),
    "missing field": (edited(lambda file: file.__delitem__("nodes/u")), "has no field u"),
    "missing scalar": (edited(lambda file: file.__delitem__("scalars/steps")), "has no field steps"),
    "missing block": (edited(lambda file: file.__delitem__("cells")), "has no field P"),
    "a group for a field": (edited(lambda file: (file.pop("nodes/u"), file.create_group("nodes/u"))), "no field u"),
    "no time": (edited(lambda file: file.__delitem__("time")), "time must be finite and not negative"),
    "time NaN": (edited(put("time", np.nan)), "time must be finite and not negative, got nan"),
    "time negative": (edited(put("time", -1.0)), "time must be finite and not negative, got -1.0"),
    "time of two": (edited(put("time", np.zeros(2))), "time must be finite"),
    "wrong length": (edited(put("nodes/u", np.zeros((NODES - 1, 3)))), r"u has shape \(22, 3\), not \(23, 3\)"),
    "text for numbers": (edited(put("scalars/steps", "seven")), "steps has the type"),
    "scalar NaN": (edited(put("scalars/last", np.nan)), "last is not a number"),
    "field NaN": (edited(fill("nodes/u", np.nan)), "u of the nodes is not finite"),
    "other schema": (lambda path: path.write_bytes(path.read_bytes().replace(b"schema 2", b"schema 9", 1)), "schema 2"),
}


@pytest.mark.mpi
@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_one_sentence_on_all_ranks(tmp_path_factory, kind):
    spoil, sentence = DAMAGED[kind]
    path = shared(tmp_path_factory) / "run.h5"
    write(path)
    if COMM.rank == 0:
        spoil(path)
    COMM.barrier()
    with pytest.raises(ValueError, match=sentence) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert len(set(COMM.allgather(str(caught.value)))) == 1


@pytest.mark.parametrize("place", np.linspace(0.0, 1.0, 40))
def test_a_byte_overturned_anywhere_is_seen(tmp_path, place):
    write(tmp_path / "run.h5")
    overturned(place)(tmp_path / "run.h5")
    with pytest.raises(ValueError, match=r"is damaged or truncated|is not a checkpoint"):
        read(tmp_path / "run.h5")


@pytest.mark.mpi
def test_another_solver_and_a_file_that_is_not_there(tmp_path_factory):
    path = shared(tmp_path_factory) / "run.h5"
    write(path)
    with pytest.raises(ValueError, match='was written with the law "j2", the solver has "linear"'):
        read(path, identity=IDENTITY | {"law": "linear"})
    with pytest.raises(ValueError, match='was written with the degree "none", the solver has "2"'):
        read(path, identity=IDENTITY | {"degree": 2})
    with pytest.raises(FileNotFoundError, match=r"absent\.h5 does not exist"):
        read(path.parent / "absent.h5")

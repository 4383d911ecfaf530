"""Bad input at what makes, reads and homogenises voxel cells, at their benchmarks and their studies."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from bad_input import Case

HOMOGENISE, GENERATE = "surrogates.homogenise", "micro.generate"
BENCH, BOUNDS = "demos/benchmarks/bench_homogeniser.py", "demos/benchmarks/bench_bounds.py"
RACE, GRADED = "demos/cells/voxel_networks.py", "demos/cells/graded_lattice.py"


def solid(folder: Path) -> None:
    """A cell that is good."""
    np.save(folder / "cell.npy", np.ones((4, 4, 4)))


def promise(folder: Path) -> None:
    """A .npy file whose header promises 8 petabytes, and one whose size is no number of 64 bits."""
    for name, shape in (("huge.npy", (100_000,) * 3), ("absurd.npy", (10**9,) * 3)):
        with open(folder / name, "wb") as file:
            header = {"descr": "<f8", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.write(bytes(64))


def promise_hdf5(folder: Path) -> None:
    """A small HDF5 file whose data set has a shape of petabytes, of which nothing is stored."""
    with h5py.File(folder / "huge.h5", "w") as file:
        file.create_dataset("density", shape=(100_000,) * 3, dtype="<f8", chunks=(64, 64, 64))


def real(dtype: str) -> Callable[[Path], None]:
    """A cell of an unusual type, out of range."""

    def prepare(folder: Path) -> None:
        np.save(folder / "cell.npy", np.full((4, 4, 4), 2).astype(dtype))

    return prepare


def box(folder: Path, *, factor: float = 1.0, spoiled: float | None = None, name: str = "box.stl") -> None:
    """A box as twelve triangles in a binary STL file, one of its vertices spoiled if asked for."""
    corners = factor * np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype="<f4")
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    triangles = np.array([corners[list(t)] for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    if spoiled is not None:
        triangles[3, 1, 2] = spoiled
    record = np.zeros(12, dtype=[("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    record["corners"] = triangles
    (folder / name).write_bytes(bytes(80) + struct.pack("<I", 12) + record.tobytes())


def surface(spoiled: float) -> Callable[[Path], None]:
    """A box with a vertex that is no place."""
    return lambda folder: box(folder, spoiled=spoiled)


def bomb(folder: Path) -> None:
    """A folder with an image of a few kilobytes that holds 30 000 x 30 000 pixels."""
    (folder / "layers").mkdir()

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    (folder / "layers" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def raw(folder: Path) -> None:
    """A raw file of 60 bytes."""
    (folder / "cell.raw").write_bytes(bytes(60))


def voxels(*words: str, sentence: str, code: int = 2) -> Case:
    """A case of `micro.generate voxels`."""
    return Case(GENERATE, ["voxels", "--output", "{folder}/set", "--samples", "1", *words], sentence, code=code)


def homogenise(*words: str, sentence: str, prepare: Callable[[Path], None] = solid) -> Case:
    """A case of `surrogates.homogenise`."""
    return Case(HOMOGENISE, [*words, "--solver-only"], sentence, prepare=prepare)


SIZE = r"must be smaller: .* need about [0-9.e+]+ [MGTP]B of memory, but only [0-9.e+]+ [MGTP]B are available\.$"
THREADS = r"threads must be at most [0-9]+ on this machine, got 100000\."

CASES: list[Case] = [
    # sizes that cannot fit or cannot end
    voxels("--resolution", "2000", sentence=f"resolution {SIZE}"),
    voxels("--resolution", "1000000000", sentence=f"resolution {SIZE}"),
    voxels("--radius", "5", sentence=r"radius must be at most 0\.866 edges of the cell, .* got 5\."),
    voxels("--radius", "0.1", "1e308", sentence=r"radius must be at most 0\.866"),
    voxels("--threads", "100000", sentence=THREADS),
    homogenise("huge.npy", prepare=promise, sentence=r"huge\.npy is not a \.npy file of numbers, or it is truncated\."),
    homogenise("absurd.npy", prepare=promise, sentence=r"absurd\.npy is not a \.npy file"),
    homogenise("huge.h5", prepare=promise_hdf5, sentence=rf"huge\.h5, density, {SIZE}"),
    homogenise("box.stl", "--resolution", "5000", prepare=box, sentence=f"resolution {SIZE}"),
    homogenise("box.stl", "--resolution", "1000000000000", prepare=box, sentence=f"resolution {SIZE}"),
    homogenise("box.stl", "--resolution", "5000", "5000", "5000", prepare=box, sentence=f"resolution {SIZE}"),
    homogenise(
        "cell.raw",
        "--shape",
        "100000",
        "100000",
        "100000",
        "--dtype",
        "u1",
        prepare=raw,
        sentence=r"cell\.raw must hold 1000000000000000 numbers of u1, 1000000000000000 bytes, it holds 60",
    ),
    homogenise("cell.npy", "--threads", "100000", sentence=THREADS),
    Case("surrogates.effective", ["huge.npy"], r"huge\.npy is not a \.npy file of numbers", prepare=promise),
    Case(BENCH, ["--n", "2000"], f"--n {SIZE}"),
    Case(BENCH, ["--batch", "1000000000", "20"], f"--batch {SIZE}"),
    Case(BENCH, ["--scipy", "1000"], f"--scipy {SIZE}"),
    Case(BENCH, ["--threads", "100000"], THREADS),
    Case(BOUNDS, ["--n", "2000"], f"--n {SIZE}"),
    Case(BOUNDS, ["--threads", "100000"], THREADS),
    Case(RACE, ["--n", "2000"], f"--n {SIZE}"),
    Case(RACE, ["--cells", "1000000000"], f"--cells {SIZE}"),
    Case(GRADED, ["--cells", "500", "500", "500"], f"--cells or --elements {SIZE}"),
    Case(GRADED, ["--resolved", "2000"], f"--cells or --resolved {SIZE}"),
    Case(GRADED, ["--resolution", "2000"], f"--resolution {SIZE}"),
    Case(
        GRADED, ["--steps", "1000000000"], r"--cells must be smaller: 24 cells of 16\^3 voxels take [0-9.e+]+ hours\."
    ),
    Case(GRADED, ["--cells", "500", "500", "500"], "--cells or --elements must be smaller", ranks=2),
    Case(GRADED, ["--threads", "100000"], THREADS),
    # numbers that are finite but absurd
    homogenise(
        "cell.npy", "--modulus", "1e308", sentence=r"modulus must be positive, from 1e-100 to 1e\+100, .* got 1e\+308"
    ),
    homogenise("cell.npy", "--modulus", "1e-320", sentence="modulus must be positive, from 1e-100"),
    homogenise(
        "cell.npy", "--spacing", "1e-320", "1", "1", sentence="spacing must be three positive numbers, from 1e-30"
    ),
    homogenise("cell.npy", "--accuracy", "nan", sentence="accuracy must be positive and finite, got nan"),
    Case(BENCH, ["--tolerance", "1e-300"], "--tolerance must lie between 1e-10 and 0.1, got 1e-300"),
    Case(BOUNDS, ["--accuracy", "1e-300"], "--accuracy must lie between 1e-07 and 1"),
    # damaged and unusual files
    homogenise(
        "cell.npy", prepare=real("longdouble"), sentence=r"must lie between 0 \(void\) and 1 \(solid\), got 2 to 2\."
    ),
    homogenise("cell.npy", prepare=real("clongdouble"), sentence=r"numbers, got \(4, 4, 4\) complex256"),
    homogenise(
        "cell.npy", prepare=real("uint64"), sentence=r"must lie between 0 \(void\) and 1 \(solid\), got 2 to 2\."
    ),
    homogenise("box.stl", "--resolution", "4", prepare=surface(np.inf), sentence="finite vertices .* got inf"),
    homogenise("box.stl", "--resolution", "4", prepare=surface(np.nan), sentence="finite vertices .* got nan"),
    homogenise(
        "box.stl",
        "--resolution",
        "4",
        "--box",
        "0",
        "0",
        "0",
        "1e-300",
        "1",
        "1",
        prepare=box,
        sentence="box must not be so small beside the surface",
    ),
    homogenise(
        "box.stl",
        "--resolution",
        "4",
        "--box",
        "0",
        "0",
        "0",
        "inf",
        "1",
        "1",
        prepare=box,
        sentence="box must be two finite corners",
    ),
    homogenise("layers", prepare=bomb, sentence=r"0\.png must have at most [0-9]+ pixels in a layer, it has more\."),
    homogenise(
        "cell.raw",
        "--shape",
        "4",
        "4",
        "4",
        "--dtype",
        "u1",
        prepare=raw,
        sentence="must hold 64 numbers of u1, 64 bytes, it holds 60 bytes",
    ),
    homogenise(
        "cell.raw",
        "--shape",
        "3",
        "4",
        "5",
        "--dtype",
        "O",
        prepare=raw,
        sentence="dtype must be a type of real numbers, for instance <u2, got 'O'",
    ),
    homogenise("missing.npy", sentence=r"missing\.npy does not exist\."),
    # the wrong thing in the right place
    homogenise("cell.npy", "--json", "cell.npy", sentence="json must be a file of its own, got cell.npy"),
    homogenise("cell.npy", "--picture", "out.xyz", sentence="picture must end in one of"),
    homogenise("cell.npy", "--device", "abacus", sentence="device must be cpu, cuda or cuda:N, got abacus"),
    Case(HOMOGENISE, ["cell.npy", "--network", "cell.npy"], "cell.npy is not a voxel network", prepare=solid),
    Case(BENCH, ["--device", "abacus"], "device must be cpu, cuda or cuda:N, got abacus"),
    Case(GRADED, ["--network", "none.pt"], r"none\.pt does not exist\."),
    Case(GRADED, ["--network", "none.pt"], r"none\.pt does not exist\.", ranks=2),
]
if not __import__("torch").cuda.is_available():
    CASES += [
        Case(BENCH, ["--device", "cuda"], "device cuda is not available"),
        homogenise("cell.npy", "--device", "cuda", sentence="device cuda is not available"),
    ]

"""Bad input where laws are read: damaged artifacts, wrong manifests, laws that do not fit the work."""

import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_input import Case

FOLDER = Path(__file__).resolve().parents[2] / "surrogates" / "pretrained"
SHIPPED = FOLDER / "lattice_square_1.pt"
BENCH = "demos/benchmarks/bench_laws.py"


def truncated(folder: Path) -> None:
    (folder / "law.pt").write_bytes(SHIPPED.read_bytes()[:5000])


def compressed(folder: Path) -> Path:
    """The law with its entries compressed, as other tools write them."""
    with zipfile.ZipFile(SHIPPED) as source, zipfile.ZipFile(folder / "law.pt", "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return folder / "law.pt"


def bad_stream(folder: Path) -> None:
    """A compressed entry whose stream is not one."""
    path = compressed(folder)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = next(e for e in archive.infolist() if e.filename.endswith("manifest.json"))
    name, extra = struct.unpack_from("<HH", content, entry.header_offset + 26)
    start = entry.header_offset + 30 + name + extra
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(content)


def promises(folder: Path) -> None:
    """An index that promises four gigabytes in one entry."""
    path = compressed(folder)
    content = bytearray(path.read_bytes())
    at = content.find(b"PK\x01\x02")
    while at >= 0:
        struct.pack_into("<I", content, at + 24, 0xFFFFFFFE)
        at = content.find(b"PK\x01\x02", at + 4)
    path.write_bytes(content)


def manifest(**changes: Any) -> Callable[[Path], None]:
    """The law with other entries in its manifest."""

    def prepare(folder: Path) -> None:
        with zipfile.ZipFile(SHIPPED) as source, zipfile.ZipFile(folder / "law.pt", "w") as target:
            for name in source.namelist():
                content = source.read(name)
                if name.endswith("manifest.json"):
                    content = json.dumps({**json.loads(content), **changes}).encode()
                target.writestr(name, content)

    return prepare


def text(content: str) -> Callable[[Path], None]:
    """The law with something else for a manifest."""

    def prepare(folder: Path) -> None:
        with zipfile.ZipFile(SHIPPED) as source, zipfile.ZipFile(folder / "law.pt", "w") as target:
            for name in source.namelist():
                target.writestr(name, content if name.endswith("manifest.json") else source.read(name))

    return prepare


def edited(folder: Path) -> None:
    """One byte of the numbers is another one, and the archive says so nowhere."""
    with zipfile.ZipFile(SHIPPED) as source, zipfile.ZipFile(folder / "law.pt", "w") as target:
        for name in source.namelist():
            content = bytearray(source.read(name))
            if name.endswith("data/0"):
                content[0] ^= 1
            target.writestr(name, bytes(content))


def text_file(folder: Path) -> None:
    (folder / "law.pt").write_text("no archive")


def copied(folder: Path) -> None:
    shutil.copy(SHIPPED, folder / "law.pt")


def case(sentence: str, prepare: Callable[[Path], Any]) -> Case:
    return Case("surrogates.certificate", ["law.pt"], sentence, prepare)


CASES = [
    Case("surrogates.certificate", ["absent.pt"], r"absent.pt: there is no such law file\."),
    Case("surrogates.certificate", ["."], r"there is no such law file\."),
    Case("surrogates.certificate", ["law.pt", "--threads", "0"], r"threads must be at least 1, got 0\.", copied),
    case("not a TorchScript archive, or it is truncated or damaged", truncated),
    case("not a TorchScript archive, or it is truncated or damaged", text_file),
    case("not a TorchScript archive, or it is truncated or damaged", bad_stream),
    case("not a TorchScript archive, or it is truncated or damaged", promises),
    case("field hash does not match the content", edited),
    case("manifest must be a JSON object, got list", text("[]")),
    case("manifest must be a JSON object, got NoneType", text("null")),
    case("manifest.json is not JSON", text("{")),
    case("manifest.json is not JSON", text("[" * 100_000)),
    case("field schema must be one of 1, 2, got \\[1\\]", manifest(schema=[1])),
    case("field density must be a positive number, got an integer of more than 300 digits", manifest(density=10**400)),
    case("field density must be a positive number, got '1'", manifest(density="1")),
    case("field strain must be a text, got \\['small'\\]", manifest(strain=["small"])),
    case("field units must be an object, got None", manifest(units=None)),
    case("field observe must list names, got 1", manifest(observe=[1])),
    case("field state.fields must list name, offset and shape", manifest(state={"size": 9, "fields": [{"name": 1}]})),
    case("field training.lattice: cell does not fit", manifest(
        training={"command": "", "seed": 0, "epochs": 0, "lattice": {"cell": {}, "bar": {}}})),
    case("field training.lattice: cell does not fit", manifest(
        training={"command": "", "seed": 0, "epochs": 0, "lattice": "square-1"})),
    Case(BENCH, ["--law", "magnesium-recurrent"], "must name laws of lattice cells, but magnesium-recurrent is none"),
    Case(BENCH, ["--law", "magnesium-j2"], "--law must name laws of lattice cells, but magnesium-j2 is none"),
    Case(BENCH, ["--law", "voxels-multiscale"], "but no law"),
    Case(BENCH, ["--law", "j2"], "The law j2 needs yield_stress, .* by its name: magnesium-j2"),
    Case(BENCH, ["--law", "no-such-law"], "There is no law or artifact file .* shipped laws are magnesium-recurrent, "),
    Case(BENCH, ["--law", "no.module:law"], "The module .no.module. of the law .* cannot be imported"),
    Case(BENCH, ["--law", "math:tau"], "The module .math. has no callable .tau."),
    Case(BENCH, ["--law", "math:floor"], "The callable of the law .math:floor. does not take these options"),
    Case(BENCH, ["--law", "os:getcwd"], "must return a law or a PyTorch module, got "),
    Case(BENCH, ["--points", "100000000000"], "--points 100000000000 and --steps 20 need about .* GB"),
    Case(BENCH, ["--points", "1e11"], "Argument --points: invalid int value: '1e11'"),
    Case(BENCH, ["--points", "0"], "--points must be at least 1, got 0"),
    Case(BENCH, ["--increment", "nan"], "--increment must be a positive finite number, got nan"),
    Case("surrogates.pretrained", ["--no-such-option"], "no-such-option"),
]  # fmt: skip

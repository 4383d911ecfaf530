"""The reader takes a set that is whole and as it was made, and says in one sentence what is wrong with any other."""

import json
import logging
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from micro.data import dataset, shards
from micro.data.dataset import read_dataset
from micro.data.shards import TRAILER, content_hash

BEFORE = Path(__file__).with_name("before_the_move")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, make_set):
    """A finished set of 20 samples in 5 shards; samples 7 and 8 failed."""
    path = tmp_path_factory.mktemp("sets") / "whole"
    assert make_set(path) == 0
    return path


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of the finished set, to be spoiled."""
    return shutil.copytree(whole, tmp_path / "copy")


def edit_manifest(path, **changes):
    file = path / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_content(whole, caplog):
    with caplog.at_level(logging.WARNING):
        data = read_dataset(whole)
    assert data.ids.tolist() == [i for i in range(20) if i not in (7, 8)]
    assert data.failed == {7: "did not converge", 8: "stress is not finite"}
    assert "2 of 20 samples failed" in caplog.text
    assert data.U.shape == data.stress.shape == (18, 5, 6)
    assert data.time.shape == (18, 5)
    assert data.duration.shape == (18,)
    np.testing.assert_array_equal(data.stress, 2.0 * data.U)
    np.testing.assert_array_equal(data.time[0], [0, 0.25, 0.5, 0.75, 1])
    sample = 13  # one stream a sample: any sample can be made again alone
    rng = np.random.Generator(np.random.Philox(key=3, counter=[0, 0, 0, sample]))
    np.testing.assert_array_equal(data.U[data.ids == sample][0], 1.0 + rng.normal(size=(5, 6)))
    assert data.hash == data.meta["hash"]
    assert data.meta["parameters"] == {"steps": 4, "stiffness": 2.0}
    assert str(whole) not in json.dumps(data.meta)  # a set must not tell where it was made


def test_hash_does_not_see_shards_but_every_bit():
    arrays = {"a": np.arange(12.0).reshape(6, 2), "text": np.array(["x", "", "", "y", "", ""], dtype=object)}
    cut = [{name: array[part] for name, array in arrays.items()} for part in (slice(0, 1), slice(1, 6))]
    assert content_hash(cut) == content_hash([arrays])
    changed = arrays["a"].copy()
    changed[3, 1] = np.nextafter(changed[3, 1], 9.0)
    assert content_hash([arrays | {"a": changed}]) != content_hash([arrays])
    moved = np.array(["x", "", "y", "", "", ""], dtype=object)
    assert content_hash([arrays | {"text": moved}]) != content_hash([arrays])
    assert content_hash([{"a": arrays["a"].reshape(6, 1, 2)}]) != content_hash([{"a": arrays["a"]}])


def test_refuses_what_is_no_set(tmp_path):
    with pytest.raises(ValueError, match="nowhere is not a directory"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"has no dataset\.json"):
        read_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text('{"schema": 1, ')
    with pytest.raises(ValueError, match="not valid JSON"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("size", [0, 100, 5000, -1])
def test_refuses_truncated_shard(copy, size):
    shard = copy / "shard-0002.h5"
    content = shard.read_bytes()
    shard.write_bytes(content[:size])
    with pytest.raises(ValueError, match=r"shard-0002\.h5 is (truncated|damaged)"):
        read_dataset(copy)


def test_refuses_missing_and_extra_shards(copy):
    shutil.copy(copy / "shard-0004.h5", copy / "shard-0005.h5")
    with pytest.raises(ValueError, match=r"shard-0005\.h5 .* is not part"):
        read_dataset(copy)
    (copy / "shard-0005.h5").unlink()
    (copy / "shard-0001.h5").unlink()
    with pytest.raises(ValueError, match=r"shard-0001\.h5 is missing"):
        read_dataset(copy)


@pytest.mark.parametrize("options", [{"seed": 4}, {"stiffness": 2.5}])
def test_refuses_mixed_sets(copy, tmp_path, make_set, options):
    assert make_set(tmp_path / "other", **options) == 0
    shutil.copy(tmp_path / "other" / "shard-0003.h5", copy)
    with pytest.raises(ValueError, match=r"shard-0003\.h5 was made with other parameters"):
        read_dataset(copy)


def test_refuses_shards_in_wrong_order(copy):
    shutil.copy(copy / "shard-0003.h5", copy / "shard-0001.h5")
    with pytest.raises(ValueError, match=r"sample in shard-0001\.h5 must hold the ids 4 to 7"):
        read_dataset(copy)


def test_refuses_wrong_units(copy):
    with h5py.File(copy / "shard-0001.h5", "r+") as file:
        file["stress"].attrs["units"] = "GPa"
    with pytest.raises(ValueError, match=r"stress in shard-0001\.h5 must have units 'Pa', got 'GPa'"):
        read_dataset(copy)


def test_refuses_wrong_shape(copy):
    with h5py.File(copy / "shard-0001.h5", "r+") as file:
        values, attrs = file["U"][:, 1:], dict(file["U"].attrs)
        del file["U"]
        file["U"] = values
        file["U"].attrs.update(attrs)
    with pytest.raises(ValueError, match=r"U in shard-0001\.h5 must have shape \(4, 5, 6\), got \(4, 4, 6\)"):
        read_dataset(copy)


def test_refuses_missing_array(copy):
    with h5py.File(copy / "shard-0001.h5", "r+") as file:
        del file["duration"]
    with pytest.raises(ValueError, match=r"shard-0001\.h5 must hold U, duration"):
        read_dataset(copy)


def test_refuses_changed_values(copy):
    with h5py.File(copy / "shard-0001.h5", "r+") as file:
        file["stress"][0, 1, 2] *= 1 + 1e-15
    with pytest.raises(ValueError, match=r"shard-0001\.h5 does not have the content .*hash differs"):
        read_dataset(copy)


def test_refuses_edited_manifest(copy):
    manifest = json.loads((copy / "dataset.json").read_text())
    edit_manifest(copy, parameters={"steps": 4, "stiffness": 3.0})
    with pytest.raises(ValueError, match="parameter_hash"):
        read_dataset(copy)
    edit_manifest(copy, **(manifest | {"hash": "0" * 64}))
    with pytest.raises(ValueError, match=r"hash in .* is not that of the content"):
        read_dataset(copy)
    edit_manifest(copy, **(manifest | {"schema": 99}))
    with pytest.raises(ValueError, match=r"schema in .* is 99"):
        read_dataset(copy)


def test_unfinished_set_only_on_request(copy):
    edit_manifest(copy, complete=False, hash=None, shards=[])
    (copy / "shard-0001.h5").unlink()
    (copy / ".shard-0001.h5.host-1.part").write_bytes(b"half a file")
    with pytest.raises(ValueError, match="not finished: 4 of 5 shards"):
        read_dataset(copy)
    data = read_dataset(copy, allow_partial=True)
    assert data.ids.tolist() == [i for i in range(20) if i not in (4, 5, 6, 7, 8)]


def test_command_line(copy, capsys):
    assert dataset.main([str(copy)]) == 0
    said = capsys.readouterr().out
    assert "20 of 20, 2 failed, finished" in said
    assert read_dataset(copy).hash in said
    (copy / "shard-0000.h5").write_bytes(b"")
    assert dataset.main([str(copy)]) == 2
    captured = capsys.readouterr()
    assert captured.err == "shard-0000.h5 is damaged, truncated or not an HDF5 file.\n"


def overturn(path, position):
    """Change all bits of a byte of a file."""
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("place", [0.02, 0.09, 0.2, 0.5, 0.8, 0.97])
def test_refuses_overturned_bytes_before_hdf5_reads_them(copy, place, monkeypatch):
    path = copy / "shard-0001.h5"
    overturn(path, int(place * path.read_bytes().rindex(TRAILER)))

    def never(*_):
        raise AssertionError("the HDF5 library must not see a damaged file")

    monkeypatch.setattr(shards, "read_shard", never)
    with pytest.raises(ValueError, match=r"shard-0001\.h5 is damaged: its bytes are not those that were written"):
        read_dataset(copy)


@pytest.mark.parametrize("position", [726, 913, 1914, 1947])
def test_overturned_bytes_of_a_shard_without_hash_end_only_the_probe(tmp_path, position, monkeypatch):
    """These bytes give keys that are no text, a crash of the HDF5 library, an unknown encoding, and an endless loop."""
    monkeypatch.setattr(shards, "PROBE_SECONDS", 10.0)
    path = shutil.copytree(BEFORE, tmp_path / "set")
    overturn(path / "shard-0001.h5", position)
    with pytest.raises(ValueError, match=r"shard-0001\.h5 (is damaged|must hold)"):
        read_dataset(path)


def test_a_set_from_before_the_modules_moved_is_read(tmp_path):
    data = read_dataset(BEFORE)
    assert data.hash == "cf1b13d09dc0006232e4c66cc71f89801616c163f70c288e2e4a0580fc99ecdf"
    assert data.U.shape == data.stress.shape == (2, 3, 6)
    assert "taylor_source" in data.meta["code"]["modules"]
    path = shutil.copytree(BEFORE, tmp_path / "begun")  # as it was after the first of its two blocks
    edit_manifest(path, complete=False, hash=None, failed=None, shards=[])
    (path / "shard-0001.h5").unlink()
    with pytest.raises(ValueError, match="not finished: 1 of 2 shards"):
        read_dataset(path)
    begun = read_dataset(path, allow_partial=True)
    np.testing.assert_array_equal(begun.stress, data.stress[:1])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"shards": None}, r"shards in .* must be a list, got None"),
        ({"shards": [1, 2, 3, 4, 5]}, r"shards\[0\] in .* must be an object, got 1"),
        ({"shards": [{"file": 1, "first": 0, "samples": 4, "failed": 0, "hash": ""}]}, r"file in .* must be a text"),
        ({"samples": 10**15}, r"shards in .* must list the 250000000000000 shards"),
        ({"samples": 10**15, "complete": False}, r"is not finished: 5 of 250000000000000 shards"),
        ({"samples": "20"}, r"samples in .* must be an integer, got '20'"),
        ({"samples": True}, r"samples in .* must be an integer, got True"),
        ({"code": {"hash": "0", "modules": {}}}, r"code\.version is missing"),
        ({"code": None}, r"code in .* must be an object, got None"),
        ({"arrays": {"U": 1}}, r"arrays\.U in .* must be an object, got 1"),
        ({"complete": 1}, r"complete in .* must be true or false, got 1"),
        ({"hash": 7}, r"hash in .* must be a text or null, got 7"),
    ],
)
def test_refuses_a_manifest_with_entries_of_another_type(copy, changes, sentence):
    edit_manifest(copy, **changes)
    with pytest.raises(ValueError, match=sentence):
        read_dataset(copy)


def test_refuses_a_manifest_that_is_nested_without_end(copy):
    (copy / "dataset.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="not valid JSON"):
        read_dataset(copy)

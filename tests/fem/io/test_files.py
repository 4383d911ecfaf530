"""Files whole or not at all."""

import numpy as np
import pytest

from fem.io import files


def test_text_and_arrays_replace_what_was_there(tmp_path):
    for text in ("one", "two"):
        files.write_text(tmp_path / "a.txt", text)
    files.write_arrays(tmp_path / "b.npz", {"x": np.arange(3)})
    assert (tmp_path / "a.txt").read_text() == "two"
    with np.load(tmp_path / "b.npz") as found:
        np.testing.assert_array_equal(found["x"], [0, 1, 2])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.txt", "b.npz"]


def test_what_fails_leaves_the_former_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "before")

    def stop():
        with files.replacing(path) as part:
            part.write_text("half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        stop()
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        files.write_text(tmp_path / "none" / "a.txt", "")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        files.write_text(tmp_path, "")


def test_a_file_that_cannot_fit_is_not_begun(tmp_path):
    files.check_space(tmp_path / "a", 1)
    with pytest.raises(OSError, match="No space left on device, 1048576000000.0 MiB are needed"):
        files.check_space(tmp_path / "a", 2**40 * 10**6)


def test_remove_takes_files_folders_and_what_is_not_there(tmp_path):
    (tmp_path / "a").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b").write_text("")
    for name in ("a", "folder", "none"):
        files.remove(tmp_path / name)
    assert list(tmp_path.iterdir()) == []

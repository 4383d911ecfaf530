"""Files have their names only when they are whole, and memory is estimated before work."""

import pytest

from micro.data import cli
from micro.data.files import whole_file


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "a.json"
    for text in ("first", "second"):
        with whole_file(path) as part:
            part.write_text(text)
            assert part.suffix == ".json" and part != path
        assert path.read_text() == text

    def broken():
        with whole_file(path) as part:
            part.write_text("hal")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert path.read_text() == "second"
    assert list(tmp_path.iterdir()) == [path]


def test_what_does_not_fit_is_refused_with_the_estimate(monkeypatch):
    monkeypatch.setattr(cli, "available_memory", lambda device: 8e9)
    cli.check_memory("voxels", 8e9, name="resolution")
    with pytest.raises(ValueError, match=r"^voxels need about 8.1 GB of memory, but only 8 GB are available\.$"):
        cli.check_memory("voxels", 8.1e9)
    with pytest.raises(ValueError, match=r"^resolution must be smaller: voxels need about 3.0e\+05 PB of memory, but"):
        cli.check_memory("voxels", 3e20, name="resolution")


def test_the_memory_that_is_available_is_that_of_this_machine():
    assert 1e8 < cli.available_memory() < 1e14

"""Files of a command: refused before the work, written whole or not at all."""

import pytest

from surrogates.training.output_file import check_output, whole_file


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


def test_what_could_not_be_written_or_would_hide_another_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cell = tmp_path / "cell.npy"
    check_output("json", tmp_path / "new.json", [cell])
    for path in (tmp_path, tmp_path / "none" / "a"):
        with pytest.raises(ValueError, match="json must be a file in a folder that exists, got"):
            check_output("json", path)
    with pytest.raises(ValueError, match="json must be a file of its own, got cell.npy"):
        check_output("json", cell.relative_to(tmp_path), [cell])

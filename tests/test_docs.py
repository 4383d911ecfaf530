"""The documentation: what it shows runs, what it names exists, and its pages can be read."""

import importlib.util
import re
from pathlib import Path

import pytest
from mpi4py import MPI

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "docker").glob("*.md")])
PYTHON = re.compile(r"```python\n(.*?)```", re.S)


def label(path: Path) -> str:
    """A page as pytest shows it."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_a_page_can_be_read(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
    assert [f"line {number}: {len(line)}" for number, line in enumerate(lines, 1) if len(line) > 140] == []


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith(("http:", "https:", "mailto:"))]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_commands_and_modules_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = [name for name in re.findall(r"-m ((?:fem|meshes|micro|surrogates)[\w.]*)", text) if not there(name)]
    names = re.findall(r"`((?:fem|meshes|micro|surrogates)(?:\.\w+)+)[`(]", text)
    missing += [name for name in names if not there(name) and not there(name.rpartition(".")[0])]
    folders = "demos|tests|docker|fem|meshes|micro|surrogates"
    files = re.findall(rf"(?<![\w/.])((?:{folders})/[\w/.-]+\.(?:py|pt|json|txt|md))", text)
    missing += [name for name in files if not (ROOT / name).exists()]
    assert missing == []


def there(name: str) -> bool:
    """Whether a dotted name is a module of ours."""
    base = ROOT.joinpath(*name.split("."))
    return base.with_suffix(".py").is_file() or (base / "__init__.py").is_file()


@pytest.mark.mpi
@pytest.mark.parametrize("page", [page for page in PAGES if PYTHON.search(page.read_text(encoding="utf-8"))], ids=label)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """The examples of a page, one after the other, in one namespace, on any number of ranks."""
    folder = MPI.COMM_WORLD.bcast(str(tmp_path))
    monkeypatch.chdir(folder)
    names: dict = {"__name__": "example"}
    for number, block in enumerate(PYTHON.findall(page.read_text(encoding="utf-8")), 1):
        exec(compile(block, f"{label(page)}, example {number}", "exec"), names)  # the page is ours
    MPI.COMM_WORLD.barrier()
    capsys.readouterr()


def test_the_package_of_the_docs_is_this_clone() -> None:
    spec = importlib.util.find_spec("fem")
    assert spec is not None and spec.origin is not None
    assert Path(spec.origin).is_relative_to(ROOT)

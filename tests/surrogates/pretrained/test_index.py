"""The index of the shipped files: complete, true, and listed by a command."""

import json
from pathlib import Path

import pytest

from surrogates import pretrained
from surrogates.artifact import load_law, read_manifest, shipped
from surrogates.artifact.load import content_hash, read_json
from surrogates.artifact.shipped import FOLDER, find, law_names, locate

LAWS = [entry for entry in shipped() if entry.is_law]
# The content of the shipped laws, as it was when they were trained: a move of the code must not change it.
HASHES = {
    "lattice_cube_1": "5fb3eff47cf17e57c19c455f62a8e8b46e04025413fb53a2bad511eb27bae72e",
    "lattice_cube_2_perturbed": "0e59cc7e7ea94b545b3ac284941e66b84d016f17511d0e2c710292c60d410de0",
    "lattice_square_1": "014118d497ec756501923c8bda65b1194d9a284e403f30163b5d3c8065bcebf7",
    "pca_net": "b99118c925217a1ccb737ce5521c9642757e36cdb93f30b9e43b5554ed7abe79",
    "recurrent": "79041a98defcea80c478375b994a10fdb159894e585228a70cd09622fbb04c4a",
    "tann_cube_1": "91ce1c335b3ee64c1bfb346d8b318aeca25d711e4a431cb021ea328e00ada1c3",
    "tann_cube_2_perturbed": "cfaadb6934f031f34035abbd55f55a3e0c98d6d71092a3e1b6b0c562e3e031f7",
    "tann_given_cube_1": "b8c1d2888701937d9a38c455708fdc6a6446f6396acb8e569607af95dbb6b824",
    "tann_network_cube_1": "93df3d61591dd8e670938d8c406e59cd79853c545ff4f8ab65a9e9888df6177a",
    "tann_network_square_2": "280cdcd0b1163012d8cdca5c640e64a9e0cba8d081dc6e72f68b63d3e7c85aee",
    "tann_square_2": "89754fc44363d2cd3c1039a82abb83038392b8d778b9443208e3a6489052e778",
    "tann_square_2_perturbed": "eb541ef6b58b7d22eb85bdc1bfd10eeaf449833e8de159ffdfc83ed2f19fb33b",
    "tann_square_4": "b24e28bd1e58f9ddf146cc0cb3ec5e6e312f7ca99f84f769a238bc7e0c85ad75",
    "tann_square_4_perturbed": "24df7c203f200224901e9e6dfe5695b9c4ee7eb5575092b6c2021dd3ef568f35",
    "tann_square_6": "fc3a9a4262127568cf69803c611fbc57bf3fe8ff622907e9e17b75b653f79d5c",
    "tann_square_6_perturbed": "1603932cfa70059156e54422f653f7515ddbb5254a9ebea8351b3b7ad3ea5460",
}


def test_the_index_names_every_file_once():
    entries = shipped()
    files = {file for file in FOLDER.glob("*.pt")} | {FOLDER / "johnson_cook.json"}
    assert {entry.file for entry in entries} == files and len(entries) == len(files)
    assert len({entry.name for entry in entries}) == len(entries)
    assert {"magnesium-recurrent", "magnesium-pca-net", "lattice-cube-1", "tann-square-2"} <= set(law_names())


@pytest.mark.parametrize("entry", LAWS, ids=lambda entry: entry.name)
def test_what_the_index_says_is_what_the_law_is(entry):
    manifest = read_manifest(entry.file)
    assert (entry.kind, entry.dimension, entry.strain) == (manifest.kind, manifest.dimension, manifest.strain)
    assert (entry.error is None) == (manifest.kind == "lattice")
    if entry.error is not None:
        assert manifest.errors[entry.error[0]] == entry.error[1]


@pytest.mark.parametrize("entry", LAWS, ids=lambda entry: entry.name)
def test_content_is_what_it_was(entry):
    stored = read_json(entry.file)
    assert content_hash(entry.file, stored) == stored["hash"] == HASHES[entry.file.stem]
    assert set(HASHES) == {each.file.stem for each in LAWS}


@pytest.mark.parametrize("entry", LAWS, ids=lambda entry: entry.name)
def test_manifests_of_the_first_schema_get_roles(entry):
    manifest = load_law(entry.file).manifest
    lattice = manifest.kind in ("lattice", "tann", "tann-network")
    assert (manifest.microstructure is not None) == lattice
    if not lattice:
        roles = {"stored_energy", "dissipation"} if manifest.kind == "recurrent" else set()
        assert {each.quantity for each in manifest.observables} == {"other", *roles}
        return
    structure = manifest.microstructure
    assert structure.parameters() == read_json(entry.file)["training"]["lattice"]
    assert "lattice" not in manifest.training.details
    d, bars, nodes = manifest.dimension, len(structure.cell.bars), len(structure.cell.nodes)
    columns = [manifest.column("stored_energy"), manifest.column("dissipation")]
    variables = sum(each.quantity == "internal_variable" for each in manifest.observables)
    columns += [manifest.column("internal_variable", k) for k in range(variables)]
    columns += [manifest.column("bar_force", k) for k in range(bars)]
    columns += [manifest.column("node_displacement", k, axis) for k in range(nodes) for axis in range(d)]
    assert columns == list(range(len(manifest.observables)))


def test_files_are_found_by_either_name():
    for name in ("magnesium-recurrent", "recurrent", "recurrent.pt"):
        assert find(name).file == locate(name) == FOLDER / "recurrent.pt"
    assert find("recurent") is None and locate("recurent") == Path("recurent")


def test_the_command_lists_them_with_their_errors(capsys):
    assert pretrained.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [entry.name for entry in shipped()]
    error = json.loads((FOLDER / "recurrent.json").read_text())["errors"]["deviatoric"]
    assert f"deviatoric {error:.1e}" in next(line for line in lines if line.startswith("magnesium-recurrent"))


def test_a_damaged_index_is_one_sentence(tmp_path):
    (tmp_path / "index.json").write_text("[")
    with pytest.raises(ValueError, match=r"index\.json cannot be read"):
        shipped(tmp_path)
    (tmp_path / "index.json").write_text("[]")
    with pytest.raises(ValueError, match="must hold a JSON object, got list"):
        shipped(tmp_path)

"""Configurations: options on the command line, and the bounds of what a training can use."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch

import micro.data.cli
from surrogates.path.overlay import Overlay
from surrogates.path.recurrent_training import RecurrentConfig
from surrogates.training.config import (
    BYTES_PER_PARAMETER,
    add_config,
    check_device,
    check_integers,
    check_network_size,
    check_output,
    check_rates,
    check_seed,
    option,
)


@dataclass(frozen=True)
class Example:
    """One field of each kind."""

    width: int = option(8, "width of the layers")
    learning_rate: float = option(1e-3, "first learning rate")
    final_rate: float = option(1e-5, "last learning rate")
    measure: Literal["stretch", "strain"] = option("stretch", "what is seen", export=True)
    augment: bool = option(False, "turn the paths")


def parse(*words: str) -> Example:
    parser = argparse.ArgumentParser()
    add_config(parser, Example)
    return Example(**vars(parser.parse_args(words)))


def test_fields_are_options() -> None:
    assert parse() == Example()
    found = parse("--width", "3", "--learning-rate", "0.5", "--measure", "strain", "--augment")
    assert found == Example(3, 0.5, 1e-5, "strain", True)
    assert parse("--no-augment").augment is False


@pytest.mark.parametrize("width", [0, -1, 10**7, 2.0, True])
def test_integers_lie_in_their_range(width: int) -> None:
    with pytest.raises(ValueError, match="width must be an integer from 1 to 1000000, got"):
        check_integers(Example(width=width), 1, "width")


@pytest.mark.parametrize("change", [{"learning_rate": float("nan")}, {"learning_rate": 0.0}, {"final_rate": 1.0}])
def test_rates_fall(change: dict[str, float]) -> None:
    check_rates(Example())
    with pytest.raises(ValueError, match=f"{next(iter(change))} must"):
        check_rates(Example(**change))  # type: ignore[arg-type]


def test_seeds_are_those_that_all_generators_accept() -> None:
    check_seed(2**63 - 1)
    for seed in (-1, 2**63, 1.5):
        with pytest.raises(ValueError, match="seed must be an integer from 0"):
            check_seed(seed)  # type: ignore[arg-type]


def test_networks_that_do_not_fit_in_memory_are_refused_with_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro.data.cli, "available_memory", lambda device: 8e9)
    check_network_size(8e9 / BYTES_PER_PARAMETER)
    with pytest.raises(ValueError, match=r"smaller: the 1e.09 parameters in training need about 16 GB .* only 8 GB"):
        check_network_size(1e9)


def test_sizes_give_the_number_of_parameters() -> None:
    for config in (RecurrentConfig(), RecurrentConfig(elements=2, memory=9, width=30, mixed=5, products=1, basis=2)):
        found = sum(p.numel() for p in Overlay(config.sizes).parameters())
        assert found == config.sizes.parameters()


def test_devices_that_are_available(monkeypatch: pytest.MonkeyPatch) -> None:
    check_device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device("cuda")
    check_device("cuda:1")
    with pytest.raises(ValueError, match=r"cuda:2 is not available: this PyTorch finds 2, counted from cuda:0\."):
        check_device("cuda:2")


@pytest.mark.parametrize("device", ["abacus", "cuda:", "cuda:x", "cpu:0", ""])
def test_strings_that_are_no_devices(device: str) -> None:
    with pytest.raises(ValueError, match=f"device must be cpu, cuda or cuda:N, got {device}."):
        check_device(device)


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device cuda:1 is not available: this PyTorch finds no GPU."):
        check_device("cuda:1")


def test_what_could_not_be_written_or_would_hide_another_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cell = tmp_path / "cell.npy"
    check_output("json", tmp_path / "new.json", [cell])
    for path in (tmp_path, tmp_path / "none" / "a"):
        with pytest.raises(ValueError, match="json must be a file in a folder that exists, got"):
            check_output("json", path)
    with pytest.raises(ValueError, match="json must be a file of its own, got cell.npy"):
        check_output("json", cell.relative_to(tmp_path), [cell])

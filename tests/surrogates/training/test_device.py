"""Devices: what is none, or is not there, is refused in a sentence."""

import pytest
import torch

from surrogates.training.device import check_device


def test_devices_that_are_there(monkeypatch):
    check_device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device("cuda")
    check_device("cuda:1")
    with pytest.raises(ValueError, match=r"device cuda:2 is not there: this PyTorch sees 2, from cuda:0\."):
        check_device("cuda:2")


@pytest.mark.parametrize("device", ["abacus", "cuda:", "cuda:x", "cpu:0", ""])
def test_devices_that_are_none(device):
    with pytest.raises(ValueError, match=f"device must be cpu, cuda or cuda:N, got {device}."):
        check_device(device)


def test_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device cuda:1 is not there: this PyTorch sees no GPU."):
        check_device("cuda:1")

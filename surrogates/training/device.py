"""Device of PyTorch that a command is asked to use."""

import torch


def check_device(device: str) -> None:
    """Refuse a device that is none, or that is not there.

    Args:
        device: cpu, cuda, cuda:1 and so on.

    Raises:
        ValueError: One sentence that says which.
    """
    kind, colon, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not (kind == "cuda" and number.isdecimal())):
        raise ValueError(f"device must be cpu, cuda or cuda:N, got {device}.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device} is not there: this PyTorch sees no GPU.")
    if number and int(number) >= torch.cuda.device_count():
        raise ValueError(f"device {device} is not there: this PyTorch sees {torch.cuda.device_count()}, from cuda:0.")

"""Choose the device of a model. torch is loaded only when it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from saliency_r1.errors import SaliencyError

if TYPE_CHECKING:
    import torch


def choose_device(name: str = "auto") -> torch.device:
    """Return the device with that name; `auto` prefers CUDA, then Apple's MPS, then the CPU.

    Raises:
        SaliencyError: if the name is unknown, or the machine has no such device.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SaliencyError(f"unknown device {name!r}: choose auto, cpu, cuda, cuda:0 or mps") from None
    missing = {
        "cuda": not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count(),
        "mps": not torch.backends.mps.is_available(),
    }
    if missing.get(device.type, False):
        raise SaliencyError(f"this machine has no device {name!r}: leave the device on auto, or choose cpu")
    return device


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16.

    A CPU without them computes in float32 between conversions, and is many times slower than in float32.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
    return False


def moved(tensor: torch.Tensor, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Copy a tensor to a device, in a type.

    The copy to a GPU uses pinned memory, so the CPU need not wait for it.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.to(dtype or tensor.dtype).pin_memory().to(device, non_blocking=True)
    return tensor.to(device, dtype)


@contextmanager
def fewer_torch_threads(workers: int) -> Iterator[None]:
    """Reduce torch's threads to a share while `workers` threads of our own call it."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // workers))
    try:
        yield
    finally:
        torch.set_num_threads(threads)

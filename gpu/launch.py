"""What every operation asks before it runs: is there a device, does Triton interpret, how many programs fill the chip."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from typing import TYPE_CHECKING

from vecdb.errors import InvalidInput, MissingExtra

if TYPE_CHECKING:
    import torch

_WHAT = "search on a GPU"


class OutOfDeviceMemory(MemoryError):
    """The device had no room even for the smallest block."""


def need_triton() -> None:
    """Raises MissingExtra, with the line that installs it, if torch or triton is absent."""
    for package in ("torch", "triton"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtra.of(package, extra="gpu", what=_WHAT) from error


def is_interpreted() -> bool:
    """Do kernels run on the CPU, in Triton's interpreter (TRITON_INTERPRET=1)? A means of tests: it is slow."""
    import triton

    return bool(triton.knobs.runtime.interpret)


def chosen_device(name: str) -> str:
    """What `device=` of a database means: "cpu" for the CPU's own ways, else the GPU "cuda:0", …, which kernels can use.

    "auto" is the first GPU where there is one and the packages it needs, and else the CPU. Raises MissingExtra and InvalidInput
    if a GPU is named that cannot be used.
    """
    if name == "cpu" or (name == "auto" and not all(find_spec(package) for package in ("torch", "triton"))):
        return "cpu"
    need_triton()
    return str(device_of(name))


def device_of(name: str | torch.device) -> torch.device:
    """The device a user named, if it is here. "auto" is the first GPU, or the CPU where there is none.

    Raises InvalidInput for a name that is none, or a GPU that this machine has not.
    """
    import torch

    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidInput(f'device is {name!r}; it must be "auto", "cpu", "cuda" or "cuda:0", "cuda:1" …') from error
    if device.type not in ("cpu", "cuda"):
        raise InvalidInput(f'device is {name!r}; kernels run on "cpu" and "cuda" alone')
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise InvalidInput(
                f'device is {name!r}, and this machine has {count} CUDA devices that PyTorch can use; take "cpu" or "auto"'
            )
        return torch.device("cuda", device.index or 0)
    return device


def need_kernels(device: torch.device) -> None:
    """Raises InvalidInput if Triton can run nothing on this device."""
    if device.type != "cuda" and not is_interpreted():
        raise InvalidInput(
            f"tensors lie on {device}, and kernels run on a GPU; move them to one, or take vecdb.gpu.reference, which runs "
            "anywhere (TRITON_INTERPRET=1, set before the start, runs kernels on a CPU too, slowly, to test them)"
        )


@functools.cache
def processors(device: torch.device) -> int:
    """How many programs run side by side at least: the multiprocessors of a GPU. 3 in the interpreter, so that loops turn."""
    import torch

    return 3 if device.type != "cuda" else torch.cuda.get_device_properties(device).multi_processor_count

"""Devices, what fits into their memory at once, and the processes that share the work.

A process that takes itself for the only one repeats all the work and overwrites the files of the others. So the number
of processes that a launcher reports is compared with the number among which Accelerate shares the work.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import sys
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from genprior.checks import Shape

# What a denoiser keeps for a backward pass; an operator or a decoder needs much less.
BYTES_PER_PIXEL = 10_000
PIXELS_AT_ONCE = {"cpu": 2**18, "mps": 2**19}
# Smaller tiles are mostly overlap; without a graph, 0.2 GB of activations are enough for tiles of this size.
LEAST_TILE = {"cpu": 1024}
# Where launchers report how many processes they started: torchrun; MPICH and Intel, Open MPI, MVAPICH; srun.
SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
SHARED_BY = ("cuda", "xpu", "npu", "mlu", "musa", "hpu")  # devices that Accelerate shares work between


def pick_device(device: str | torch.device) -> torch.device:
    """The device of that name; "auto" takes the fastest available.

    Raises:
        ValueError: there is no such device here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.zeros(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:  # AssertionError: torch was built without CUDA
        raise ValueError(f'device={device!r} cannot be used here ({error}); "auto" takes the best there is.') from None


def device_name(device: torch.device) -> str:
    """The accelerator's name, or the number of CPU threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def device_of(module: nn.Module) -> torch.device:
    """Where a prior or network lives and computes."""
    return next((t.device for t in (*module.parameters(), *module.buffers())), torch.device("cpu"))


def state_of(module: nn.Module) -> Tensor:
    """An empty tensor on the device of a prior or network, in its precision, at least float32, as operators need."""
    state = next((t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()), torch.empty(0))
    return torch.empty(0, dtype=torch.promote_types(state.dtype, torch.float32), device=state.device)


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 instructions, and so is fast in it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def pixels_at_once(device: torch.device) -> int:
    """A number of pixels that fits: on a GPU, into half the free memory."""
    if device.type != "cuda":
        return PIXELS_AT_ONCE.get(device.type, 2**18)
    free, _ = torch.cuda.mem_get_info(device)
    # Memory that torch keeps for reuse is free too.
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (free + cached) // 2 // BYTES_PER_PIXEL


def rows_at_once(image_shape: Shape, device: torch.device) -> int:
    """How many images of that shape to process at once."""
    return max(1, pixels_at_once(device) // (image_shape[-2] * image_shape[-1]))


def tile_side(device: torch.device) -> int:
    """Side of the largest square that fits, and of the tiles of larger images."""
    return max(LEAST_TILE.get(device.type, 512), math.isqrt(pixels_at_once(device)))


def forget_peak(device: torch.device) -> None:
    """Measure `peak_memory` from now on, where the device can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """In MiB: on cuda, the most that torch held since `forget_peak`, else the process's largest resident set so far.

    None on Windows, which does not report it.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    if importlib.util.find_spec("resource") is None:
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)


class Alone:
    """One process, with the interface of accelerate's PartialState."""

    process_index = 0
    num_processes = 1
    is_main_process = True

    def wait_for_everyone(self) -> None:
        """Return at once: there is nobody to wait for."""

    def main_process_first(self) -> contextlib.AbstractContextManager:
        """Do nothing: no other process comes later."""
        return contextlib.nullcontext()


def processes(device: str | torch.device = "auto") -> Any:
    """The processes that share the work, as accelerate's PartialState; `Alone` if no launcher started several.

    Accelerate keeps one state for the whole process, so it is left alone if there is nothing to share.

    Arguments:
        device: the kind to compute on, one device per process; "auto" for the available accelerator, or else CPUs.

    Raises:
        ValueError: a launcher started several, and they do not see each other, or cannot have such a device each.
    """
    variable, began = launched()
    if began == 1:
        return Alone()
    from accelerate import PartialState

    kind = _kind() if device == "auto" else torch.device(device).type
    if kind not in ("cpu", *SHARED_BY):
        raise ValueError(f"device is {device}, between which no work is shared: give cpu, or launch one process.")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if kind == "cuda" and here > (count := torch.cuda.device_count()):
        raise ValueError(
            f"{here} processes were launched on a machine of {count} GPU(s), and each needs its own: launch as many as "
            "there are, or compute on CPUs, with CUDA_VISIBLE_DEVICES set to nothing."
        )
    # Processes wait for the slowest of them, which may take days.
    state = PartialState(cpu=kind == "cpu", timeout=timedelta(days=30))
    if state.num_processes != began:
        raise ValueError(
            f"{began} processes were launched ({variable}={began}), but work would be shared among "
            f"{state.num_processes}: each would do all of it, into the same folder. Launch them by torchrun "
            f"--nproc_per_node {began} -m genprior …; if they are to work apart, unset {variable}."
        )
    return state


def alone(what: str) -> None:
    """Raise an error if this is one of several processes in `what`, which does not share its work.

    Raises:
        ValueError: a launcher started several.
    """
    variable, began = launched()
    if began > 1:
        raise ValueError(
            f"{what} is work for one process, and {began} were launched ({variable}={began}): call it without a "
            f"launcher; if the processes are to work apart, unset {variable}."
        )


def launched() -> tuple[str, int]:
    """The variable in which a launcher reports its number of processes, and that number; "" and 1 if none does.

    Raises:
        ValueError: `accelerate launch` was asked for several and started one.
    """
    for name in SIZES:
        if os.environ.get(name, "").isdigit():
            return name, int(os.environ[name])
    # Without a GPU it starts one process, whatever --num_processes says; only an address tells of several.
    if "ACCELERATE_DYNAMO_BACKEND" in os.environ and "MASTER_ADDR" in os.environ:
        raise ValueError(
            "accelerate launch was asked for several processes (MASTER_ADDR is set) and began only this one, as it "
            "does on CPUs: launch them by torchrun --nproc_per_node N -m genprior …, or leave --num_processes out."
        )
    return "", 1


def _kind() -> str:
    """The type of the devices to share work between: the accelerator's if Accelerate can, else CPUs."""
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on", "t", "y"):
        return "cpu"
    # A torch built for an accelerator names it even where there is none.
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found.type if found is not None and found.type in SHARED_BY else "cpu"

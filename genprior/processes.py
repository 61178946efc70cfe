"""The processes that a launcher began, torchrun's or another's, and that they all are seen.

A process that takes itself for the only one does all the work again, and writes over what the others write. So the
number that a launcher says it began is compared with the number that Accelerate shares the work among.
"""

from __future__ import annotations

import contextlib
import os
from datetime import timedelta
from typing import Any

import torch

# Where launchers say how many processes they began: torchrun; MPICH and Intel, Open MPI, MVAPICH; srun.
SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
SHARED_BY = ("cuda", "xpu", "npu", "mlu", "musa", "hpu")  # devices between which Accelerate shares work


class Alone:
    """One process, in the words of accelerate's PartialState."""

    process_index = 0
    num_processes = 1
    is_main_process = True

    def wait_for_everyone(self) -> None:
        """Nobody to wait for."""

    def main_process_first(self) -> contextlib.AbstractContextManager:
        """Nobody comes later."""
        return contextlib.nullcontext()


def processes(device: str | torch.device = "auto") -> Any:
    """The processes among which work is shared, as a PartialState of accelerate; `Alone` if nothing launched several.

    Accelerate keeps one state for the whole process, so it is left alone where there is nothing to share.

    Arguments:
        device: what each is to compute on, of which each takes its own; "auto" for the accelerator there is, or CPUs.

    Raises:
        ValueError: a launcher began several, and they do not see each other, or cannot have such a device each.
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
    # They wait for the slowest of them, which may take days.
    state = PartialState(cpu=kind == "cpu", timeout=timedelta(days=30))
    if state.num_processes != began:
        raise ValueError(
            f"{began} processes were launched ({variable}={began}), but work would be shared among "
            f"{state.num_processes}: each would do all of it, into the same folder. Launch them by torchrun "
            f"--nproc_per_node {began} -m genprior …; if they are to work apart, unset {variable}."
        )
    return state


def alone(what: str) -> None:
    """Refuse to be one of several processes, for `what`, which no processes share.

    Raises:
        ValueError: a launcher began several.
    """
    variable, began = launched()
    if began > 1:
        raise ValueError(
            f"{what} is work for one process, and {began} were launched ({variable}={began}): call it without a "
            f"launcher; if the processes are to work apart, unset {variable}."
        )


def launched() -> tuple[str, int]:
    """How many processes a launcher says it began, with where it says so.

    Raises:
        ValueError: `accelerate launch` was asked for several and began one.
    """
    for name in SIZES:
        if os.environ.get(name, "").isdigit():
            return name, int(os.environ[name])
    # Without a GPU it begins one process, whatever --num_processes says; of several it gives away but an address.
    if "ACCELERATE_DYNAMO_BACKEND" in os.environ and "MASTER_ADDR" in os.environ:
        raise ValueError(
            "accelerate launch was asked for several processes (MASTER_ADDR is set) and began only this one, as it "
            "does on CPUs: launch them by torchrun --nproc_per_node N -m genprior …, or leave --num_processes out."
        )
    return "", 1


def _kind() -> str:
    """The type of the devices to share work between: the accelerator's, if Accelerate can, else CPUs."""
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on", "t", "y"):
        return "cpu"
    # A torch that was built for an accelerator names it where there is none, too.
    found = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
    return found if found in SHARED_BY else "cpu"

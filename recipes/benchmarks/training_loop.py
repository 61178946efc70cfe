"""What the training loop costs: a step of `train` over the bare forward, backward and optimiser step.

    python recipes/benchmarks/training_loop.py --family ddpm --size 64 --batch 16
    python recipes/benchmarks/training_loop.py --family nf --size 28 --channels 1 --batch 64 --fixed
    python recipes/benchmarks/training_loop.py --family ddpm --size 64 --batch 16 --data PHOTOS

Before every step of the loop a copy of the network makes a bare step on a batch of the same size: objective, backward,
AdamW, nothing else. The loop's step includes everything: loading, clipping, averaging of weights, check for NaN, log
and bar. Both are CPU times (on a GPU, wall times); it prints the median (quartiles) of their ratio over steps. With
--data the loop reads and decodes photographs, which the bare step does not.
"""

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import machine
from torch.utils.data import Dataset

from genprior.training.data import Photos
from genprior.training.families import plan
from genprior.training.loop import Settings, train


class Interleaved(Dataset):
    """Items of `data`; when a batch begins, time the previous step and make a bare one."""

    def __init__(self, data, batch: int, bare, clock):
        self.data, self.batch, self.bare, self.clock = data, batch, bare, clock
        self.ratios, self.began, self.seconds = [], None, None

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, item: int) -> dict:
        if item % self.batch == 0:
            now = self.clock()
            if self.began is not None:
                self.ratios.append((now - self.began) / self.seconds)
            now = self.clock()
            self.bare(item // self.batch)
            self.began = self.clock()
            self.seconds = self.began - now
        return self.data[item]


class Fixed(Dataset):
    """The same images at every step, in memory."""

    def __init__(self, x):
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, item: int) -> dict:
        return {"x": self.x[item % len(self.x)], "item": item}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="ddpm")
    for name, default in (("size", 64), ("channels", 3), ("batch", 16), ("steps", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--fixed", action="store_true", help="a prior of images of one size")
    parser.add_argument("--precision", default="no", choices=["no", "bf16"])
    parser.add_argument("--data", help="folder of photographs")
    options = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x = torch.rand(
        options.batch, options.channels, options.size, options.size, generator=torch.Generator().manual_seed(0)
    )
    shape = (options.channels, options.size, options.size) if options.fixed else (options.channels, None, None)
    chosen = plan(options.family, shape, 0, x, 0)
    objectives = copy.deepcopy(chosen.objectives)
    for objective in objectives:
        objective.to(device, memory_format=torch.channels_last).train()
    optimizers = [torch.optim.AdamW(o.parameters(), lr=1e-4, fused=True) for o in objectives]
    batch = {"x": x.to(device), "item": torch.arange(options.batch, device=device)}

    def bare(step: int) -> None:
        for objective, optimizer in zip(objectives, optimizers):
            with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
                loss, _ = objective(batch, step)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    def clock() -> float:
        if device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    data = Photos(options.data, options.size, channels=options.channels) if options.data else Fixed(x)
    data = Interleaved(data, options.batch, bare, clock)
    seldom = {"save_every": 10**6, "validate_every": 10**6, "log_every": 10, "precision": options.precision}
    settings = Settings(options.steps + 5, options.batch, **{**chosen.settings, **seldom})
    with tempfile.TemporaryDirectory() as out:
        train(chosen.prior, chosen.objectives, data, settings, Path(out))
    low, middle, high = statistics.quantiles(data.ratios[4:], n=4)
    print(f"{machine(device)}; {options.family}, {options.batch} x {shape}, {options.size} px, {options.precision}")
    print(f"loop / bare step: {middle:.3f} ({low:.3f} - {high:.3f})")


if __name__ == "__main__":
    main()

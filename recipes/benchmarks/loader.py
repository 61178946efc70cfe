"""Whether loading keeps up: a training step of `ddpm-photo` with photographs over the same step with a fixed batch.

    python recipes/benchmarks/loader.py --data PHOTOS [--kept 0 [--workers 1]]

The two kinds of steps take turns. It prints items per second and the median (quartiles) of the ratio. With --kept 0
every photograph is decoded every time, as for data larger than memory. Without workers, times are CPU times.
"""

import argparse
import statistics
import time

import torch
from common import machine
from torch.utils.data import DataLoader

from genprior.priors.folder import read_prior
from genprior.priors.store import find_prior
from genprior.training.data import Photos, item_numbers, photos
from genprior.training.objectives import Denoising

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", required=True, help="folder of photographs")
parser.add_argument("--kept", type=float, default=1, help="GiB of decoded photographs that are kept (default: 1)")
for name, default in (("batch", 16), ("steps", 12), ("workers", 0)):
    parser.add_argument(f"--{name}", type=int, default=default)
options = parser.parse_args()
clock = time.perf_counter if options.workers else time.process_time
photos.DECODED_BYTES = int(options.kept * 2**30)

objective = Denoising(read_prior(find_prior("ddpm-photo")).train().requires_grad_(), seed=0)
objective.to(memory_format=torch.channels_last)
optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-4, fused=True)


def seconds(batch: dict | None, step: int) -> float:
    """Return the seconds of a step on that batch, or on a loaded one for None."""
    began = clock()
    batch = next(loader) if batch is None else batch
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = objective(batch, step)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return clock() - began


data = Photos(options.data)
_ = [data[item] for item in range(len(data))]  # only epochs after the first are measured
began = time.process_time()
_ = [data[item] for item in range(len(data), len(data) + 320)]
rate = 320 / (time.process_time() - began)
batches = item_numbers(0, options.steps + 2, options.batch, 0, 1)
loader = iter(DataLoader(data, batch_sampler=batches, num_workers=options.workers))
fixed = next(loader)
times = [(seconds(None, step), seconds(fixed, step)) for step in range(options.steps + 1)][1:]
low, middle, high = statistics.quantiles((real / bare for real, bare in times), n=4)
print(f"{machine(torch.device('cpu'))}; {len(data)} photographs, {options.workers} worker(s)")
print(
    f"{rate:.0f} items / s, a step of {options.batch}: {middle:.3f} ({low:.3f} - {high:.3f}) of one with a fixed batch"
)

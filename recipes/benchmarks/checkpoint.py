"""The cost of a first picture with a published checkpoint: memory and seconds to read it, seconds to restore.

    python recipes/benchmarks/checkpoint.py
    python recipes/benchmarks/checkpoint.py --half --samplers
    python recipes/benchmarks/checkpoint.py --prior ffhq_10m.pt --side 256 --samplers auto diffpir ddrm

Without --prior it is the network of FFHQ with random weights, written to a temporary file: equally large and fast. The
image is noise, the task super-resolution by 4, with one draw; "auto" makes the picture alone, as `restore` does. Memory
is the largest resident set of a process that reads the checkpoint, less that before it reads.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import machine

import genprior
from genprior.nets.adm import ADMUNet
from genprior.priors.foreign.weights import is_weights

MEASURE = """
import importlib.util, sys, time, genprior.restoration
from genprior.priors.store import load_prior
if importlib.util.find_spec("diffusers"):
    from diffusers import AutoencoderKL, UNet2DModel, VQModel
def most():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
before, began = most(), time.perf_counter()
load_prior(sys.argv[1])
print(most() - before, time.perf_counter() - began)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", type=Path, help="the checkpoint, or the folder of a model")
    parser.add_argument("--half", action="store_true", help="without a prior: weights in float16")
    parser.add_argument("--side", type=int, default=256, help="of the picture, in pixels (default: 256)")
    parser.add_argument("--samplers", nargs="*", default=["auto", "diffpir", "ddrm"])
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        prior = options.prior or _random(Path(folder) / "ffhq_10m.pt", options.half)
        out = subprocess.run([sys.executable, "-c", MEASURE, prior], capture_output=True, text=True, check=True).stdout
        memory, seconds = map(float, out.split())
        files = [prior] if prior.is_file() else [path for path in prior.rglob("*") if is_weights(path)]
        size = sum(file.stat().st_size for file in files)
        print(f"read: {seconds:.1f} s, {memory / size:.2f} of the {size / 1e6:.0f} MB of the weights, at most")
        x = torch.rand(1, 3, options.side, options.side, generator=torch.Generator().manual_seed(0))
        y = genprior.degrade(x, "super-resolution", scale=4, noise=0.025, seed=0)
        for sampler in options.samplers:
            began = time.perf_counter()
            n = None if sampler == "auto" else 1
            result = genprior.restore(y, prior=prior, sampler=sampler, n=n, seed=0, progress=False)
            seconds = time.perf_counter() - began
            print(f"{sampler}: {seconds:.1f} s, the first with the reading, {result.network_evaluations} evaluations")
    print(machine(torch.device("cpu")))


def _random(path: Path, half: bool) -> Path:
    network = ADMUNet(head_channels=64)
    torch.save((network.half() if half else network).state_dict(), path)
    return path


if __name__ == "__main__":
    main()

"""The way to the first picture by a checkpoint of ADM's network: memory and seconds to read it, and to restore.

    python recipes/benchmarks/checkpoint.py
    python recipes/benchmarks/checkpoint.py --file ffhq_10m.pt --side 256 --samplers auto diffpir ddrm

Without a file it is that of FFHQ, of random weights, written into a temporary folder: as large, as fast. The picture is
of noise, super-resolution by 4, one draw; "auto" is the picture alone, as `restore` gives it.
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

MEASURE = """
import sys, time, genprior
from genprior.priors.store import load_prior
def most():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
before, began = most(), time.perf_counter()
load_prior(sys.argv[1])
print(most() - before, time.perf_counter() - began)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, help="the checkpoint")
    parser.add_argument("--side", type=int, default=256, help="of the picture, in pixels (default: 256)")
    parser.add_argument("--samplers", nargs="*", default=["auto", "diffpir", "ddrm"])
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        file = options.file or _random(Path(folder) / "ffhq_10m.pt")
        out = subprocess.run([sys.executable, "-c", MEASURE, file], capture_output=True, text=True, check=True).stdout
        memory, seconds = map(float, out.split())
        size = file.stat().st_size
        print(f"read: {seconds:.1f} s, {memory / size:.2f} of the {size / 1e6:.0f} MB of the file, at most")
        x = torch.rand(1, 3, options.side, options.side, generator=torch.Generator().manual_seed(0))
        y = genprior.degrade(x, "super-resolution", scale=4, noise=0.025, seed=0)
        for sampler in options.samplers:
            began = time.perf_counter()
            n = None if sampler == "auto" else 1
            result = genprior.restore(y, prior=file, sampler=sampler, n=n, seed=0, progress=False)
            seconds = time.perf_counter() - began
            print(f"{sampler}: {seconds:.1f} s, the first with the reading, {result.network_evaluations} evaluations")
    print(machine(torch.device("cpu")))


def _random(path: Path) -> Path:
    torch.save(ADMUNet(head_channels=64).state_dict(), path)
    return path


if __name__ == "__main__":
    main()

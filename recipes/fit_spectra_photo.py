"""Fit the spectra of windows of photographs that `genprior.identify` uses.

    python recipes/fit_spectra_photo.py --data PHOTOS --out runs/spectra-photo

Takes two minutes. The result, spectra.safetensors and card.json, goes into `genprior/blind/photographs`. A fifth of the
photographs is held out for the choices of `benchmarks/choose_blind.py`.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from genprior.bits import dequantize
from genprior.blind.spectra import Spectra, held_out
from genprior.blind.windows import SIDE, periodograms
from genprior.devices import alone
from genprior.files import refuse_existing, write_folder
from genprior.noise import Noise
from genprior.training.data import Photos

CROP = 160  # pixels a side; the windows of one crop count as one photograph
FEWEST = 3  # windows of a crop
FLAT = 1e-5  # mean periodogram of windows that show only their own rounding


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=f"folder of sharp photographs, at least {CROP} pixels a side")
    parser.add_argument("--out", type=Path, default=Path("runs/spectra-photo"))
    parser.add_argument("--crops", type=int, default=2, help="of each photograph, turned and mirrored by chance")
    parser.add_argument("--components", type=int, default=64)
    parser.add_argument("--kinds", type=int, default=16, help="of photographs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--licence", default="see the training data", help="of the spectra, for the card")
    options = parser.parse_args()
    alone("fit_spectra_photo")
    refuse_existing([options.out], False, "choose another --out")

    began = time.perf_counter()
    photos = Photos(options.data, CROP, seed=options.seed, grey=0.0, keep=lambda name: not held_out(name))
    found = []
    for item in range(options.crops * len(photos)):
        I = periodograms(dequantize(photos[item]["x"][None], Noise(options.seed, [item]))[0])
        found.append(I[I.mean(1) > FLAT])
    found = [I for I in found if len(I) >= FEWEST]
    windows, folder_name = sum(map(len, found)), Path(options.data).name
    spectra = Spectra.fit(found, options.components, options.kinds, options.seed)
    card = {
        "summary": (
            f"The spectra of windows of photographs, {SIDE} x {SIDE}: a mixture of {options.components}, in the shares "
            f"of {options.kinds} kinds of photograph."
        ),
        "data": f"{windows} windows of {len(found)} random crops of {len(photos)} photographs of {folder_name}",
        "licence": options.licence,
        "seconds": round(time.perf_counter() - began),
        "torch": torch.__version__,
    }

    def write(folder: Path) -> None:
        save_file(
            {name: tensor.contiguous() for name, tensor in asdict(spectra).items()}, folder / "spectra.safetensors"
        )
        (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")

    write_folder(options.out, write)
    print(f"{options.out} is ready: {windows} windows, in {card['seconds']} s")


if __name__ == "__main__":
    main()

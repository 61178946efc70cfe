"""Fit the spectra of windows of photographs that `genprior.identify` knows.

    python recipes/fit_spectra_photo.py --data PHOTOS --out runs/spectra-photo

Takes two minutes. The result, spectra.safetensors and card.json, goes into `genprior/blind/photographs`.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from genprior.bits import dequantize
from genprior.blind.spectra import Spectra
from genprior.blind.windows import SIDE, periodograms
from genprior.devices import alone
from genprior.files import write_folder
from genprior.noise import Noise
from genprior.training.data import Photos

FLAT = 1e-5  # mean periodogram of windows that show no more than their own bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of sharp photographs, at least 64 pixels a side")
    parser.add_argument("--out", type=Path, default=Path("runs/spectra-photo"))
    parser.add_argument("--windows", type=int, default=96, help="of each photograph, turned and mirrored by chance")
    parser.add_argument("--components", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--licence", default="see the training data", help="of the spectra, for the card")
    options = parser.parse_args()
    alone("fit_spectra_photo")

    began = time.perf_counter()
    photos = Photos(options.data, SIDE, seed=options.seed, grey=0.0)
    number = options.windows * len(photos)
    windows = (dequantize(photos[i]["x"][None], Noise(options.seed, [i])) for i in range(number))
    I = torch.cat([periodograms(x[0]) for x in windows])
    I = I[I.mean(1) > FLAT]
    spectra = Spectra.fit(I, options.components, options.seed)
    card = {
        "summary": f"The spectra of windows of photographs, {SIDE} x {SIDE}: a mixture of {options.components}.",
        "data": f"{Path(options.data).name}: {len(I)} random windows of {len(photos)} photographs",
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
    print(f"{options.out} is ready: {len(I)} windows, in {card['seconds']} s")


if __name__ == "__main__":
    main()

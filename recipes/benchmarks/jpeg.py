"""Luma PSNR of JPEG files, decoded and restored, on a folder of photographs.

    python recipes/benchmarks/jpeg.py --data Set5

Pillow encodes and decodes each photograph, and `restore` makes one picture from the file; both pictures have 8 bits, as
a user gets them. PSNR is of Y = 0.299 r + 0.587 g + 0.114 b on [0, 1], over all pixels, then averaged over images.
"differ" is the share of the coefficients that `degrade` puts into a different cell from the encoder's.
"""

import argparse
import time
from io import BytesIO

import torch
from common import machine
from PIL import Image

import genprior
from genprior import images
from genprior.devices import alone
from genprior.operators import Colorize
from genprior.scores.metrics import psnr

HEAD = "| quality | decoded | restored | gain | least gain | outside cells | differ | seconds |"


def luma(x: torch.Tensor) -> torch.Tensor:
    return x if x.shape[1] == 1 else Colorize(tuple(x.shape[1:]))(x)


def encoded(image: Image.Image, quality: int, subsampling: str) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling=subsampling)
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of photographs")
    parser.add_argument("--prior", default="ddpm")
    parser.add_argument("--quality", type=int, nargs="+", default=[10, 20, 40])
    parser.add_argument("--subsampling", default="4:2:0", help="4:4:4, 4:2:2 or 4:2:0 (default: %(default)s)")
    parser.add_argument("--grey", action="store_true", help="photographs made grey first")
    parser.add_argument("--limit", type=int, help="how many images, the first ones")
    parser.add_argument("--crop", type=int, help="side of the square cut from the middle of each image")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    alone("jpeg")

    prior = genprior.load_prior(options.prior, options.device)
    paths = images.list_images(options.data)[: options.limit]
    print(f"{machine(torch.device(options.device))}\n\n{HEAD}\n{'|---' * HEAD.count(' | ')}|---|", flush=True)
    for quality in options.quality:
        decoded, restored, furthest, differ, began = [], [], [], [], time.perf_counter()
        for path in paths:
            image = images.to_pil(images.read(path).x[0])
            if options.crop:
                left, top = ((side - options.crop) // 2 for side in image.size)
                image = image.crop((left, top, left + options.crop, top + options.crop))
            image = image.convert("L") if options.grey else image
            file, x = encoded(image, quality, options.subsampling), luma(images.read(image).x)
            result = genprior.restore(file, "jpeg", prior, device=options.device, progress=False)
            decoded.append(float(psnr(luma(images.read(Image.open(BytesIO(file))).x), x)[0]))
            restored.append(float(psnr(luma(images.read(result.image).x), x)[0]))
            y, A, step = result.measurement.y, result.measurement.operator, result.measurement.likelihood.step
            furthest.append(float(((A(result.mean[None]) - y).abs() / step).max()) - 0.5)
            simulated = genprior.degrade(image, "jpeg", quality=quality, subsampling=options.subsampling)
            differ.append(float(((simulated.y - y).abs() > step / 2).float().mean()))
        gains = torch.tensor(restored) - torch.tensor(decoded)
        before, after = (sum(values) / len(paths) for values in (decoded, restored))
        print(
            f"| {quality} | {before:.2f} dB | {after:.2f} dB | {gains.mean():.2f} dB | {gains.min():.2f} dB | "
            f"{max(0, *furthest):.0e} steps | {sum(differ) / len(differ):.2%} | {time.perf_counter() - began:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

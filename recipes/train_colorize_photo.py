"""Train a posterior of the colours of photographs, given their grey values: `OUT/prior`, for the sampler `amortized`.

    python recipes/train_colorize_photo.py --data PHOTOS --out runs/colorize-photo

It starts from the weights of `ddpm-photo`, whose network now also sees the grey values, and trains on crops of shrunken
photographs, since colours follow from what a picture shows. If killed, run it again: it resumes.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from genprior import images
from genprior.devices import processes
from genprior.operators import Colorize
from genprior.priors.amortized import LearnedPosterior
from genprior.priors.folder import read_prior
from genprior.priors.store import find_prior
from genprior.training.amortization import Amortization
from genprior.training.data import Photos
from genprior.training.flags import add_flags, stated
from genprior.training.loop import Settings, train

DEFAULTS = Settings(steps=4000, batch=16, lr=4e-4)


def small_copies(photos: Path, folder: Path, side: int) -> Path:
    """Return a folder of the photographs with a shorter side of that many pixels; made once."""
    for path in images.list_images(photos):
        target = folder / str(side) / path.relative_to(photos).with_suffix(f"{path.suffix}.png")
        if not target.exists():
            photo = images.to_pil(images.read(path).seen[0]).convert("RGB")
            scale = side / min(photo.size)
            size = [round(scale * length) for length in photo.size]
            images.save(photo.resize(size, Image.Resampling.LANCZOS), target)
    return folder / str(side)


def begin(prior: LearnedPosterior, start: str) -> None:
    """Load the weights of a diffusion prior; those of the channels that it never saw are 0."""
    started = read_prior(find_prior(start))
    started.residuals = None  # these belong to the denoiser that it was
    state = started.state_dict()
    head = torch.zeros_like(prior.ddpm.net.head.weight)
    head[:, : state["net.head.weight"].shape[1]] = state["net.head.weight"]
    prior.ddpm.load_state_dict({**state, "net.head.weight": head})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of photographs")
    parser.add_argument("--out", default="runs/colorize-photo")
    parser.add_argument("--start", default="ddpm-photo", help="diffusion prior whose network this one has")
    parser.add_argument("--size", type=int, default=64, help="side of the crops, of photographs 3/2 as high or wide")
    parser.add_argument("--licence", default="see the training data", help="of the weights, for the card")
    add_flags(parser, DEFAULTS)
    options = parser.parse_args()
    settings = replace(DEFAULTS, **stated(options))

    with processes().main_process_first():
        small = small_copies(Path(options.data), Path(options.out) / "small", options.size * 3 // 2)
    data = Photos(small, options.size, seed=settings.seed, shrink=0.3, grey=0, orientations=2)

    torch.manual_seed(settings.seed)
    prior = LearnedPosterior((3, None, None), operator={"name": "Colorize"}, noise=(0.0, 0.02))
    begin(prior, options.start)
    objective = Amortization(prior, lambda x, noise: Colorize(x.shape[1:]), seed=settings.seed, median=0.25)
    card = {"data": f"{Path(options.data).name}, colours of small copies", "licence": options.licence}
    train(prior, [objective], data, settings, options.out, card=card)


if __name__ == "__main__":
    main()

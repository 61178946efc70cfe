"""Measure the posterior covariance of a diffusion prior on images, and store both together.

    python recipes/measure_covariance.py --prior ddpm-photo --data PHOTOS --n 256 --inflation 1.015 --half --out …
    python recipes/measure_covariance.py --prior ddpm-mnist --data mnist.npz --skip 55000 --n 1000 --form full --out …

`OptimalCovariance` draws with this covariance. Training measures it at its end; this recipe is for priors that were
trained before, and for other images: as textured as those that will be restored, and not memorised by the prior.
The result is a folder like that of the prior, with the same weights.
"""

import argparse
import json
from pathlib import Path

from torch.utils.data import Subset

from genprior.devices import alone
from genprior.files import refuse_existing, write_folder
from genprior.priors.folder import read_card, read_prior, write_prior
from genprior.priors.store import find_prior
from genprior.training.data import evenly, open_data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", required=True, help="name, folder or checkpoint")
    parser.add_argument("--data", required=True, help="images, which it may not have memorised")
    parser.add_argument("--skip", type=int, default=0, help="so many of them, which it was trained on")
    parser.add_argument("--n", type=int, default=128, help="how many of the rest, spread evenly (default: %(default)s)")
    parser.add_argument("--about", default="", help="what images they are, for the card")
    parser.add_argument("--size", type=int, default=128, help="side of crops of photographs (default: %(default)s)")
    parser.add_argument("--form", default="stationary", help="stationary, full or diagonal (default: %(default)s)")
    parser.add_argument("--inflation", type=float, default=1.0, help="of the fresh noise of draws, see Prior")
    parser.add_argument("--half", action="store_true", help="store weights in float16, as the bundled priors do")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    alone("measure_covariance")
    refuse_existing([options.out], False, "choose another --out")

    folder = find_prior(options.prior)
    prior = read_prior(folder)
    data = open_data(options.data, options.size, augment=False)
    images = evenly(Subset(data, range(options.skip, len(data))), options.n)
    prior.fit_covariance(images, options.form, inflation=options.inflation)
    measured = {"data": options.about or Path(options.data).name, "images": len(images), "form": options.form}
    card = {**read_card(folder), "covariance": measured}

    def write(out: Path) -> None:
        write_prior(prior, out, card, half=options.half)
        stored = json.loads((folder / "config.json").read_text()) if folder.is_dir() else {}  # a checkpoint has none
        config = stored | json.loads((out / "config.json").read_text())
        (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    write_folder(options.out, write)
    sized = prior.sized(*images.shape[2:])
    for sigma in prior.residuals.levels.tolist():
        print(
            f"sigma {sigma:8.4g}: mean squared error {float(sized.posterior_covariance(sigma).eigenvalues.mean()):.3g}"
        )
    print(f"{options.out} has {prior.residuals.logits.numel()} figures more.")


if __name__ == "__main__":
    main()

"""Put a trained prior into the package: weights in float16 or float32, and a card that says where they come from.

    python recipes/bundle_prior.py --prior runs/ddpm-photo/prior --name ddpm-photo --summary "…" --data "…" \\
        --licence "…" --use "…" --not-for "…"

Then `python recipes/draw_card.py ddpm-photo` draws the card's picture and measures how well its draws are calibrated.
"""

import argparse
import json
from pathlib import Path

from genprior.devices import alone
from genprior.files import write_folder
from genprior.priors.folder import read_card, read_prior, write_prior
from genprior.priors.store import BUNDLED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", type=Path, required=True, help="folder written by training")
    parser.add_argument("--name", required=True, help="such as ddpm-photo")
    parser.add_argument("--summary", required=True, help="one sentence, for `genprior priors`")
    parser.add_argument("--data", required=True, help="what it was trained on, and which table of ours lists it")
    parser.add_argument("--licence", required=True, help="of the weights")
    parser.add_argument("--use", help="what it is good for (default: what the card of that name says so far)")
    parser.add_argument("--not-for", help="what it must not be used for (default: likewise)")
    parser.add_argument("--recipe", default="", help="the command that trained it")
    parser.add_argument("--metrics", nargs="*", default=[], metavar="NAME=VALUE", help="measured figures")
    parser.add_argument("--shape", type=int, nargs=3, help="(C, H, W) of the images it knows, where it takes any size")
    parser.add_argument(
        "--by-name-only", action="store_true", help="of one kind of images: no family's choice by shape"
    )
    parser.add_argument("--float32", action="store_true", help="keep all digits, as the Gaussians need")
    options = parser.parse_args()
    alone("bundle_prior")

    there = (BUNDLED / options.name / "card.json").exists()
    before = read_card(BUNDLED / options.name) if there else {}
    uses = {"use": options.use or before.get("use"), "not for": options.not_for or before.get("not for")}
    if not all(uses.values()):
        parser.error(f"Of a new prior, {options.name}, say what it is for and what not: --use, --not-for.")
    card = {
        "summary": options.summary,
        **read_card(options.prior),
        "data": options.data,
        "licence": options.licence,
        "recipe": options.recipe,
        "metrics": dict(metric.split("=", 1) for metric in options.metrics),
        **uses,
    }

    def write(folder: Path) -> None:
        write_prior(read_prior(options.prior), folder, card, half=not options.float32)
        # These entries choose between several priors of one family.
        chosen_by = {"image_shape": options.shape} if options.shape else {}
        chosen_by |= {"by_name_only": True} if options.by_name_only else {}
        config = json.loads((folder / "config.json").read_text()) | chosen_by
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    write_folder(BUNDLED / options.name, write)
    print(f"{BUNDLED / options.name}: {(BUNDLED / options.name / 'model.safetensors').stat().st_size / 1e6:.1f} MB")
    print(f"Its card needs a new picture and calibration: python recipes/draw_card.py {options.name}")


if __name__ == "__main__":
    main()

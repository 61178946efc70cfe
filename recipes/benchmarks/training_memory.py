"""The most memory that each training recipe takes, at its own batch and size.

    python recipes/benchmarks/training_memory.py --mnist mnist.npz --photos PHOTOS [--recipes vae_mnist gan_mnist]

Each recipe runs by itself for a few steps, with a checkpoint, a validation, a sheet of samples and a prior at the end,
after which its memory grows no more. The figure is that of its prior's card: on the CPU the largest resident set of the
process, including torch and data; on a GPU what torch held there.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

RECIPES = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", help=".npz with train_images and train_labels")
    parser.add_argument("--photos", help="folder of photographs, at least 128 pixels wide and high")
    parser.add_argument("--recipes", nargs="+", help="as nf_mnist; all for which there are data, if left out")
    options = parser.parse_args()

    sources = {name: data for name, data in (("mnist", options.mnist), ("photo", options.photos)) if data}
    every = sorted(path.stem.removeprefix("train_") for path in RECIPES.glob("train_*.py"))
    print("| recipe | batch | precision | device | peak memory in MiB |\n|---|---|---|---|---|")
    for recipe in options.recipes or [name for name in every if name.rpartition("_")[2] in sources]:
        data = sources[recipe.rpartition("_")[2]]
        with tempfile.TemporaryDirectory() as out:
            command = [sys.executable, RECIPES / f"train_{recipe}.py", "--data", data, "--out", out]
            subprocess.run([*command, "--steps", "3", "--save-every", "2"], check=True, stderr=subprocess.PIPE)
            card = json.loads((Path(out) / "prior" / "card.json").read_text())
        settings = card["settings"]
        print(
            f"| `train_{recipe}.py` | {settings['batch']} | {card['precision']} | {card['device']} | "
            f"{card['peak memory in MiB']:,} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

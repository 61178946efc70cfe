"""Convert a checkpoint of ADM's network (guided-diffusion) into a folder of ours: safetensors, JSON and a card.

    python recipes/convert_checkpoint.py ffhq_10m.pt priors/ffhq --data "FFHQ, 256 x 256" --licence "…"
    python recipes/convert_checkpoint.py mine.pt priors/mine --head-channels 64 --order legacy --betas cosine \\
        --steps 1000

Nothing in the file is executed. `restore(..., prior="priors/ffhq")` reads the folder like the file. The card says what
was assumed about network and training: what the shapes of the weights do not determine comes from the published
checkpoint of the same network, or from the options. To draw by `optimal-covariance`, at one network evaluation a step,
measure the posterior covariance on images of its kind: recipes/measure_covariance.py --prior priors/ffhq.
"""

import argparse
from pathlib import Path

import genprior
from genprior.devices import alone
from genprior.files import refuse_existing, sha256
from genprior.priors.foreign.adm import SETUP, about
from genprior.priors.store import find_prior


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help=".pt, .pth, .ckpt or .safetensors, or owner/name/file on the Hugging Face Hub")
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--data", default="unknown", help="what it was trained on, for the card")
    parser.add_argument("--licence", default="unknown", help="of the weights, for the card")
    parser.add_argument("--head-channels", type=int, help="num_head_channels of its training")
    parser.add_argument("--heads", type=int, help="num_heads of its training, where there are no head channels")
    parser.add_argument("--order", help="legacy, or new with use_new_attention_order")
    parser.add_argument("--betas", help="noise_schedule: linear or cosine")
    parser.add_argument("--steps", type=int, help="diffusion_steps")
    parser.add_argument("--time-scale", type=float, help="1, or 1000 / steps with rescale_timesteps")
    options = parser.parse_args()
    alone("convert_checkpoint")

    refuse_existing([options.out], False, "choose another path")
    file = find_prior(options.file)
    if not file.is_file():
        raise SystemExit(f"{options.file} is a folder: it needs no conversion.")
    prior = genprior.from_adm(file, **{key: getattr(options, key) for key in SETUP})
    origin = {"data": options.data, "licence": options.licence, "file": file.name, "file sha256": sha256(file)}
    card = about(prior) | origin
    genprior.save_prior(prior, options.out, card)
    print(f"{options.out}: {card['network']}; taken for {card['taken for']}.")


if __name__ == "__main__":
    main()

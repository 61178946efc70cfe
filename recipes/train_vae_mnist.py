"""Train `vae-mnist`: a variational autoencoder of handwritten digits with 20 latents.

    python recipes/train_vae_mnist.py --data mnist.npz --out runs/vae-mnist

`mnist.npz` holds `train_images`, uint8 (60000, 28, 28); the last 5,000 are kept for validation, which decides when to
stop. Its 4,000 steps reach 6.24 bits/dim on those 5,000; the card of the bundled prior has the seconds they took, on a
CPU core that other work shared. Kill it when you like and call it again: it goes on where it was. The result is
`OUT/prior`.
"""

import argparse

import torch

from genprior.priors.base import Prior
from genprior.priors.vae import VAE
from genprior.training.bound import EvidenceBound
from genprior.training.data import Arrays
from genprior.training.loop import Settings, train


def preview(prior: Prior) -> torch.Tensor:
    """Means of p(x | z), without the grain that a draw of p(x) has."""
    z = torch.randn(64, *prior.latent_shape, generator=torch.Generator().manual_seed(0))
    return prior.decode(z).detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with train_images")
    parser.add_argument("--out", default="runs/vae-mnist")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--patience", type=int, default=4, help="validations without improvement before it stops")
    parser.add_argument("--precision", default="bf16", choices=["no", "bf16"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    data = Arrays(options.data, "train_images", keep=slice(0, 55000), seed=options.seed)
    held_out = Arrays(options.data, "train_images", keep=slice(55000, 60000), seed=None)

    torch.manual_seed(options.seed)
    prior = VAE((1, 28, 28), latent=20, widths=(32, 64), blocks=(1, 2), spread=0.47)
    settings = Settings(
        steps=options.steps,
        batch=options.batch,
        lr=options.lr,
        validate_every=min(500, options.steps),
        patience=options.patience,
        precision=options.precision,
        seed=options.seed,
    )
    train(
        prior,
        [EvidenceBound(prior, seed=options.seed)],
        data,
        settings,
        options.out,
        validation=held_out,
        preview=preview,
        card={"data": "MNIST, first 55,000 training digits", "licence": "CC BY-SA 3.0"},
    )


if __name__ == "__main__":
    main()

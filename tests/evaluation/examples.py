"""A small prior of each family, untrained, on colour images of 8 x 8: what it supports does not depend on more."""

import torch

from genprior.nets.adm import ADMUNet
from genprior.priors.amortized import LearnedPosterior
from genprior.priors.base import Prior
from genprior.priors.ddpm import DDPM
from genprior.priors.flow import Flow
from genprior.priors.foreign.adm import from_adm
from genprior.priors.gan import GAN
from genprior.priors.gaussian.field import GaussianField
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.gaussian.mixture import GaussianMixture
from genprior.priors.latent import LatentDiffusion
from genprior.priors.patches import PatchFlow
from genprior.priors.vae import VAE

SHAPE = (3, 8, 8)


def examples() -> dict[str, Prior]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        setup = {"heads": 1, "order": "legacy"}
        adm = ADMUNet(base=32, widths=(32, 32), attention=(1,), **setup).state_dict()
        networks = {
            "adm": from_adm(adm, betas="linear", steps=1000, **setup),
            "nf": Flow(SHAPE, widths=(4, 4), steps=(1, 1)),
            "nf-patch": PatchFlow(patch=2, width=4, steps=1),
            "vae": VAE(SHAPE, latent=3, widths=(4, 4), blocks=(0, 1)),
            "ddpm": DDPM((3, None, None), widths=(8, 8), blocks=1),
            "ldm": LatentDiffusion(
                VAE((3, None, None), latent=2, widths=(4, 4), blocks=(0, 1)),
                DDPM((2, None, None), data_std=1.0, widths=(8, 8), blocks=1, patch=1),
            ),
            "gan": GAN(SHAPE, latent=3, widths=(4, 4), hidden=4),
            "amortized": LearnedPosterior(SHAPE, operator={"name": "Inpaint"}, noise=(0, 1), widths=(8, 8), blocks=1),
        }
    mean = torch.full(SHAPE, 0.5)
    fields = Gaussian(mean, torch.full(SHAPE, 0.06)).sample(9).clamp(0, 1)
    return {
        "gaussian": Gaussian(mean, torch.full(SHAPE, 0.06)),
        "gaussian-field": GaussianField.fit(fields),
        "mixture": GaussianMixture(torch.tensor([0.3, 0.7]), torch.stack([mean - 0.2, mean]), torch.full(SHAPE, 0.06)),
        **{name: prior.eval().requires_grad_(False) for name, prior in networks.items()},
    }

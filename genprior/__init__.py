"""Generative priors for imaging inverse problems: train them, sample posteriors, restore photographs."""

import importlib

__version__ = "0.1.0"

# Loaded when first asked for, so that `import genprior` is quick (PEP 562).
_HOME = {
    "restore": "genprior.restoration",
    "degrade": "genprior.restoration",
    "evidence": "genprior.marginal.evidence",
    "evaluate": "genprior.evaluation.benchmark",
    "Restoration": "genprior.result",
    "Measurement": "genprior.operators.base",
    "load_prior": "genprior.priors.store",
    "save_prior": "genprior.priors.store",
    "push_to_hub": "genprior.priors.hub",
    "from_denoiser": "genprior.priors.denoiser",
    "from_diffusers": "genprior.priors.diffusers",
    "as_denoiser": "genprior.priors.deepinv",
    "as_score_prior": "genprior.priors.deepinv",
    "UnsupportedError": "genprior.priors.base",
    "supports": "genprior.priors.base",
    "Gaussian": "genprior.priors.gaussian",
    "GaussianMixture": "genprior.priors.gaussian_mixture",
    "GaussianField": "genprior.priors.field",
    "DDPM": "genprior.priors.ddpm",
    "Flow": "genprior.priors.flow",
    "PatchFlow": "genprior.priors.patches",
    "VAE": "genprior.priors.vae",
    "GAN": "genprior.priors.gan",
    "DPS": "genprior.samplers.dps",
    "DiffPIR": "genprior.samplers.diffpir",
    "MMPS": "genprior.samplers.mmps",
    "PiGDM": "genprior.samplers.pigdm",
    "TMPD": "genprior.samplers.tmpd",
    "DDRM": "genprior.samplers.ddrm",
    "DDNM": "genprior.samplers.ddnm",
    "DAPS": "genprior.samplers.daps",
    "DAPSLangevin": "genprior.samplers.daps",
    "DAPSHMC": "genprior.samplers.daps",
    "SplitGibbs": "genprior.samplers.gibbs",
    "RePaint": "genprior.samplers.repaint",
    "REDDiff": "genprior.samplers.reddiff",
    "SITCOM": "genprior.samplers.sitcom",
    "Exact": "genprior.samplers.exact",
    "FisherHMC": "genprior.samplers.fisher_hmc",
    "LatentHMC": "genprior.samplers.latent",
    "CSGM": "genprior.samplers.csgm",
    "VAEGibbs": "genprior.samplers.vae_gibbs",
    "HMC": "genprior.samplers.langevin",
    "MALA": "genprior.samplers.langevin",
    "ULA": "genprior.samplers.langevin",
    "MAP": "genprior.samplers.map",
}
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])

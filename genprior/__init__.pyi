# What `import genprior` offers: read by editors and type checkers, and at run time by lazy_loader, which imports each
# name from its home when it is first asked for.

from .benchmark.evaluate import evaluate as evaluate
from .checks import UnsupportedError as UnsupportedError
from .compression import read_jpeg as read_jpeg
from .marginal.evidence import evidence as evidence
from .operators.measurement import Measurement as Measurement
from .priors.base import supports as supports
from .priors.ddpm import DDPM as DDPM
from .priors.flow import Flow as Flow
from .priors.folder import save_prior as save_prior
from .priors.foreign.adm import from_adm as from_adm
from .priors.foreign.deepinv import as_denoiser as as_denoiser
from .priors.foreign.deepinv import as_score_prior as as_score_prior
from .priors.foreign.denoiser import from_denoiser as from_denoiser
from .priors.foreign.diffusers import from_diffusers as from_diffusers
from .priors.foreign.velocity import from_velocity as from_velocity
from .priors.gan import GAN as GAN
from .priors.gaussian.field import GaussianField as GaussianField
from .priors.gaussian.gaussian import Gaussian as Gaussian
from .priors.gaussian.mixture import GaussianMixture as GaussianMixture
from .priors.hub import push_to_hub as push_to_hub
from .priors.patches import PatchFlow as PatchFlow
from .priors.store import load_prior as load_prior
from .priors.vae import VAE as VAE
from .restoration import degrade as degrade
from .restoration import restore as restore
from .result import Restoration as Restoration
from .samplers.annealing.daps import DAPS as DAPS
from .samplers.annealing.daps import DAPSHMC as DAPSHMC
from .samplers.annealing.daps import DAPSLangevin as DAPSLangevin
from .samplers.annealing.ddnm import DDNM as DDNM
from .samplers.annealing.ddrm import DDRM as DDRM
from .samplers.annealing.dpir import DPIR as DPIR
from .samplers.annealing.gibbs import SplitGibbs as SplitGibbs
from .samplers.annealing.reddiff import REDDiff as REDDiff
from .samplers.annealing.repaint import RePaint as RePaint
from .samplers.annealing.sitcom import SITCOM as SITCOM
from .samplers.chains.langevin import HMC as HMC
from .samplers.chains.langevin import MALA as MALA
from .samplers.chains.langevin import ULA as ULA
from .samplers.chains.map import MAP as MAP
from .samplers.exact import Exact as Exact
from .samplers.exact import ExactMean as ExactMean
from .samplers.guidance.diffpir import DiffPIR as DiffPIR
from .samplers.guidance.dps import DPS as DPS
from .samplers.guidance.mmps import MMPS as MMPS
from .samplers.guidance.optimal_covariance import OptimalCovariance as OptimalCovariance
from .samplers.guidance.pigdm import PiGDM as PiGDM
from .samplers.guidance.tmpd import TMPD as TMPD
from .samplers.latents.csgm import CSGM as CSGM
from .samplers.latents.fisher_hmc import FisherHMC as FisherHMC
from .samplers.latents.latent_hmc import LatentHMC as LatentHMC
from .samplers.latents.vae_gibbs import VAEGibbs as VAEGibbs

__version__: str

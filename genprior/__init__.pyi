# What `import genprior` offers: read by editors and type checkers, and at run time by lazy_loader, which imports each
# name from its home when it is first asked for.

from .checks import UnsupportedError as UnsupportedError
from .evaluation.benchmark import evaluate as evaluate
from .marginal.evidence import evidence as evidence
from .operators.base import Measurement as Measurement
from .priors.base import supports as supports
from .priors.ddpm import DDPM as DDPM
from .priors.deepinv import as_denoiser as as_denoiser
from .priors.deepinv import as_score_prior as as_score_prior
from .priors.denoiser import from_denoiser as from_denoiser
from .priors.diffusers import from_diffusers as from_diffusers
from .priors.field import GaussianField as GaussianField
from .priors.flow import Flow as Flow
from .priors.folder import save_prior as save_prior
from .priors.gan import GAN as GAN
from .priors.gaussian import Gaussian as Gaussian
from .priors.gaussian_mixture import GaussianMixture as GaussianMixture
from .priors.hub import push_to_hub as push_to_hub
from .priors.patches import PatchFlow as PatchFlow
from .priors.store import load_prior as load_prior
from .priors.vae import VAE as VAE
from .restoration import degrade as degrade
from .restoration import restore as restore
from .result import Restoration as Restoration
from .samplers.csgm import CSGM as CSGM
from .samplers.daps import DAPS as DAPS
from .samplers.daps import DAPSHMC as DAPSHMC
from .samplers.daps import DAPSLangevin as DAPSLangevin
from .samplers.ddnm import DDNM as DDNM
from .samplers.ddrm import DDRM as DDRM
from .samplers.diffpir import DiffPIR as DiffPIR
from .samplers.dps import DPS as DPS
from .samplers.exact import Exact as Exact
from .samplers.fisher_hmc import FisherHMC as FisherHMC
from .samplers.gibbs import SplitGibbs as SplitGibbs
from .samplers.langevin import HMC as HMC
from .samplers.langevin import MALA as MALA
from .samplers.langevin import ULA as ULA
from .samplers.latent import LatentHMC as LatentHMC
from .samplers.map import MAP as MAP
from .samplers.mmps import MMPS as MMPS
from .samplers.pigdm import PiGDM as PiGDM
from .samplers.reddiff import REDDiff as REDDiff
from .samplers.repaint import RePaint as RePaint
from .samplers.sitcom import SITCOM as SITCOM
from .samplers.tmpd import TMPD as TMPD
from .samplers.vae_gibbs import VAEGibbs as VAEGibbs

__version__: str

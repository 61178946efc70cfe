"""Operators: how an image was measured."""

from genprior.operators.base import Operator
from genprior.operators.blur import Blur, gaussian_kernel, motion_kernel
from genprior.operators.build import for_image, for_measurement
from genprior.operators.check import check
from genprior.operators.colour import Colorize
from genprior.operators.deepinv import as_physics, from_physics, physics_noise
from genprior.operators.denoise import Denoise
from genprior.operators.inpaint import Inpaint, box_mask, random_mask, stroke_mask
from genprior.operators.jpeg import JPEG
from genprior.operators.linear import SVD, Composition, LinearOperator
from genprior.operators.matrix import Matrix
from genprior.operators.measurement import Measurement
from genprior.operators.phase import PhaseRetrieval
from genprior.operators.superres import SuperResolution

__all__ = [
    "JPEG",
    "SVD",
    "Blur",
    "Colorize",
    "Composition",
    "Denoise",
    "Inpaint",
    "LinearOperator",
    "Matrix",
    "Measurement",
    "Operator",
    "PhaseRetrieval",
    "SuperResolution",
    "as_physics",
    "box_mask",
    "check",
    "for_image",
    "for_measurement",
    "from_physics",
    "gaussian_kernel",
    "motion_kernel",
    "physics_noise",
    "random_mask",
    "stroke_mask",
]

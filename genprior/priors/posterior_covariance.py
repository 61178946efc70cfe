"""The mean posterior covariance of a denoiser, E Cov[x | x_t], measured on images it has not memorised.

    E (x - x_hat)(x - x_hat)^T = E Cov[x | x_t]   for x_hat = E[x | x_t]

A denoiser's errors show how much it knows. They are too small on images that it has memorised, and on images smoother
than those to be restored. They are measured once per noise level, in one basis for all levels, without a backward pass.
Guidance uses this covariance to extend y to the pixels that y does not see.

Notation: V(sigma) = U diag(l(sigma)) U^T the covariance; r = x - x_hat.
"""

import bisect
import functools
import math

import torch
from torch import Tensor, nn

from genprior.checks import POSITIVE, OpenShape, Shape, UnsupportedError, check_arguments
from genprior.devices import state_of
from genprior.linalg import wide
from genprior.noise import Noise
from genprior.priors.base import Prior
from genprior.priors.gaussian.covariance import Covariance, Dense, Diagonal, Stationary, find_form, turned

LEVELS = 14
NODES = 32  # intervals of the grid of frequencies, from 0 to 1/2, on which a spectrum is stored
LARGEST_FULL = 1024  # most values of an image whose principal axes, a square matrix of that side, are worth storing
AT_ONCE = 2**20  # values to denoise at once
FAR = 100  # spreads of a prior from its centre; images on 0..255 for a prior of [0, 1] are further


class MeasuredCovariance(Prior):
    """A prior whose denoiser is a network; it has `posterior_covariance` once that has been measured.

    Attributes:
        residuals: the covariance as a function of sigma, or None.
    """

    residuals: "PosteriorCovariance | None"

    def __init__(self):
        super().__init__()
        self.residuals = None

    @property
    def capabilities(self) -> frozenset[str]:
        has = super().capabilities
        return has - {"posterior_covariance"} if self.residuals is None else has

    @property
    def inflation(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 1.0 if self.residuals is None else self.residuals.factor

    def posterior_covariance(self, sigma: float) -> Covariance:
        if self.residuals is None:
            raise UnsupportedError(
                f"The posterior covariance of this {type(self).__name__} was never measured: give it some images that "
                "it has not memorised, prior.fit_covariance(images)."
            )
        return self.residuals.at(sigma, self.image_shape)

    def fit_covariance(
        self, images: Tensor, form: str = "stationary", *, inflation: float = 1.0, seed: int = 0
    ) -> None:
        """Measure `posterior_covariance` on images that the prior has not memorised, and set `inflation`.

        They should have the texture of those that will be restored: with a covariance of smoother images, guidance
        trusts the prior too much.

        Arguments, errors: see `PosteriorCovariance.measured`; it is a ValueError too if there are no images, or if they
        are integers, NaN or not in the units of the prior.
        """
        if not images.is_floating_point() or not len(images):
            raise ValueError(f"images is {len(images)} of {images.dtype}: give one or more, in floating point.")
        furthest = float((images - torch.as_tensor(self.centre).to(images)).abs().max() / self.spread)
        if not furthest < FAR:
            raise ValueError(
                f"images has values {furthest:.3g} spreads of the prior from its centre: give them in the prior's "
                "units, without NaN."
            )
        self.residuals = PosteriorCovariance.measured(self, images, form, inflation=inflation, seed=seed)


class PosteriorCovariance(nn.Module):
    """V(sigma) of a prior: eigenvectors in one form, and eigenvalues l relative to sigma^2 at some noise levels.

    Between levels, logit(l / sigma^2) is linear in ln sigma, as for Gaussians, where it is the ln of the variance over
    sigma^2; beyond them it is constant. For images of any size the form is "stationary": the spectrum is stored on a
    grid of frequencies, taken as even along each axis, and interpolated linearly.

    Arguments:
        basis: U, a covariance of images of one size; for "stationary", of any size.
        levels: (K,), increasing, in the units of x.
        logits: logit(l / sigma^2), (K, C, H, W), or for "stationary" (K, C, M + 1, N + 1) at the frequencies
            i / (2 M), j / (2 N).
        inflation: of the fresh noise, see `Prior`.
    """

    basis: Covariance
    levels: Tensor
    logits: Tensor
    inflation: Tensor

    def __init__(self, basis: Covariance, levels: Tensor, logits: Tensor, inflation: float = 1.0):
        super().__init__()
        self.basis = basis
        self.register_buffer("inflation", torch.tensor(inflation))
        self.register_buffer("levels", levels)
        self.register_buffer("logits", logits)

    @classmethod
    def blank(cls, image_shape: OpenShape, form: str) -> "PosteriorCovariance":
        """Build a covariance in that form, to read stored values into.

        Raises:
            ValueError: there is no such form, or it does not suit images of any size.
        """
        basis, grid = _identity(image_shape, form)
        return cls(basis, torch.arange(LEVELS) + 1.0, torch.zeros(LEVELS, *grid))

    @classmethod
    @torch.no_grad()
    def measured(
        cls, prior: Prior, images: Tensor, form: str, *, inflation: float = 1.0, seed: int = 0
    ) -> "PosteriorCovariance":
        """Measure V(sigma) of a prior's denoiser from its errors on noisy images.

        Arguments:
            prior: has `denoise`.
            images: (N, C, H, W), see `fit_covariance`; a hundred photographs of 128 x 128 or more are enough.
                "stationary" weighs their edges least (Hann window).
            form: "stationary", for photographs; "full", the principal axes of the images, or "diagonal", for small
                images of objects in fixed places, such as digits.
            inflation: see `Prior`, positive; it is stored with the covariance.
            seed: keys the noise.

        Raises:
            ValueError: there is no such form, it does not suit these images, they have another shape than the prior, or
                the inflation is not positive.
        """
        check_arguments(locals(), inflation=POSITIVE)
        basis, grid = _identity(prior.image_shape, form)
        if images.ndim != 4 or any(a not in (None, b) for a, b in zip(prior.image_shape, images.shape[1:])):
            raise ValueError(
                f"images has shape {tuple(images.shape)}: give (N, C, H, W) of a prior of {prior.image_shape}."
            )
        state = state_of(prior)
        basis = _axes(basis, images).to(state)
        sigmas = torch.logspace(math.log10(prior.sigma_min), math.log10(prior.sigma_max), LEVELS, dtype=torch.float64)
        rows = max(1, AT_ONCE // images[0].numel())
        ratios = []
        for k, sigma in enumerate(sigmas.tolist()):
            squares = 0
            for numbers in torch.arange(len(images)).split(rows):
                x = images[numbers].to(state)
                noise = Noise(seed, numbers, torch.full_like(numbers, k))
                r = x - prior.denoise(x + sigma * noise(x), sigma)
                squares = squares + wide(_squares(basis, r)).sum(0)
            # A denoiser's error may exceed the noise it was given; a Gaussian's never does.
            ratios.append((squares / len(images) / sigma**2).clamp(1e-12, 0.999))
        logits = torch.stack(ratios).logit()
        if form == "stationary":
            logits = _on_grid(logits, (grid[1], grid[2]))
        return cls(basis, sigmas.float(), logits.float(), inflation)

    @functools.cached_property
    def _known(self) -> list[float]:
        """The levels, read once; otherwise each step would wait for the device."""
        return self.levels.tolist()

    @functools.cached_property
    def factor(self) -> float:
        """`inflation`, read once."""
        return self.inflation.item()

    def at(self, sigma: float, image_shape: tuple[int, int, int]) -> Covariance:
        """Return V(sigma) for images of that shape."""
        levels = self._known
        at = min(max(sigma, levels[0]), levels[-1])
        k = max(1, bisect.bisect_left(levels, at))
        share = math.log(at / levels[k - 1]) / math.log(levels[k] / levels[k - 1])
        logit = torch.lerp(self.logits[k - 1], self.logits[k], share)
        if isinstance(self.basis, Stationary):
            rows, columns = (_hats(n, m - 1).to(logit) for n, m in zip(image_shape[1:], logit.shape[1:]))
            logit = rows @ logit @ columns.T
        return self.basis.with_eigenvalues(sigma**2 * logit.sigmoid())


def _identity(image_shape: OpenShape, form: str) -> tuple[Covariance, Shape]:
    """Return I in that form, and the shape in which its eigenvalues are stored."""
    C, H, W = image_shape
    if find_form(form) is Stationary:
        M, N = (NODES if side is None else min(NODES, side // 2) for side in (H, W))
        return Stationary.identity((C, 1, 1)), (C, M + 1, N + 1)
    if H is None or W is None:
        raise ValueError(f'form is {form!r}, but images of {image_shape} have any size: give "stationary".')
    return find_form(form).identity((C, H, W)), (C, H, W)


def _axes(basis: Covariance, images: Tensor) -> Covariance:
    """Return the basis with the principal axes of the images, or of their colours if it is "stationary"."""
    if isinstance(basis, Diagonal):
        return basis.to(images)
    if isinstance(basis, Dense):
        x = (images - images.mean(0)).double().flatten(1)
        return Dense(basis.eigenvalues.to(images), torch.linalg.eigh(x.T @ x)[1].to(images))
    x = (images - images.mean((0, 2, 3), keepdim=True)).double().movedim(1, 0).flatten(1)
    return Stationary(basis.eigenvalues.to(images), torch.linalg.eigh(x @ x.T)[1].to(images))


def _squares(basis: Covariance, r: Tensor) -> Tensor:
    """|U^T r|^2, (B, C, H, W); if "stationary", as for crops of larger images, the windowed spectrum, mean apart."""
    if not isinstance(basis, Stationary):
        return basis.coefficients(r)[..., 0].square()
    H, W = r.shape[-2:]
    r = turned(basis.axes.T, r)
    w = torch.hann_window(H + 2, periodic=False)[1:-1].outer(torch.hann_window(W + 2, periodic=False)[1:-1]).to(r)
    mean = r.mean((-2, -1), keepdim=True)
    spectrum = torch.fft.fft2((r - mean) * w / w.square().mean().sqrt(), norm="ortho").abs().square()
    spectrum[..., 0, 0] = H * W * mean[..., 0, 0].square()
    return spectrum


def _on_grid(logits: Tensor, nodes: tuple[int, int]) -> Tensor:
    """Fit grid values whose interpolation is nearest to logits at all frequencies, (K, C, H, W) -> (K, C, M+1, N+1)."""
    rows, columns = (torch.linalg.pinv(_hats(n, m - 1)) for n, m in zip(logits.shape[-2:], nodes))
    return rows.to(logits) @ logits @ columns.to(logits).T


def _hats(n: int, intervals: int) -> Tensor:
    """The matrix (n, intervals + 1) that interpolates linearly from frequencies i / (2 intervals) to |k / n|."""
    frequencies = torch.fft.fftfreq(n, dtype=torch.float64).abs() * 2 * intervals
    return (1 - (frequencies[:, None] - torch.arange(intervals + 1)).abs()).clamp_min(0)

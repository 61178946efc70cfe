"""The noise level of a measurement, estimated from the measurement alone."""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

FEWEST = 100  # windows, channels counted apart, that an estimate needs
SIDES = (7, 5, 4, 3, 2)  # of windows: the largest with enough windows, 2 between scattered holes
MOST_VALUES = 75  # of a window: 5 x 5 in colour, 7 x 7 in grey
WINDOWS_A_VALUE = 12  # how many windows per value of a window a size needs
WEAK_A_VALUE = 4  # how many per value count as weakly textured whatever they hold
AT_MOST = 20_000  # windows: more do not improve the estimate
CONFIDENCE = 1 - 1e-6  # that a window of noise alone counts as weakly textured, as published
ROUNDS = 5
RUN = 7  # equal neighbours along an axis that are not chance
CLIPPED = 4  # pixels sharing the smallest or largest value of their channel that are not chance


def noise_level(y: Tensor, holes: Tensor | None = None) -> Tensor:
    """Standard deviation of white noise in y, from the smallest principal components of its weakly textured windows.

        noise^2 = mean of the eigenvalues of Cov(w) that are left when the largest are dropped, one by one, until as
        many of them lie above their mean as below,   w the windows whose gradients noise of that level explains

    Windows with a hole are left out, as are those that touch clipped values or a constant area, which has no noise
    whatever the rest of the image has. Windows are 5 x 5 pixels in colour and 7 x 7 in grey, and smaller if too few are
    whole, down to 2 x 2 between scattered holes; the smaller they are, the more texture is taken for noise. Noise that
    was blurred or compressed away is not seen.

    Arguments:
        y: (B, C, H, W).
        holes: (B or 1, 1 or C, H, W) bool, True where y means nothing; None for no holes.

    Returns:
        (B, 1, 1, 1), in the units of y.

    Raises:
        ValueError: too few windows of known pixels.

    References: X. Liu, M. Tanaka, M. Okutomi, Single-image noise level estimation for blind denoising, 2013 (the
    windows). G. Chen, F. Zhu, P. A. Heng, An efficient statistical method for image noise level estimation, 2015 (the
    eigenvalues). Windows in colour have three channels here, since these share texture but not noise.
    """
    holes = torch.zeros_like(y[:1, :1], dtype=torch.bool) if holes is None else holes
    each = zip(y.detach().double().cpu(), holes.cpu().expand(len(y), y.shape[1], -1, -1))
    return torch.tensor([_one_image(a, hole) for a, hole in each]).to(y).reshape(-1, 1, 1, 1)


def _one_image(y: Tensor, hole: Tensor) -> float:
    """The level of all channels together; of one by one if holes of their own leave too little in common."""
    y = torch.where(hole, 0, y)
    found = [_together(y, hole.any(0))]
    if found[0] is None and len(y) > 1:
        found = [_together(*channel) for channel in zip(y.split(1), hole)]
    levels = [level for level in found if level is not None]
    if not levels:
        raise ValueError(
            "The noise level cannot be estimated: too few neighbouring pixels are known. Say it, as noise=0.02, the "
            "standard deviation in the units of the image."
        )
    return math.sqrt(sum(level**2 for level in levels) / len(levels))


def _together(y: Tensor, hole: Tensor) -> float | None:
    """The level of an image (C, H, W) with holes (H, W); None if too little is left."""
    voting = ~hole & ~constant_areas(y) & ~_clipped(y, ~hole)
    for pixels in (voting, ~hole):  # all known pixels, if everything is constant or clipped
        windows = _windows(y, pixels)
        if windows is not None:
            return level_of(windows)
    return None


def _windows(y: Tensor, pixels: Tensor) -> Tensor | None:
    """Windows (N, C, d, d) of those pixels, (H, W) bool, of the largest size with enough; None if there is none."""
    for d in SIDES:
        values = len(y) * d**2
        if values > MOST_VALUES or min(pixels.shape) < d:
            continue
        rows, columns = (~anywhere(~pixels, d, d)).nonzero(as_tuple=True)
        if len(rows) < (WINDOWS_A_VALUE * values if d > 2 else FEWEST / len(y)):
            continue
        every = math.ceil(len(rows) / AT_MOST)
        windows = y.unfold(1, d, 1).unfold(2, d, 1)[:, rows[::every], columns[::every]]
        return rearrange(windows, "c n h w -> n c h w")
    return None


def level_of(windows: Tensor) -> float:
    """Alternate between the weakly textured windows at a noise level and the level estimated from them."""
    _, C, d, _ = windows.shape
    texture = _differences(windows).square().sum(1)
    order = texture.argsort()
    texture, values = texture[order], windows.flatten(1)[order]
    variance = float(_eigenvalues(values)[0])
    for _ in range(ROUNDS):
        weak = int((texture < _most_texture(C, d) * variance).sum())
        variance = _least_components(_eigenvalues(values[: max(weak, WEAK_A_VALUE * C * d**2)]))
    return math.sqrt(variance)


def _differences(windows: Tensor) -> Tensor:
    """Differences of pixels two apart along both axes, (N, C, d, d) -> (N, ...); one apart in windows of 2 x 2."""
    apart = min(2, windows.shape[-1] - 1)
    across = windows[..., apart:] - windows[..., :-apart]
    down = windows[..., apart:, :] - windows[..., :-apart, :]
    return torch.cat([across.flatten(1), down.flatten(1)], dim=1)


def _eigenvalues(values: Tensor) -> Tensor:
    """The eigenvalues of the covariance of (N, D), ascending, none below 0."""
    return torch.linalg.eigvalsh(torch.cov(values.T)).clamp_min(0)


def _least_components(eigenvalues: Tensor) -> float:
    """The mean of the smallest eigenvalues, as many as leave no fewer of them above it than below.

    With four or fewer left, as for 2 x 2 pixels in grey, the smallest one: two would always be balanced.
    """
    for number in range(len(eigenvalues), 4, -1):
        kept = eigenvalues[:number]
        mean = kept.mean()
        if (kept > mean).sum() >= (kept < mean).sum():
            return float(mean)
    return float(eigenvalues[0])


@lru_cache
def _most_texture(channels: int, d: int) -> float:
    """The sum of the squared differences that a window of noise of variance 1 exceeds only by chance.

    The sum is taken as gamma distributed, with the mean and number of degrees of freedom of the differences.
    """
    from scipy.stats import gamma

    values = channels * d**2
    differences = _differences(torch.eye(values, dtype=torch.float64).reshape(values, channels, d, d))
    mean, freedom = float(differences.square().sum()), int(torch.linalg.matrix_rank(differences))
    return float(gamma.ppf(CONFIDENCE, freedom / 2, scale=2 * mean / freedom))


def constant_areas(y: Tensor) -> Tensor:
    """(H, W) bool: pixels in a 3 x 3 block or a run of equal ones, as in bars, padding and repeated edges."""
    found = torch.zeros(y.shape[1:], dtype=torch.bool)
    for h, w in ((3, 3), (1, RUN), (RUN, 1)):
        if y.shape[1] >= h and y.shape[2] >= w:
            equal = (F.max_pool2d(y, (h, w), 1) == -F.max_pool2d(-y, (h, w), 1)).all(0)
            found |= anywhere(F.pad(equal, (w - 1, w - 1, h - 1, h - 1)), h, w)
    return found


def _clipped(y: Tensor, known: Tensor) -> Tensor:
    """(H, W) bool: known pixels with a channel at an end of its range, where that is not chance."""
    found = torch.zeros_like(known)
    for channel in y if known.any() else ():
        for end in (channel[known].min(), channel[known].max()):
            at_end = known & (channel == end)
            if at_end.sum() >= CLIPPED:
                found |= at_end
    return found


def anywhere(pixels: Tensor, h: int, w: int) -> Tensor:
    """Whether any pixel of each h x w window is True."""
    return F.max_pool2d(pixels[None].double(), (h, w), 1)[0] > 0

"""A prior of photographs of any size, built from a flow of small patches.

Notation: P the side of a patch; x_i the patch at pixel i.

References: F. Altekrüger, A. Denker, P. Hagemann, J. Hertrich, P. Maass, G. Steidl, PatchNR: learning from very few
images by patch normalizing flow regularization, 2023.
"""

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from genprior.priors.base import Prior, as_config
from genprior.priors.flow import Flow

CHUNK = 2**12  # patches per pass through the flow: 0.1 GB of activations


def tiles(x: Tensor, side: int, stride: int | None = None) -> Tensor:
    """Cut images into patches, row by row: (B, C, H, W) -> (B L, C, side, side); without a stride, no overlap."""
    columns = F.unfold(x, side, stride=stride or side)
    return rearrange(columns, "b (c h w) l -> (b l) c h w", h=side, w=side)


class PatchFlow(Prior):
    """A flow p of P x P patches, extended to images of any size: `energy` and `score`.

        energy(x) = -1 / P^2 sum_i ln p(x_i),
        score(x) = -grad energy(x),

    over all overlapping patches x_i of x, which is padded by reflection by P - 1 pixels on each side. This is the mean
    of -ln p of the tiles over the P^2 ways to tile the plane with patches. Every pixel counts once; pixels near the
    border count partly once more, through their mirror images, without which a corner would count for only 1 / P^2.

    It has no `log_prob` and no `sample`: overlapping patches are not independent, and the constant that makes
    exp(-energy) a density is unknown. For single patches, `flow` has both.

    Arguments:
        patch: P, side of the patches in pixels.
        width, steps, blocks: of the flow; see `Flow`.
        spread: see `Prior`, in the units of x.

    Raises:
        ValueError: an argument is not as described.
    """

    def __init__(self, *, patch: int = 6, width: int = 128, steps: int = 8, blocks: int = 1, spread: float = 0.25):
        super().__init__()
        if not isinstance(patch, int) or patch < 2:
            raise ValueError(f"patch is {patch!r}: give a whole number, at least 2.")
        self.config = as_config(locals())
        self.image_shape = (3, None, None)
        self.side = patch
        self.centre = 0.5
        self.spread = spread
        # One squeeze turns a patch into a vector.
        self.flow = Flow(
            (3, patch, patch),
            widths=(width,),
            steps=(steps,),
            blocks=blocks,
            squeeze=patch,
            pixels="linear",
            spread=spread,
        )

    def initialise(self, x: Tensor) -> None:
        """Initialise the flow with the mean and the covariance of the patches of dequantised images x."""
        self.flow.initialise(tiles(x, self.side), whiten=True)

    def forward(self, x: Tensor, label: None = None) -> tuple[Tensor, Tensor]:
        """Apply the flow to the patches that tile the images x: z, (B L, D), and ln |det dz / dx|, (B L,)."""
        return self.flow(tiles(x, self.side))

    def energy(self, x: Tensor) -> Tensor:
        """-1 / P^2 sum_i ln p(x_i) in nats, (B,); differentiable."""
        patches = tiles(self._continued(x), self.side, 1)
        # The backward pass recomputes each chunk's activations, so memory holds one chunk's at a time.
        log_prob = partial(checkpoint, self.flow.log_prob, use_reentrant=False, preserve_rng_state=False)
        log_probs = torch.cat([log_prob(part) for part in patches.split(CHUNK)])
        return -log_probs.reshape(len(x), -1).sum(1) / self.side**2

    def score(self, x: Tensor) -> Tensor:
        """-grad energy(x), (B, C, H, W)."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            patches = tiles(self._continued(x), self.side, 1)
            scores = torch.cat([self.flow.score(part) for part in patches.split(CHUNK)])
            (gradient,) = torch.autograd.grad(patches, x, scores)
        return gradient / self.side**2

    def _continued(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < self.side:
            raise ValueError(
                f"Images have the shape {tuple(x.shape)}: this prior is one of (B, 3, H, W), "
                f"H and W at least {self.side}."
            )
        return F.pad(x, (self.side - 1,) * 4, mode="reflect")

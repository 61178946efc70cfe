"""Maximum likelihood of flows: bits per value of dequantised images.

References: L. Theis, A. van den Oord, M. Bethge, A note on the evaluation of generative models, 2016 (dequantisation).
"""

from torch import Tensor, nn

from genprior.bits import bits_per_dim, dequantize
from genprior.noise import Noise
from genprior.priors.flow import Flow, log_density
from genprior.priors.patches import PatchFlow


class MaximumLikelihood(nn.Module):
    """-ln p((255 x + u) / 256) / (D ln 2) + 8, u uniform on (0, 1): at least the bits per value that p spends on x.

    If the batch has labels, p is p(x | label). For a flow of patches, x are the patches that tile each image.

    Arguments:
        prior: the flow to train.
        seed: keys the dequantisation, with the item.
    """

    def __init__(self, prior: Flow | PatchFlow, *, seed: int = 0):
        super().__init__()
        self.prior, self.seed = prior, seed

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        x = dequantize(batch["x"], Noise(self.seed, batch["item"]))
        z, logdet = self.prior(x, batch.get("label"))  # the networks follow the surrounding autocast
        loss = bits_per_dim(log_density(z, logdet), z.shape[1]).mean()
        return loss, {"loss": loss.detach()}

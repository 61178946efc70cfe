"""The loss of variational autoencoders: the evidence lower bound on 8-bit images."""

from torch import Tensor, nn

from genprior.bits import bits_per_dim, dequantize
from genprior.noise import Noise
from genprior.priors.vae import VAE


class EvidenceBound(nn.Module):
    """Negative evidence lower bound, in bits per value of 8-bit images: the length of an ideal code by this prior.

        loss = -(E_q ln p(x' | z) - w KL(q(z | x') || N(0, I))) / (D ln 2) + 8,

    with x' the dequantised image and one draw of z, both keyed by the item. Logs: "loss", the unweighted "kl" in bits
    per value, and "decoder sd" in the units of x. If the batch has labels, p and q are conditioned on them.

    Arguments:
        prior: the VAE to train.
        seed: keys dequantisation and draws of z.
        warmup: training steps over which w rises from 0 to 1, so that the VAE learns to use the latents before it has
            to pay for them; in evaluation mode w is 1, and the loss is the bound itself.

    Raises:
        ValueError: a negative warmup.

    References:
        Auto-encoding variational Bayes. D. Kingma, M. Welling, 2014.
        Ladder variational autoencoders. C. Sønderby, T. Raiko, L. Maaløe, S. Sønderby, O. Winther, 2016 (warm-up).
    """

    def __init__(self, prior: VAE, *, seed: int = 0, warmup: int = 0):
        super().__init__()
        if warmup < 0:
            raise ValueError(f"warmup is {warmup}: give a number of steps, 0 for none.")
        self.prior, self.seed, self.warmup = prior, seed, warmup

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        noise = Noise(self.seed, batch["item"])
        x = dequantize(batch["x"], noise)
        likelihood, kl = self.prior.terms(x, noise, label=batch.get("label"))
        # Validation passes step 0, where the weight would be 0.
        weight = min(1.0, step / self.warmup) if self.training and self.warmup else 1.0
        dimension = x[0].numel()
        loss = bits_per_dim(likelihood - weight * kl, dimension).mean()
        logs = {
            "loss": loss,
            "kl": bits_per_dim(-kl, dimension).mean() - 8,
            "decoder sd": self.prior.decoder_variance.sqrt(),
        }
        return loss, {name: value.detach() for name, value in logs.items()}

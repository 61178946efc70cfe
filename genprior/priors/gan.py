"""The adversarial prior: a generator f maps Gaussian latents to images, x = f(z), z ~ N(0, I).

Its law is implicit: it has no density, and its draws lie on a surface of at most d dimensions. The discriminator that
trained the generator belongs to training (`genprior.training.adversarial`) and is not part of the prior.

References: I. Goodfellow et al., Generative adversarial networks, 2014. A. Bora et al., Compressed sensing using
generative models, 2017 (a generator as a prior). M. Mirza, S. Osindero, Conditional generative adversarial nets,
2014 (labels).
"""

from torch import Tensor, nn

from genprior.checks import COUNT, COUNTS, IF_ANY, POSITIVE, SHAPE, WHOLE, Rule, Shape, check_arguments
from genprior.nets.gan import Generator
from genprior.priors.base import as_config, autocast, checked
from genprior.priors.labels import EMBEDDING, beside, check_labels, even
from genprior.priors.wrappers.given import Classed


class GAN(Classed):
    """Generative adversarial prior: `sample`, `decode`.

    Arguments:
        image_shape: (C, H, W), H and W multiples of 2 ** len(widths).
        latent: d, the length of z.
        spread: root mean square deviation of a value of x from 0.5, in the units of x (0.48 for MNIST).
        widths, blocks, hidden: see `Generator`.
        classes: number of class labels, 0 for none. With classes, p(x) = sum_k w_k p(x | k) has `sample` only;
            `decode` needs `given`, or the argument `label`, (B,).

    Raises:
        ValueError: an argument is not as described.
    """

    decoder_variance = 0.0
    centre = 0.5
    labelled = frozenset({"decode"})

    def __init__(
        self,
        image_shape: Shape,
        *,
        latent: int = 64,
        spread: float = 0.5,
        widths: tuple[int, ...] = (96, 32),
        blocks: int = 1,
        hidden: int = 128,
        classes: int = 0,
    ):
        super().__init__()
        self.config = as_config(locals())
        check_arguments(locals(), image_shape=SHAPE, latent=COUNT, spread=POSITIVE, widths=COUNTS)
        cell = 2 ** len(widths)
        multiples: Rule = (lambda shape: all(a % cell == 0 for a in shape[1:]), f"H and W multiples of {cell}")
        check_arguments(locals(), image_shape=multiples, blocks=WHOLE, hidden=COUNT, classes=IF_ANY)
        self.image_shape = tuple(image_shape)
        self.latent_shape = (latent,)
        self.spread, self.classes = spread, classes
        self.net = Generator(self.image_shape, latent + (EMBEDDING if classes else 0), tuple(widths), blocks, hidden)
        if classes:
            self.embed = nn.Embedding(classes, EMBEDDING)
            self.register_buffer("class_weights", even(classes))

    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """f(z), with labels (B,) if there are classes; (B, d) -> (B, C, H, W); differentiable."""
        z = checked(self, z, self.latent_shape)
        check_labels(self, label)
        told = None if label is None else self.embed(label)
        with autocast(z.device, self.autocast):
            return self.net(beside(z, told)).to(z.dtype)

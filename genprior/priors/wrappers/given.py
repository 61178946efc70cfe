"""A prior given a class label."""

import copy
from typing import Any

import torch
from torch import Tensor

from genprior.checks import NUMBER, check_arguments
from genprior.noise import Noise
from genprior.priors.base import Prior, methods_of
from genprior.priors.gaussian.covariance import Covariance
from genprior.priors.labels import labels_of, number_of, shares

CHUNK = 256  # latents to decode at once


def of_prior(name: str) -> Any:
    """Return a property that reads the attribute `name` of `self.prior`; type checkers take it for any type."""
    return property(lambda self: getattr(self.prior, name), doc=f"That of the prior, see `Prior.{name}`.")


class Wrapper(Prior):
    """A prior built from another, `self.prior`, with the same values, latents and noise levels."""

    latent_shape, decoder_variance = of_prior("latent_shape"), of_prior("decoder_variance")
    centre, spread = of_prior("centre"), of_prior("spread")
    sigma_min, sigma_max = of_prior("sigma_min"), of_prior("sigma_max")
    inflation, bounded, autocast = of_prior("inflation"), of_prior("bounded"), of_prior("autocast")
    reach, multiple, any_size = of_prior("reach"), of_prior("multiple"), of_prior("any_size")


class OfLabel(Wrapper):
    """A prior with classes, `self.prior`, conditioned on one class."""

    image_shape = of_prior("image_shape")
    prior: Any  # its methods take labels

    def sized(self, height: int, width: int) -> "OfLabel":
        sized = copy.copy(self)  # shares the networks
        sized._modules = {**self._modules, "prior": self.prior.sized(height, width)}
        return sized


class Classed(Prior):
    """A prior p(x) = sum_k w_k p(x | k) with `decode`; the weights w_k of its classes are `class_weights`."""

    class_weights: Tensor

    def given(self, label: int | str) -> "Given":
        """Return p(x | label), itself a prior."""
        return Given(self, label)

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, label: int | str | None = None) -> Tensor:
        """n draws decode(z), z ~ N(0, I), (n, C, H, W); draw k is the same whatever n is.

        Arguments:
            seed: keys the noise.
            label: class label, 0 to classes - 1, or a name; None for draws from p(x).

        Raises:
            ValueError: there is no such label.
        """
        weight = next(self.parameters())
        noise = Noise.of_draws(n, seed)
        labels = labels_of(self, label, noise)
        z = noise(weight.new_empty(n, *self.latent_shape))
        parts = z.split(CHUNK)
        decode: Any = self.decode  # Any, because it takes labels too
        return torch.cat(list(map(decode, parts, [None] * len(parts) if labels is None else labels.split(CHUNK))))

    @torch.no_grad()
    def fit_classes(self, labels: Tensor) -> None:
        super().fit_classes(labels)
        self.class_weights.copy_(shares(labels, self.classes))


def of_label(name: str) -> Any:
    """Return a method that calls that of `self.prior`, with the label for each row of its first argument."""

    def call(self: "Given", x: Tensor, *arguments: Any, **options: Any) -> Any:
        if name not in self.capabilities:
            raise self.prior._unsupported(name)
        labels = torch.full((len(x),), self.label, device=x.device)
        return getattr(self.prior, name)(x, *arguments, label=labels, **options)

    return call


class Given(OfLabel):
    """p(x | label), with all methods that the prior has given a label.

    Arguments:
        prior: has classes; its methods take labels, (B,), after their own arguments.
        label: 0 … classes - 1, or the name of the class.

    Raises:
        ValueError: the prior has no such class.
    """

    def __init__(self, prior: Prior, label: int | str):
        super().__init__()
        self.prior, self.label = prior, number_of(prior, label)

    @property
    def capabilities(self) -> frozenset[str]:
        return self.prior.capabilities | (self.prior.labelled & methods_of(type(self.prior)))

    def sample(self, n: int, *, seed: int = 0, **options) -> Tensor:
        return self.prior.sample(n, seed=seed, label=self.label, **options)

    log_prob, score, elbo, flow_log_prob = map(of_label, ("log_prob", "score", "elbo", "flow_log_prob"))
    denoise, decode, encode, infer = map(of_label, ("denoise", "decode", "encode", "infer"))

    def posterior_covariance(self, sigma: float) -> Covariance:
        """Return the prior's, which averages over the labels."""
        return self.prior.posterior_covariance(sigma)


class Guided(OfLabel):
    """Images more typical of a label than p(x | label), by classifier-free guidance; no law has this denoiser.

    Arguments:
        prior: a diffusion with classes.
        label: 0 … classes - 1, or the name of the class.
        guidance: see `DDPM.denoise`.

    Raises:
        ValueError: the prior has no such class, or the guidance is no number.
    """

    def __init__(self, prior: Prior, label: int | str, guidance: float):
        super().__init__()
        check_arguments(locals(), guidance=NUMBER)
        self.prior, self.label, self.guidance = prior, number_of(prior, label), guidance

    @property
    def capabilities(self) -> frozenset[str]:
        return self.prior.capabilities & methods_of(type(self))

    def sample(self, n: int, *, seed: int = 0, **options) -> Tensor:
        return self.prior.sample(n, seed=seed, label=self.label, guidance=self.guidance, **options)

    def denoise(self, x_t: Tensor, sigma: float | Tensor) -> Tensor:
        labels = torch.full((len(x_t),), self.label, device=x_t.device)
        return self.prior.denoise(x_t, sigma, labels, self.guidance)

    def posterior_covariance(self, sigma: float) -> Covariance:
        """Return the prior's, without guidance."""
        return self.prior.posterior_covariance(sigma)

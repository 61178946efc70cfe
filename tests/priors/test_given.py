"""Priors given a class label: the same interface for all four families, exact where the family is."""

import math
import re

import pytest
import torch

import genprior
from genprior.checks import UnsupportedError
from genprior.cli import main
from genprior.nets.coupling import PerClass
from genprior.noise import Noise
from genprior.operators import Inpaint, Measurement, random_mask
from genprior.priors.base import methods_of, supports
from genprior.priors.ddpm import DDPM
from genprior.priors.flow import Flow
from genprior.priors.folder import read_prior, write_prior
from genprior.priors.gan import GAN
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.labels import mixed, shares
from genprior.priors.vae import VAE
from genprior.samplers.guidance.dps import DPS
from genprior.samplers.latents.fisher_hmc import FisherHMC
from genprior.training.adversarial import GENERATOR, DiscriminatorLoss, GeneratorLoss, latents
from genprior.training.bound import EvidenceBound
from genprior.training.families import plan
from genprior.training.likelihood import MaximumLikelihood

SHAPE = (1, 4, 4)
CLASSES = 3
KINDS = {
    "ddpm": lambda **more: DDPM(SHAPE, widths=(8, 8), blocks=1, steps=20, **more),
    "vae": lambda **more: VAE(SHAPE, latent=2, widths=(4, 4), blocks=(0, 1), **more),
    "gan": lambda **more: GAN(SHAPE, latent=3, widths=(4, 4), hidden=4, **more),
    "nf": lambda **more: Flow(SHAPE, widths=(4, 4), steps=(2, 1), pixels="linear", **more),
}
each_family = pytest.mark.parametrize("family", KINDS)
implicit_mixture = pytest.mark.parametrize("family", ["vae", "gan", "nf"])


def stirred(prior, scale=0.2, seed=0):
    """The prior with all of its parameters moved by random numbers, so that no part of it is idle."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, parameter in prior.named_parameters():
            pace = PerClass.PACE if "slow" in name else 1.0
            parameter.data += scale / pace * torch.randn(parameter.shape, dtype=parameter.dtype)
    return prior.requires_grad_(False).eval()


def made(family, classes=CLASSES, dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        prior = KINDS[family](classes=classes)
    return stirred(prior.to(dtype))


def images(n, seed=1):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def constant(n, label):
    return torch.full((n,), label)


# ---- one interface ----


@each_family
def test_given_has_all_that_the_family_has(family):
    prior = made(family)
    given = prior.given(1)
    unmeasured = {"posterior_covariance"}  # of a diffusion, see `MeasuredCovariance`
    assert given.capabilities == methods_of(type(prior)) - unmeasured
    for name in ("image_shape", "latent_shape", "centre", "spread"):
        assert getattr(given, name) == getattr(prior, name)
    x, labels = images(2), constant(2, 1)
    z = torch.linspace(-1, 1, 2 * math.prod(prior.latent_shape or (1,)), dtype=torch.float64).reshape(2, -1)
    calls = {
        "log_prob": (x,),
        "score": (x,),
        "elbo": (x,),
        "denoise": (x, 0.3),
        "decode": (z,),
        "encode": (x,),
        "infer": (x,),
    }
    for name, arguments in calls.items():
        if not supports(given, name):
            with pytest.raises(UnsupportedError, match=f"{type(prior).__name__} has no {name}"):
                getattr(given, name)(*arguments)
            continue
        found, wanted = getattr(given, name)(*arguments), getattr(prior, name)(*arguments, label=labels)
        other = getattr(prior, name)(*arguments, label=constant(2, 2))
        for a, b, c in zip(*((t if isinstance(t, tuple) else (t,)) for t in (found, wanted, other)), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
            assert (a - c).abs().max() > 1e-4, name  # the label matters
    torch.testing.assert_close(given.sample(3, seed=4), prior.sample(3, seed=4, label=1), rtol=0, atol=0)
    assert (given.sample(3, seed=4) - prior.given(2).sample(3, seed=4)).abs().max() > 1e-4


@each_family
def test_restoring_with_a_label_is_restoring_with_the_given_prior(family):
    prior = made(family, dtype=torch.float32)
    A = Inpaint(random_mask(SHAPE, 0.5, 0), SHAPE)
    measurement = Measurement(A(images(2).float()), A, 0.1)
    chain = FisherHMC(steps=4, descend=3, burn_in=2, refreshes=1, probes=2, leapfrog=2)
    sampler = DPS(steps=4) if family == "ddpm" else chain
    options = {"sampler": sampler, "n": 1, "seed": 3, "progress": False}
    found = genprior.restore(measurement, prior=prior, label=2, **options).samples
    wanted = genprior.restore(measurement, prior=prior.given(2), **options).samples
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert (found - genprior.restore(measurement, prior=prior, label=0, **options).samples).abs().max() > 1e-4


@implicit_mixture
def test_without_a_label_classes_are_drawn_with_their_weights(family):
    """Of n = 4000 labels; a share has a standard error of 0.008 at most, and 5 of them are allowed."""
    prior = made(family)
    prior.fit_classes(torch.tensor([0] * 5 + [2] * 15))
    x = prior.sample(4000, seed=2)
    drawn = Noise(2, torch.zeros(4000, dtype=torch.long), torch.arange(4000))
    u = drawn.uniform(torch.empty(4000, 1, dtype=torch.float64)).flatten()
    assert float((u < 0.25).double().mean()) == pytest.approx(0.25, abs=0.04)
    if family == "vae":
        mean = prior.decode(drawn(torch.empty(4000, 2, dtype=torch.float64)), torch.where(u < 0.25, 0, 2))
        mean = mean + prior.decoder_variance.sqrt() * drawn(mean)
    else:
        z = drawn(torch.empty(4000, *prior.latent_shape, dtype=torch.float64))
        mean = prior.decode(z, torch.where(u < 0.25, 0, 2))
    torch.testing.assert_close(x, mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(prior.sample(5, seed=2), x[:5], rtol=0, atol=1e-9)


@implicit_mixture
def test_what_needs_a_label_says_so(family):
    prior = made(family)
    assert supports(prior, "sample")
    assert not supports(prior, "decode")
    with pytest.raises(UnsupportedError, match=r"has 3 classes, and this of one of them only: take prior.given\(label"):
        prior.decode(torch.zeros(2, *prior.latent_shape, dtype=torch.float64))
    with pytest.raises(ValueError, match="This prior has no classes: leave the label out"):
        made(family, classes=0).decode(torch.zeros(1, *prior.latent_shape, dtype=torch.float64), constant(1, 0))


@each_family
def test_labels_that_are_not_there_are_named(family):
    prior = made(family)
    for label in (3, -1, "five"):
        with pytest.raises(ValueError, match=f"There is no label {label!r}: this prior has 3 classes, counted from 0"):
            prior.given(label)
        with pytest.raises(ValueError, match="this prior has 3 classes"):
            prior.sample(1, label=label)
    plain = made(family, classes=0)
    said = f"This {type(plain).__name__} was trained without labels.*such as ddpm-mnist"
    for ask in (lambda: plain.given(0), lambda: plain.sample(1, label=0)):
        with pytest.raises(ValueError, match=said):
            ask()


def test_bundled_priors_with_classes_are_known(capsys):
    assert main(["priors"]) == 0
    told = {part.split(":")[0]: part for part in re.split(r"\n(?=\S)", capsys.readouterr().out)}
    assert "labels   10 classes" in told["ddpm-mnist"]
    assert "labels" not in told["vae-photo"]
    with pytest.raises(ValueError, match=r"trained without labels.*ddpm-mnist"):
        genprior.restore(torch.zeros(1, 28, 28), "denoise", prior="gan-mnist", noise=0.1, label=5)
    mean = torch.zeros(SHAPE)
    with pytest.raises(UnsupportedError, match=r"Gaussian has no class labels; .* such as ddpm-mnist"):
        Gaussian(mean, torch.ones(SHAPE)).given(1)


@each_family
def test_a_prior_with_classes_is_stored(family, tmp_path):
    prior = made(family, dtype=torch.float32)
    prior.fit_classes(torch.tensor([0, 1, 1, 2]))
    write_prior(prior, tmp_path, {})
    again = read_prior(tmp_path)
    torch.testing.assert_close(again.given(2).sample(2), prior.given(2).sample(2), rtol=0, atol=0)
    torch.testing.assert_close(again.sample(2), prior.sample(2), rtol=0, atol=0)


def test_spatial_autoencoder_given_a_label_takes_any_size():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = stirred(VAE((1, None, None), latent=2, widths=(4,), blocks=(0,), classes=2))
    given = prior.given(1).sized(6, 4)
    assert given.image_shape == (1, 6, 4)
    assert given.latent_shape == (2, 3, 2)
    z = torch.linspace(-1, 1, 12).reshape(1, 2, 3, 2)
    wanted = prior.sized(6, 4).decode(z, constant(1, 1))
    assert torch.equal(given.decode(z), wanted)
    assert prior.given(1).image_shape == (1, None, None)
    assert prior.given(1).sample(2, size=(6, 4)).shape == (2, 1, 6, 4)


def test_bound_of_a_diffusion_is_that_of_the_label():
    prior = made("ddpm")
    x = images(2)
    given, free = prior.given(1).elbo(x, terms=4), prior.elbo(x, terms=4)
    assert (given - free).abs().max() > 1e-3
    assert not supports(prior.given(1, guidance=2.0), "elbo")  # no law has that denoiser


# ---- the flow: exact ----


def toy(classes=3):
    """A flow of two values with three Gaussians, moved by random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        prior = Flow((2, 1, 1), widths=(8,), steps=(3,), pixels="linear", classes=classes).double()
    stirred(prior, 0.3, seed=4)
    prior.fit_classes(torch.tensor([0, 1, 1, 2, 2, 2]))
    return prior


def grid(low, high, n):
    points = low + (torch.arange(n, dtype=torch.float64) + 0.5) * (high - low) / n
    return torch.cartesian_prod(points, points).reshape(-1, 2, 1, 1), ((high - low) / n) ** 2


def test_density_given_a_label_and_without_integrate_to_one():
    """The midpoint rule on densities that vanish at the border converges faster than any power of the cell's side."""
    prior = toy()
    x, area = grid(-14, 14, 300)
    densities = [prior.given(k).log_prob(x).exp() for k in range(3)] + [prior.log_prob(x).exp()]
    for p in densities:
        border = (x.abs() > 13.9).flatten(1).any(1)
        assert float(p[border].max()) < 1e-9
        assert float(p.sum() * area) == pytest.approx(1, abs=1e-4)
    wanted = (densities[0] + 2 * densities[1] + 3 * densities[2]) / 6
    # weights are stored in float32, of relative rounding 2^-24
    torch.testing.assert_close(densities[3], wanted, rtol=1e-7, atol=1e-15)
    assert float((densities[0] - densities[1]).abs().sum() * area) > 0.05  # the classes differ


def test_draws_have_the_mean_and_covariance_of_the_density_given_the_label():
    """Of n = 20000 draws; 5 standard errors of a mean of unit-sized values, with twice the variance for products."""
    prior = toy()
    x, area = grid(-14, 14, 300)
    for k in range(3):
        p = prior.given(k).log_prob(x).exp() * area
        flat = x.flatten(1)
        mean = p @ flat
        covariance = (flat - mean).T @ (p[:, None] * (flat - mean))
        draws = prior.given(k).sample(20000, seed=k).flatten(1)
        sd = covariance.diagonal().sqrt()
        assert ((draws.mean(0) - mean).abs() < 5 * sd / 20000**0.5).all()
        # fourth moments of laws with light tails: below 4 sd^4
        assert ((torch.cov(draws.T) - covariance).abs() < 5 * 2 * torch.outer(sd, sd) / 20000**0.5).all()


def test_logdet_equals_jacobian_and_inverse_undoes_the_map_of_every_class():
    prior = made("nf")
    x = images(3)
    labels = torch.tensor([0, 1, 2])
    z, logdet = prior(x, labels)
    torch.testing.assert_close(prior.inverse(z, labels), x, rtol=0, atol=1e-10)
    torch.testing.assert_close(prior.encode(x, labels), z, rtol=0, atol=0)
    for image, label, own in zip(x, labels, logdet, strict=True):
        J = torch.autograd.functional.jacobian(lambda x, k=label: prior(x[None], k[None])[0].flatten(), image)
        assert float(own) == pytest.approx(float(torch.linalg.slogdet(J.reshape(16, 16)).logabsdet), abs=1e-9)


def test_score_of_the_mixture_weighs_the_scores_of_the_classes():
    """grad ln p = sum_k p(k | x) grad ln p(x | k)."""
    prior = toy()
    x = images(4).flatten(1)[:, :2].reshape(4, 2, 1, 1)
    log_joint = torch.stack([prior.given(k).log_prob(x) for k in range(3)], 1) + torch.tensor([1, 2, 3]).log()
    scores = torch.stack([prior.given(k).score(x) for k in range(3)], 1)
    wanted = (log_joint.softmax(1)[:, :, None, None, None] * scores).sum(1)
    torch.testing.assert_close(prior.score(x), wanted, rtol=1e-6, atol=1e-6)


def test_classes_of_weight_zero_do_not_count():
    log_probs = torch.tensor([[1.0, 2.0, 3.0]])
    weights = shares(torch.tensor([0, 2]), 3)
    assert weights.tolist() == [0.5, 0, 0.5]
    wanted = math.log(0.5 * math.exp(1) + 0.5 * math.exp(3))
    assert float(mixed(log_probs, weights)) == pytest.approx(wanted, rel=1e-6)


# ---- the autoencoder: a bound ----


def test_bound_given_the_label_is_below_the_density_given_the_label():
    """Against ln p(x | k) = ln ∫ N(x; G(z, k), v I) N(z; 0, 1) dz by the midpoint rule over one latent in [-8, 8].

    The bound is a mean over draws; 5 of its standard errors are granted.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        prior = stirred(VAE((1, 2, 2), latent=1, widths=(4,), blocks=(0,), classes=2).double(), 0.1)
    prior.slow_log_variance.fill_(math.log(0.25) / 10)  # v = 1/4, and q as wide as the prior: 2000 draws of it suffice
    prior.encoder[-1].bias[1:] = 0
    x = images(2).flatten(1)[:, :4].reshape(2, 1, 2, 2)
    points = ((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000 * 16 - 8)[:, None]
    normal = torch.distributions.Normal(0, 1).log_prob(points[:, 0])
    truths = []
    for label in (0, 1):
        each = [prior.log_likelihood(image.expand(4000, -1, -1, -1), points, constant(4000, label)) for image in x]
        truth = torch.stack([(log + normal).logsumexp(0) for log in each]) + math.log(16 / 4000)
        bounds = torch.stack([prior.given(label).elbo(x, seed=seed) for seed in range(200)])
        assert ((bounds.mean(0) - 5 * bounds.std(0) / 200**0.5) < truth).all()
        closer = prior.iwae(x, 2000, constant(2, label))
        assert (closer > bounds.mean(0)).all()
        torch.testing.assert_close(closer, truth, rtol=0, atol=0.1)
        truths.append(truth)
    assert (truths[0] - truths[1]).abs().max() > 0.01


def test_encoder_and_decoder_are_both_told_the_label():
    prior = made("vae")
    x, z = images(1), torch.zeros(1, 2, dtype=torch.float64)
    assert (prior.encode(x, constant(1, 0)) - prior.encode(x, constant(1, 1))).abs().max() > 1e-3
    assert (prior.decode(z, constant(1, 0)) - prior.decode(z, constant(1, 1))).abs().max() > 1e-4


# ---- training ----


def bright(n, start=0):
    """Images of two classes: 0.25 and 0.75 everywhere, with a little noise."""
    items = torch.arange(start, start + n)
    label = items % 2
    noise = Noise(5, items)(torch.empty(n, *SHAPE))
    return {"x": (0.25 + 0.5 * label).reshape(-1, 1, 1, 1) + 0.05 * noise, "item": items, "label": label}


@pytest.mark.parametrize(("family", "steps", "lr"), [("vae", 40, 2e-3), ("nf", 50, 3e-3), ("gan", 60, 2e-3)])
def test_training_with_labels_learns_the_images_of_each(family, steps, lr):
    """Means of 64 draws given each label come nearer to that class's 0.25 or 0.75 than to the middle between them."""
    shape = (1, 8, 8)
    data = [{**bright(32, 32 * i)} for i in range(steps)]
    for batch in data:
        batch["x"] = batch["x"].repeat(1, 1, 2, 2).clamp(0, 1)
    chosen = plan(family, shape, 2, data[0]["x"], 0)
    adams = [torch.optim.Adam(objective.parameters(), lr=lr, betas=(0.5, 0.99)) for objective in chosen.objectives]
    for step, batch in enumerate(data):
        for objective, adam in zip(chosen.objectives, adams, strict=True):
            adam.zero_grad()
            objective(batch, step)[0].backward()
            adam.step()

    prior = chosen.prior.eval()
    means = [float(prior.given(label).sample(64).mean()) for label in (0, 1)]
    assert means[0] < 0.375
    assert means[1] > 0.625


def test_objectives_pass_the_labels_of_the_batch_on():
    """Each loss is the one that the prior itself gives for those labels."""
    batch = bright(4)
    flow, vae, gan = (made(family, dtype=torch.float32) for family in ("nf", "vae", "gan"))
    flipped = {**batch, "label": 1 - batch["label"]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        discriminator = plan("gan", (1, 4, 4), CLASSES, batch["x"], 0).objectives[0].discriminator
        discriminator.embed.weight.data.normal_()
    losses = [
        MaximumLikelihood(flow),
        EvidenceBound(vae),
        DiscriminatorLoss(gan, discriminator),
        GeneratorLoss(gan, discriminator),
    ]
    for objective in losses:
        objective.eval()
        loss, other = (objective(each, 0)[0].detach() for each in (batch, flipped))
        assert float(loss) != pytest.approx(float(other), abs=1e-4)
        with pytest.raises((UnsupportedError, TypeError)):
            objective({name: batch[name] for name in ("x", "item")}, 0)


def test_both_networks_of_the_generator_loss_are_told_the_label():
    batch = bright(4)
    gan = made("gan", dtype=torch.float32)
    discriminator = plan("gan", SHAPE, CLASSES, batch["x"], 0).objectives[0].discriminator
    discriminator.embed.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    fake = gan.decode(latents(gan, batch, 3, GENERATOR), batch["label"])
    wanted = torch.nn.functional.softplus(-discriminator(fake, batch["label"])).mean()
    loss, _ = GeneratorLoss(gan, discriminator, seed=3)(batch, 0)
    torch.testing.assert_close(loss, wanted, rtol=1e-6, atol=0)


def test_patches_have_no_classes():
    with pytest.raises(ValueError, match="no labels in an nf: leave the labels out, or train a ddpm"):
        plan("nf", (3, None, None), 2, torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0)), 0)


@pytest.mark.parametrize("family", [DDPM, VAE])
def test_labels_below_0_are_refused(family):
    """By families of which each class has a weight, and by those that only embed labels."""
    prior = family((1, 8, 8), widths=(4, 4), classes=2)
    with pytest.raises(ValueError, match="count from 0, and one is -1"):
        prior.fit_classes(torch.tensor([0, -1, 1]))

"""Flow-GAN: the hybrid's gradient, its two ends, whose gradients, what the discriminator sees, and the trade-off.

Where gradients are compared, everything is float64 but the logits, which the losses round to float32 (2^-24).
"""

import copy
import math

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from genprior.divergences import jensen_shannon, monte_carlo_kl
from genprior.nets.gan import Discriminator
from genprior.priors.flow import Flow
from genprior.priors.gaussian.mixture import GaussianMixture
from genprior.training.adversarial import GENERATOR, GeneratorLoss, latents
from genprior.training.flow_gan import FlowDiscriminatorLoss, HybridLoss, flow_gan
from genprior.training.likelihood import MaximumLikelihood
from genprior.training.loop import Settings, train

SHAPE, BATCH = (1, 4, 4), 4


class Linear(nn.Module):
    """l(x) = w . x + 0.3, which keeps the images that it saw."""

    def __init__(self):
        super().__init__()
        self.w, self.seen = nn.Parameter(normal(16, seed=1)), []

    def forward(self, x):
        self.seen.append(x.detach())
        return x.flatten(1) @ self.w + 0.3


class Grey(Dataset):
    """Random 8-bit images."""

    def __len__(self):
        return 12

    def __getitem__(self, item):
        return {"x": grey(1, seed=item % 12)[0].float(), "item": item}


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grey(n, seed=5):
    return torch.randint(0, 256, (n, *SHAPE), generator=torch.Generator().manual_seed(seed)).double() / 255


def examples(n=BATCH, **more):
    return {"x": grey(n), "item": torch.arange(n), **more}


def networks(dtype=torch.float64, **more):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior, discriminator = (
            Flow(SHAPE, widths=(4,), steps=(2,), **more),
            Discriminator(SHAPE, (4, 4), hidden=4, **more),
        )
        for net in (prior, discriminator):
            for parameter in net.parameters():
                parameter.data += 0.1 * torch.randn(parameter.shape)
    return prior.to(dtype), discriminator.to(dtype)


def gradients(objective, parameters, batch):
    return torch.autograd.grad(objective(batch, 0)[0], list(parameters))


# ---- the objective and its two ends ----


def test_gradient_of_the_hybrid_is_the_weighted_sum():
    prior, discriminator = networks()
    batch, w = examples(), 0.7
    hybrid, adversarial, likelihood = (
        gradients(objective, prior.parameters(), batch)
        for objective in (
            HybridLoss(prior, discriminator, w, seed=3),
            GeneratorLoss(prior, discriminator, seed=3),
            MaximumLikelihood(prior, seed=3),
        )
    )
    for found, a, b in zip(hybrid, adversarial, likelihood):
        # The same float32 logits on both sides, so that only float64 sums are rounded.
        torch.testing.assert_close(found, a + w * b, rtol=1e-9, atol=1e-12)
        assert min(a.abs().max(), b.abs().max()) > 1e-6  # neither term is lost unseen


def test_logs_tell_both_terms_apart():
    prior, discriminator = networks()
    loss, logs = HybridLoss(prior, discriminator, 0.7)(examples(), 0)
    assert float(loss.detach()) == pytest.approx(float(logs["generator"] + 0.7 * logs["bits"]), rel=1e-12)
    assert torch.equal(logs["bits"], MaximumLikelihood(prior)(examples(), 0)[0].detach())
    assert not any(value.requires_grad for value in logs.values())


def test_likelihood_alone_is_maximum_likelihood_bit_for_bit(tmp_path):
    settings, (prior, discriminator) = Settings(3, batch=4, warmup=0), networks(torch.float32)
    plain = copy.deepcopy(prior)
    train(
        prior, flow_gan(prior, discriminator, weight=math.inf, seed=2), Grey(), settings, tmp_path / "a", progress=False
    )
    train(plain, [MaximumLikelihood(plain, seed=2)], Grey(), settings, tmp_path / "b", progress=False)
    assert all(torch.equal(a, b) for a, b in zip(prior.parameters(), plain.parameters()))
    assert any(not torch.equal(a, b) for a, b in zip(plain.parameters(), networks(torch.float32)[0].parameters()))


def test_adversarial_alone_has_the_gradient_of_a_gan():
    """-ln d(h^-1(z)), written down."""
    prior, discriminator = networks()
    batch, objective = examples(), flow_gan(prior, discriminator, weight=0)[1]
    logit = discriminator(prior.decode(latents(prior, batch, 0, GENERATOR)))
    expected = torch.autograd.grad(-logit.sigmoid().log().mean(), list(prior.parameters()))
    for found, wanted in zip(gradients(objective, prior.parameters(), batch), expected):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)  # the logits are rounded to float32


@pytest.mark.parametrize("weight", [-1.0, math.nan])
def test_a_weight_below_zero_is_refused(weight):
    with pytest.raises(ValueError, match="give a number from 0, adversarial alone, to inf"):
        flow_gan(*networks(), weight=weight)


# ---- whose gradients ----


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_each_network_has_gradients_in_its_own_step_only(weight):
    prior, discriminator = networks()
    for objective, own, other in zip(
        flow_gan(prior, discriminator, weight=weight), (discriminator, prior), (prior, discriminator)
    ):
        assert set(map(id, objective.parameters())) == set(map(id, own.parameters()))
        objective(examples(), 3)[0].backward()  # a step with the penalty
        assert all(p.grad is None for p in other.parameters())
        assert all(p.grad is not None for p in own.parameters())
        assert all(p.requires_grad for p in (*own.parameters(), *other.parameters()))
        own.zero_grad()


def test_averaged_copy_of_the_objectives_judges_its_own_flow():
    prior, discriminator = networks()
    twin = copy.deepcopy(nn.ModuleList(flow_gan(prior, discriminator, weight=1.0)))
    own = twin[1].likelihood.prior
    assert own is not prior
    assert twin[1].unregistered[0].prior is twin[0].loss.unregistered[0] is own
    assert twin[1].unregistered[0].unregistered[0] is twin[0].loss.discriminator is not discriminator


# ---- the data ----


def test_discriminator_sees_real_images_dequantised():
    """Each value in the cell of its grey level, at another place every time: exact levels would give them away."""
    prior, _ = networks()
    discriminator, batch = Linear(), examples(64)
    FlowDiscriminatorLoss(prior, discriminator)(batch, 0)
    place = 256 * discriminator.seen[0] - 255 * batch["x"]
    assert bool(((place > 0) & (place < 1)).all())
    # 1024 uniform values have the mean 1/2 +- 0.009; five times that.
    assert float(place.mean()) == pytest.approx(0.5, abs=0.045)
    # and are not those of the latents of the images beside them: |correlation| < 5 / sqrt(1024)
    z = latents(prior, batch, 0, 0)
    assert abs(float(torch.corrcoef(torch.stack([z.flatten(), place.flatten()]))[0, 1])) < 0.16


def test_losses_do_not_depend_on_how_a_batch_is_shared():
    prior, _ = networks()
    discriminator, batch = Linear(), examples(8)
    halves = [{key: value[rows] for key, value in batch.items()} for rows in (slice(4), slice(4, 8))]
    for objective in flow_gan(prior, discriminator, weight=2.0):
        whole, parts = objective(batch, 3)[0], [objective(half, 3)[0] for half in halves]
        assert float(whole.detach()) == pytest.approx(float(sum(parts).detach()) / 2, rel=1e-6)


def test_labels_reach_both_networks():
    objectives = flow_gan(*networks(classes=3), weight=1.0)
    for objective in objectives:
        one, other = (objective(examples(label=torch.full((BATCH,), k)), 0)[1] for k in (0, 2))
        assert all(float(one[key]) != float(other[key]) for key in one)
        assert len(one) == len(other) > 0


def test_run_that_was_stopped_goes_on_as_if_it_had_not(tmp_path):

    def weights(folder, steps):
        prior, discriminator = networks(torch.float32)
        settings = Settings(steps, batch=4, accumulate=2, warmup=0, decay=0.0, save_every=2)
        objectives = flow_gan(prior, discriminator, weight=1.0)
        train(prior, objectives, Grey(), settings, tmp_path / folder, progress=False)
        return [*prior.parameters(), *discriminator.parameters()]

    weights("stopped", 2)
    assert all(torch.equal(a, b) for a, b in zip(weights("stopped", 4), weights("whole", 4)))


# ---- what it does ----


def test_adversarial_training_buys_what_the_discriminator_sees_with_likelihood():
    """Of a flow that cannot be the data: JS(data, flow), which an ideal discriminator measures, falls; KL rises.

    85 % of the data are of N(0, I / 9), the rest of N((3, 3), I / 9), and the flow has a single small coupling. By
    likelihood it covers both, and what is between. The discriminator learns faster, so as to be nearly ideal.
    """
    data = GaussianMixture(
        torch.tensor([0.85, 0.15]),
        torch.tensor([0.0, 3.0])[:, None, None, None].expand(2, 2, 1, 1),
        torch.full((2, 1, 1), 1 / 9),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = Flow((2, 1, 1), widths=(2,), steps=(1,), pixels="linear")
        judge = nn.Sequential(
            nn.Flatten(), nn.Linear(2, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 1), nn.Flatten(0)
        )
    prior.initialise(data.sample(500, seed=9))

    def trained(weight, steps, rates):
        objectives = flow_gan(prior, judge, weight=weight)
        optimizers = [
            torch.optim.Adam(own.parameters(), lr=lr, betas=(0.0, 0.99)) for own, lr in zip(objectives, rates)
        ]
        for step in range(steps):
            batch = {"x": data.sample(128, seed=step), "item": torch.arange(128 * step, 128 * (step + 1))}
            for objective, optimizer in zip(objectives, optimizers):
                optimizer.zero_grad()
                objective(batch, step)[0].backward()
                optimizer.step()
        with torch.no_grad():
            return jensen_shannon(data, prior, 16000, seed=1), monte_carlo_kl(data, prior, 16000, seed=1)

    by_likelihood, adversarially = trained(math.inf, 200, [1e-2]), trained(0.0, 300, [1e-2, 3e-3])
    (js_before, kl_before), (js, kl) = by_likelihood, adversarially
    assert js_before.value - js.value > 5 * math.hypot(js.error, js_before.error)
    assert kl.value - kl_before.value > 5 * math.hypot(kl.error, kl_before.error)

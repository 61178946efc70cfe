"""The adversarial objectives: their formulas, who gets gradients, R1, the divergence bound, and two in the loop.

Where values are compared with formulas, everything is float64. Discriminators are small modules with known logits.
"""

import copy
import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset

from genprior.nets.gan import Discriminator
from genprior.priors.base import Prior
from genprior.priors.folder import read_prior
from genprior.priors.gan import GAN
from genprior.training import checkpoint
from genprior.training.adversarial import DISCRIMINATOR, GENERATOR, DiscriminatorLoss, GeneratorLoss, latents
from genprior.training.loop import Settings, train

SHAPE = (1, 4, 4)
STEPS, BATCH = 10, 4


class Linear(nn.Module):
    """l(x) = w . x + b."""

    def __init__(self, w, b=0.3):
        super().__init__()
        self.w, self.b = nn.Parameter(w.clone()), nn.Parameter(torch.tensor(b, dtype=torch.float64))

    def forward(self, x):
        return x.flatten(1) @ self.w + self.b


class Quadratic(nn.Module):
    """l(x) = x^T Q x / 2, Q symmetric, whose gradient is Q x."""

    def __init__(self, Q):
        super().__init__()
        self.Q = nn.Parameter(Q.clone())

    def forward(self, x):
        return (x.flatten(1) @ self.Q * x.flatten(1)).sum(1) / 2


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def networks(shape=SHAPE, dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = GAN(shape, latent=3, widths=(4, 4), hidden=4)
        discriminator = Discriminator(shape, widths=(4, 4), hidden=4)
        for net in (prior, discriminator):
            for parameter in net.parameters():
                parameter.data.normal_(std=0.3)
    return prior.to(dtype), discriminator.to(dtype)


def examples(n=BATCH, shape=SHAPE, start=0):
    return {"x": normal(n, *shape, seed=5) / 4 + 0.5, "item": torch.arange(start, start + n)}


# ---- the losses ----


def test_losses_are_those_of_the_course():
    prior, _ = networks()
    discriminator, batch = Linear(normal(16, seed=1)), examples()
    d_real = discriminator(batch["x"]).sigmoid()
    d_fake = discriminator(prior.decode(latents(prior, batch, 9, DISCRIMINATOR))).sigmoid()
    loss, logs = DiscriminatorLoss(prior, discriminator, seed=9)(batch, 0)
    # The logits of the losses are float32 (they may come from an autocast), of relative rounding 2^-24.
    assert float(loss.detach()) == pytest.approx(float((-(1 - d_fake).log() - d_real.log()).mean().detach()), rel=1e-6)
    assert float(logs["discriminator"]) == float(loss.detach())

    d_fake = discriminator(prior.decode(latents(prior, batch, 9, GENERATOR))).sigmoid()
    loss, logs = GeneratorLoss(prior, discriminator, seed=9)(batch, 0)
    assert float(loss.detach()) == pytest.approx(float(-d_fake.log().mean().detach()), rel=1e-6)
    assert float(logs["generator"]) == float(loss.detach())


def test_a_sure_discriminator_gives_finite_losses_and_gradients():
    """d(x) = 1 - e^-500 is 1 in floating point, and ln(1 - d) of it would be infinite; softplus is 500."""
    prior, _ = networks()
    batch = examples() | {"x": torch.zeros(BATCH, *SHAPE, dtype=torch.float64)}
    sure = Linear(torch.zeros(16, dtype=torch.float64), b=500.0)  # everything is real
    loss, _ = DiscriminatorLoss(prior, sure)(batch, 0)
    assert float(loss.detach()) == pytest.approx(500)
    doubtful = Linear(torch.ones(16, dtype=torch.float64), b=-500.0)  # nothing is
    loss, _ = GeneratorLoss(prior, doubtful)(batch, 0)
    loss.backward()
    assert 480 < float(loss.detach()) < 500
    # where -ln d has the slope -1 in the logit, ln(1 - d) would have none
    assert max(float(p.grad.abs().max()) for p in prior.parameters()) > 1e-2


def test_latents_are_keyed_by_seed_item_and_objective():
    prior, _ = networks()
    batch = examples(6)
    z = latents(prior, batch, 0, DISCRIMINATOR)
    part = {key: value[2:5] for key, value in batch.items()}
    assert torch.equal(latents(prior, part, 0, DISCRIMINATOR), z[2:5])
    for other in (latents(prior, batch, 1, DISCRIMINATOR), latents(prior, batch, 0, GENERATOR)):
        assert not (other == z).any()


def test_losses_do_not_depend_on_how_a_batch_is_shared():
    """Per item, but for a discriminator that compares rows: the mean of two halves is the whole."""
    prior, _ = networks()
    discriminator, batch = Linear(normal(16, seed=1)), examples(8)
    halves = [{key: value[rows] for key, value in batch.items()} for rows in (slice(4), slice(4, 8))]
    for objective in (DiscriminatorLoss(prior, discriminator, every=1), GeneratorLoss(prior, discriminator)):
        whole, parts = objective(batch, 0)[0], [objective(half, 0)[0] for half in halves]
        assert float(whole.detach()) == pytest.approx(float(sum(parts).detach()) / 2, rel=1e-6)


# ---- whose gradients ----


def test_each_objective_has_exactly_the_parameters_it_trains():
    prior, discriminator = networks()
    first, second = DiscriminatorLoss(prior, discriminator), GeneratorLoss(prior, discriminator)
    assert set(map(id, first.parameters())) == set(map(id, discriminator.parameters()))
    assert set(map(id, second.parameters())) == set(map(id, prior.parameters()))


@pytest.mark.parametrize("autocast", [False, True])
def test_no_gradient_leaks_into_the_other_network(autocast):
    prior, discriminator = networks(dtype=torch.float32)
    batch = {key: value.float() if value.is_floating_point() else value for key, value in examples().items()}
    for objective, own, other in (
        (DiscriminatorLoss(prior, discriminator, every=1), discriminator, prior),
        (GeneratorLoss(prior, discriminator), prior, discriminator),
    ):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss, logs = objective(batch, 0)
        loss.backward()
        assert all(p.grad is None for p in other.parameters())
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in own.parameters())
        assert all(p.requires_grad for p in (*own.parameters(), *other.parameters()))
        assert not any(value.requires_grad for value in logs.values())
        own.zero_grad()
    assert batch["x"].grad is None
    assert not batch["x"].requires_grad


def test_generator_gradient_is_that_through_the_discriminator():
    """Freezing the weights of d must not cut the path from x to the logit: against a plain computation."""
    prior, discriminator = networks()
    batch = examples()
    loss, _ = GeneratorLoss(prior, discriminator)(batch, 0)
    logit = discriminator(prior.decode(latents(prior, batch, 0, GENERATOR)))
    expected = torch.autograd.grad(-logit.sigmoid().log().mean(), list(prior.parameters()))
    for found, wanted in zip(torch.autograd.grad(loss, list(prior.parameters())), expected):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-8)  # the logits are rounded to float32


def test_copies_of_both_objectives_share_one_copy_of_both_networks():
    """What the moving average relies on: its discriminator judges its own generator, not the one in training."""
    prior, discriminator = networks()
    parts = nn.ModuleDict(
        {
            "prior": prior,
            "objectives": nn.ModuleList([DiscriminatorLoss(prior, discriminator), GeneratorLoss(prior, discriminator)]),
        }
    )
    twin = copy.deepcopy(parts)
    first, second = twin["objectives"]
    assert first.unregistered[0] is second.prior is twin["prior"] is not prior
    assert second.unregistered[0] is first.discriminator is not discriminator


# ---- the penalty ----


def test_penalty_of_a_linear_logit_is_that_of_its_weights():
    prior, _ = networks()
    w = normal(16, seed=1)
    _, logs = DiscriminatorLoss(prior, Linear(w), gamma=0.7, every=1)(examples(), 0)
    assert float(logs["penalty"]) == pytest.approx(0.7 / 2 * float(w @ w), rel=1e-6)


def test_penalty_of_a_quadratic_logit_is_its_gradient_on_real_images_and_is_minimised():
    """R1 = gamma/2 E |Q x|^2, and its gradient with respect to Q is gamma E (Q x) x^T."""
    prior, _ = networks()
    Q = normal(16, 16, seed=1)
    discriminator, batch, gamma = Quadratic(Q + Q.T), examples(), 0.7
    x = batch["x"].flatten(1)
    with_penalty, logs = DiscriminatorLoss(prior, discriminator, gamma=gamma, every=1)(batch, 0)
    without, _ = DiscriminatorLoss(prior, discriminator, gamma=gamma, every=2)(batch, 0)
    gradient = x @ (Q + Q.T)
    assert float(logs["penalty"]) == pytest.approx(gamma / 2 * float(gradient.square().sum(1).mean()), rel=1e-6)
    found = torch.autograd.grad(with_penalty - without, discriminator.Q)[0]
    expected = gamma * gradient.T @ x / len(x)
    # autograd differentiates (Q + Q^T) x / 2, the gradient for any Q: compare what is symmetric
    scale = float(expected.abs().max())
    torch.testing.assert_close((found + found.T) / 2, (expected + expected.T) / 2, rtol=0, atol=1e-5 * scale)


def test_penalty_is_rare_and_as_much_stronger():
    prior, discriminator = networks()
    objective, batch = DiscriminatorLoss(prior, discriminator, every=4), examples()
    plain = float(objective(batch, 0)[0].detach())
    losses = [objective(batch, step) for step in range(8)]
    assert ["penalty" in logs for _, logs in losses] == [False, False, False, True] * 2
    for loss, logs in losses:
        expected = plain + 4 * float(logs.get("penalty", 0))
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-6)
    assert float(losses[3][1]["penalty"]) > 1e-4


def test_validation_has_no_penalty_and_needs_no_gradients():
    prior, discriminator = networks()
    objective, batch = DiscriminatorLoss(prior, discriminator, every=1), examples()
    with torch.no_grad():
        loss, logs = objective.eval()(batch, 0)
    assert set(logs) == {"discriminator"}
    assert float(loss) == float(logs["discriminator"])


# ---- what is learned ----


class Shift(Prior):
    """x = mean + sd z, one value: a generator whose law is known."""

    image_shape = (1, 1, 1)
    latent_shape = (1,)

    def __init__(self, mean, sd):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(float(mean), dtype=torch.float64))
        self.sd = sd

    def decode(self, z):
        return (self.mean + self.sd * z)[:, :, None, None]


def best_logit(data_mean, prior):
    """l*(x) = ln p_data(x) - ln p(x) for two normal laws of one sd: w x + b, the best discriminator of all."""
    m, v = float(prior.mean.detach()), prior.sd**2
    return Linear(torch.tensor([(data_mean - m) / v], dtype=torch.float64), b=(m**2 - data_mean**2) / (2 * v))


def data_of(mean, sd, n):
    return {"x": mean + sd * normal(n, 1, 1, 1, seed=11), "item": torch.arange(n)}


def test_at_equal_laws_the_bound_is_minus_2_ln_2():
    """The best d is 1/2 everywhere: E ln(1 - d) + E ln d = -2 ln 2, exactly and for any sample."""
    prior = Shift(0.2, 0.5)
    loss, _ = DiscriminatorLoss(prior, best_logit(0.2, prior))(data_of(0.2, 0.5, 100), 0)
    assert float(-loss.detach()) == pytest.approx(-2 * math.log(2), rel=1e-6)


def test_best_discriminator_gives_the_jensen_shannon_divergence():
    """max_phi of the bound is 2 JS - 2 ln 2; JS of N(0, 1) and N(2, 1) by quadrature. No other discriminator has more.

    Each of the two means is over n draws of a softplus of variance < 1 (checked): 3.3 sd of their sum is 0.0148.
    """
    n, prior = 100_000, Shift(2.0, 1.0)
    t = torch.linspace(-10, 12, 20001, dtype=torch.float64)
    p, q = (torch.exp(-((t - m) ** 2) / 2) / math.sqrt(2 * math.pi) for m in (0.0, 2.0))
    js = float(torch.trapezoid((p * (2 * p / (p + q)).log() + q * (2 * q / (p + q)).log()) / 2, t))
    batch, best = data_of(0.0, 1.0, n), best_logit(0.0, prior)
    assert best(batch["x"]).neg().exp().log1p().var() < 1
    bound = float(-DiscriminatorLoss(prior, best)(batch, 0)[0].detach())
    assert bound == pytest.approx(2 * js - 2 * math.log(2), abs=3.3 * math.sqrt(2 / n))
    for factor, offset in ((0.6, 0.0), (1.6, 0.0), (1.0, 0.8), (1.0, -0.8)):
        other = Linear(factor * best.w.detach(), b=float(best.b.detach()) + offset)
        assert float(-DiscriminatorLoss(prior, other)(batch, 0)[0].detach()) < bound - 3.3 * math.sqrt(2 / n)


def test_alternating_steps_bring_the_generator_to_the_data():
    """N(m, 1) learns N(1.5, 1) from m = 0, with a linear discriminator, which knows the means only.

    At the end the discriminator is blind, w = 0 and m = 1.5. R1 with gamma = 1 makes that point attract (Mescheder et
    al.); gradients of batches of n = 256 keep m within a tenth of it.
    """
    prior, discriminator = Shift(0.0, 1.0), Linear(torch.zeros(1, dtype=torch.float64), b=0.0)
    objectives = [DiscriminatorLoss(prior, discriminator, gamma=1.0, every=1), GeneratorLoss(prior, discriminator)]
    optimizers = [torch.optim.SGD(objective.parameters(), lr=0.4) for objective in objectives]
    means = []
    for step in range(100):
        items = torch.arange(256 * step, 256 * (step + 1))
        batch = {"x": 1.5 + normal(256, 1, 1, 1, seed=100 + step), "item": items}
        for objective, optimizer in zip(objectives, optimizers):
            loss, _ = objective(batch, step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        means.append(float(prior.mean.detach()))
    assert abs(means[4]) < 0.8
    assert sum(means[-30:]) / 30 == pytest.approx(1.5, abs=0.1)
    assert abs(float(discriminator.w.detach())) < 0.1


# ---- in the loop ----


class Squares(Dataset):
    """Twelve random images; from item `stop` on it fails."""

    def __init__(self, stop=math.inf):
        self.stop = stop

    def __len__(self):
        return 12

    def __getitem__(self, item):
        if item >= self.stop:
            raise InterruptedError("power cut")
        x = np.random.default_rng((7, item % 12)).random((1, 4, 4), dtype=np.float32)
        return {"x": torch.from_numpy(x), "item": item}


def run(out, data=None, **settings):
    prior, discriminator = networks(dtype=torch.float32)
    settings = {
        "steps": STEPS, "batch": BATCH, "lr": 1e-2, "warmup": 0, "weight_decay": 0.0, "betas": (0.0, 0.99),
        "ema": 0.9, "log_every": 1, "save_every": 3, "keep": 9,
    } | settings  # fmt: skip
    objectives = [DiscriminatorLoss(prior, discriminator), GeneratorLoss(prior, discriminator)]
    return train(prior, objectives, data or Squares(), Settings(**{"precision": "no", **settings}), out, progress=False)


def state_of(folder):
    return (checkpoint.latest(folder) / "state.safetensors").read_bytes()


def discriminator_of(folder, kind):
    """Its weights in the last checkpoint: `kind` is "objectives" for those in training, "ema" for the average."""
    start = f"{kind}/0.discriminator."
    tensors = load_file(checkpoint.latest(folder) / "state.safetensors")
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def weights(prior):
    return torch.cat([t.flatten() for t in prior.state_dict().values()])


def test_two_objectives_resume_bit_for_bit(tmp_path):
    """Both networks, their averages and both optimisers; step 6, where it stops, lies between two penalties."""
    expected = weights(run(tmp_path / "straight"))
    with pytest.raises(InterruptedError):
        run(tmp_path / "stopped", Squares(stop=6 * BATCH))
    assert checkpoint.latest(tmp_path / "stopped").name == "step-0000006"
    assert torch.equal(weights(run(tmp_path / "stopped")), expected)
    assert state_of(tmp_path / "stopped") == state_of(tmp_path / "straight")


def test_both_networks_are_trained_and_only_the_generator_is_kept(tmp_path):
    result = run(tmp_path)
    prior, discriminator = networks(dtype=torch.float32)
    assert (weights(result) - weights(prior)).abs().max() > 1e-3
    stored = read_prior(tmp_path / "prior")
    assert torch.equal(weights(stored), weights(result))
    assert set(stored.state_dict()) == set(prior.state_dict())
    # the discriminator is in the checkpoints, as it was and as it is on average
    for kind in ("objectives", "ema"):
        saved = discriminator_of(tmp_path, kind)
        assert all((saved[key] - initial).abs().max() > 1e-4 for key, initial in discriminator.state_dict().items())
    logs = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    names = {"discriminator", "generator", "gradient DiscriminatorLoss", "gradient GeneratorLoss"}
    assert all(names <= set(entry) for entry in logs)
    assert [entry["step"] for entry in logs if "penalty" in entry] == [4, 8]


def test_generator_answers_the_discriminator_of_the_same_step(tmp_path):
    """Alternating: the logged loss of the generator is that against the discriminator that has just been trained."""
    run(tmp_path, steps=1, save_every=1)
    prior, discriminator = networks(dtype=torch.float32)
    objective = GeneratorLoss(prior, discriminator)
    batch = {"x": torch.stack([Squares()[i]["x"] for i in range(BATCH)]), "item": torch.arange(BATCH)}
    before = float(objective(batch, 0)[0].detach())
    discriminator.load_state_dict(discriminator_of(tmp_path, "objectives"))
    after = float(objective(batch, 0)[0].detach())
    logged = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])["generator"]
    assert logged == pytest.approx(after, rel=1e-5)  # float32
    assert abs(after - before) > 1e-3

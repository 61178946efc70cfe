"""No step of a sampler waits for the device: nothing in it asks what a tensor holds.

On a GPU, a number or a list of places that the host wants to know is waited for until all work before it is done. On
the CPU the same operators are called, and can be counted.
"""

import pytest
import torch
from latent_linear import LinearLatents
from linear import LinearDecoder
from quick import DIFFUSION, quick
from torch.utils._python_dispatch import TorchDispatchMode

from genprior.checks import UnsupportedError
from genprior.noise import Noise
from genprior.operators import Blur, Inpaint, Measurement, SuperResolution, gaussian_kernel, random_mask
from genprior.priors.base import Prior
from genprior.truth.gaussian import correlated

SHAPE = (1, 4, 4)
OPERATORS = {
    "inpaint": Inpaint(random_mask(SHAPE, 0.5, 0), SHAPE),
    "circular blur": Blur(gaussian_kernel(1.0, 3), SHAPE, "circular"),
    "valid blur": Blur(gaussian_kernel(0.5, 3), SHAPE, "valid", iterations=3),
    "super-resolution": SuperResolution(2, SHAPE),
}
aten = torch.ops.aten
# `item` and `is_nonzero` are made of the first, but where they reach the mode whole they count as well.
WAITING = {aten._local_scalar_dense, aten.item, aten.is_nonzero, aten.nonzero, aten.masked_select, aten.equal}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class Waits(TorchDispatchMode):
    """Counts the operators that make the host wait, those of backward passes included."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        packet = operator.overloadpacket
        by_mask = packet in INDEXING and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        self.count += packet in WAITING or by_mask
        return operator(*args, **(kwargs or {}))


def waits(function, *arguments):
    """How often a function, or a draw of two images, makes the host wait."""
    noise = (Noise(0, [0, 1]),) if arguments else ()
    with torch.no_grad(), Waits() as mode:  # as `restore` does; samplers that want gradients ask for them
        function(*arguments, *noise)
    return mode.count


class Asking(torch.autograd.Function):
    """x -> x, which asks what x holds on the way there (`there` times) and what its gradient holds on the way back."""

    @staticmethod
    def forward(ctx, x, there, back):
        ctx.back = back
        for _ in range(there):
            x.sum().item()
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        for _ in range(ctx.back):
            gradient.sum().item()
        return gradient, None, None


class Curious(Prior):
    """A prior whose denoiser asks; see `Asking`."""

    def __init__(self, prior, there, back):
        super().__init__()
        self.prior, self.there, self.back = prior, there, back
        for name in ("image_shape", "centre", "spread", "sigma_min", "sigma_max"):
            setattr(self, name, getattr(prior, name))

    def denoise(self, x_t, sigma):
        return self.prior.denoise(Asking.apply(x_t, self.there, self.back), sigma)


def measured(prior, operator):
    y = operator(prior.sample(2, seed=1))
    return Measurement(y, operator, torch.tensor([0.1, 0.2], dtype=y.dtype).reshape(-1, 1, 1, 1))


PRIOR = correlated(SHAPE)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("name", DIFFUSION)
def test_steps_do_not_wait_for_the_device(name, operator):
    """What is asked once, before the loop, is the same at 4 and at 8 steps."""
    measurement = measured(PRIOR, OPERATORS[operator])
    try:
        waits(quick(name), PRIOR, measurement)  # what is made once and kept is made here
    except UnsupportedError:
        assert quick(name).needs_operator  # only those may refuse it
        return
    assert waits(quick(name, steps=8), PRIOR, measurement) - waits(quick(name, steps=4), PRIOR, measurement) == 0


class Plain(LinearDecoder):
    """With an energy, and a decoder variance that is a tensor, as of a trained prior: to know it is to wait."""

    def __init__(self):
        super().__init__(SHAPE, v=torch.tensor(0.02, dtype=torch.float64))

    def energy(self, x):
        return (x - self.centre).square().flatten(1).sum(1) / (2 * self.spread**2)


@pytest.mark.parametrize("name", ["latent-daps", "psld", "resample"])
def test_steps_in_latents_do_not_wait_for_the_device(name):
    prior = LinearLatents(SHAPE, v=torch.tensor(0.02, dtype=torch.float64))
    measurement = measured(prior, OPERATORS["inpaint"])
    waits(quick(name), prior, measurement)
    assert waits(quick(name, steps=8), prior, measurement) - waits(quick(name, steps=4), prior, measurement) == 0


CHAINS = ("latent", "fisher-hmc", "csgm", "vae-gibbs", "ula", "hmc", "mala", "map")


@pytest.mark.parametrize("name", CHAINS)
def test_steps_of_chains_do_not_wait_for_the_device(name):
    """Twice the steps of every kind: of annealing, of burn-in and of the chain."""
    prior = Plain()
    measurement = measured(prior, OPERATORS["inpaint"])
    of_every_kind = {"steps": 8, "anneal": 4, "burn_in": 4, "descend": 4, "refreshes": 2, "probes": 2}
    short, long = (
        quick(name, leapfrog=2, restarts=2, **{kind: k * n for kind, n in of_every_kind.items()}) for k in (1, 2)
    )
    assert waits(long, prior, measurement) - waits(short, prior, measurement) == 0


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: x.sum().item(),
        lambda x: float(x.sum()),
        lambda x: bool((x > 0).all()),
        lambda x: x[x > 0],
        lambda x: x.masked_fill_(x > 0, 1).masked_select(x > 0),
        lambda x: (x > 0).nonzero(),
        lambda x: x.index_put_((x > 0,), torch.zeros(())),
        lambda x: torch.equal(x, x),
    ],
)
def test_every_way_to_ask_is_counted(ask):
    assert waits(lambda: ask(torch.ones(3))) > 0
    assert waits(lambda: torch.where(torch.ones(3) > 0, 1, 0)[torch.tensor([0, 2])].sum()) == 0


@pytest.mark.parametrize("name", ["dps", "mmps", "ddrm"])
def test_questions_of_the_denoiser_are_counted_forward_and_backward(name):
    """Three a forward pass and five a backward pass: as many as there are passes in the four steps between."""
    measurement = measured(PRIOR, OPERATORS["inpaint"])
    short, long = (quick(name, steps=steps) for steps in (4, 8))

    def asked(there, back):
        prior = Curious(PRIOR, there, back)
        return waits(long, prior, measurement) - waits(short, prior, measurement)

    forward_passes = long.calls - short.calls
    assert asked(3, 0) == 3 * forward_passes
    assert asked(0, 5) == 5 * (long.evaluations - short.evaluations - forward_passes)

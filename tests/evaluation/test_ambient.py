"""Torch's state around a call, which a caller has set for other work, changes no result and raises no error."""

import contextlib
import dataclasses

import pytest
import torch
from examples import SHAPE, examples

import genprior
from genprior.likelihoods import Quantised
from genprior.noise import Noise
from genprior.operators import (
    Blur,
    Colorize,
    Composition,
    Denoise,
    Inpaint,
    Matrix,
    SuperResolution,
    motion_kernel,
    random_mask,
)
from genprior.operators.measurement import Measurement
from genprior.samplers import SAMPLERS


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def everything():
    with contextlib.ExitStack() as stack:
        for enter in [enter for name, enter in AMBIENT.items() if name != "everything"]:
            stack.enter_context(enter())
        yield


AMBIENT = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "float64 by default": lambda: default_dtype(torch.float64),
    "meta device by default": lambda: torch.device("meta"),
    "deterministic": deterministic,
    "everything": everything,
}
PRIORS = examples()
OPERATORS = {
    "inpaint": lambda: Inpaint(random_mask(SHAPE, 0.4), SHAPE),
    "superres": lambda: SuperResolution(2, SHAPE),
    "oblique blur": lambda: Blur(motion_kernel(3, 30), SHAPE),
    "circular blur": lambda: Blur(motion_kernel(3, 30), SHAPE, "circular"),
    "colorize": lambda: Colorize(SHAPE),
    "matrix": lambda: Matrix(draw(20, 192), SHAPE),
    "composition": lambda: Composition(Colorize((3, 4, 4)), SuperResolution(2, SHAPE)),
    "denoise": lambda: Denoise(SHAPE),
}


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32, device="cpu")


def image(seed=0):
    return 0.5 + 0.1 * draw(1, *SHAPE, seed=seed)


@pytest.mark.parametrize("state", AMBIENT)
@pytest.mark.parametrize("name", OPERATORS)
def test_operators_give_what_they_always_give(name, state):
    def results():
        A = OPERATORS[name]()
        x, y = image(), A(image())
        given = [y, A.adjoint(y), A.pinv(y), A.solve(y, 1e-2), A.prox(x, y, 10.0)]
        if name not in ("oblique blur", "composition"):
            svd = A.svd()
            given += [svd.singular_values, svd.V(x), svd.Vt(x), svd.U(x), svd.Ut(y)]
        return given

    plain = results()
    with AMBIENT[state]():
        here = results()
    assert all(map(torch.equal, plain, here))


@pytest.mark.parametrize("family", [family for family in PRIORS if family != "amortized"])
def test_methods_of_priors_give_what_they_always_give(family):
    prior = PRIORS[family].sized(*SHAPE[1:])
    calls = {
        "log_prob": lambda p: p.log_prob(image()),
        "score": lambda p: p.score(image()),
        "energy": lambda p: p.energy(image()),
        "elbo": lambda p: p.elbo(image(), seed=1),
        "denoise": lambda p: p.denoise(image(), 0.1),
        "decode": lambda p: p.decode(draw(1, *p.latent_shape)),
        "encode": lambda p: p.encode(image()),
        "infer": lambda p: p.infer(image())[0],
        "sample": lambda p: p.sample(
            2, seed=1, **({"size": SHAPE[1:], "steps": 5} if family in ("ddpm", "ldm") else {})
        ),
    }
    called = {name: call for name, call in calls.items() if genprior.supports(prior, name)}
    assert called
    for name, call in called.items():
        plain = call(prior)
        with everything():
            here = call(prior)
        assert torch.equal(plain, here), name
        assert plain.dtype == here.dtype


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_draw_what_they_always_draw(name):
    steps = 3 if SAMPLERS[name].needs == "denoise" else 8
    least = {"steps": steps, "iterations": 2, "ode_steps": 2, "prior_steps": 2, "particles": 4, "restarts": 1}
    known = {field.name for field in dataclasses.fields(SAMPLERS[name])}
    sampler = SAMPLERS[name](**{key: value for key, value in least.items() if key in known})
    laws = (None, Quantised(0.1))
    kinds = ((prior, A(), law) for law in laws for A in OPERATORS.values() for prior in PRIORS.values())
    prior, A, law = next(kind for kind in kinds if sampler.lacks(*kind) is None)

    def drawn():
        measurement = Measurement(A(image()), A, 0.1 if law is None else law)
        return sampler(prior, measurement, Noise(3, [1]))

    plain = drawn()
    with everything():
        here = drawn()
    assert torch.equal(plain, here)


@pytest.mark.parametrize("state", AMBIENT)
def test_restore_degrade_and_evidence_give_what_they_always_give(state):
    def results():
        measured = genprior.degrade(image().clamp(0, 1), "inpaint", mask="random", fraction=0.3, noise=0.05, seed=1)
        grey = image()[:, :1]
        restored = genprior.restore(measured, prior=PRIORS["mixture"], n=2, seed=0, progress=False)
        blurred = genprior.restore(grey, "gaussian-deblur", denoiser, width=1.0, noise=0.1, n=1, steps=3, seed=0)
        told = genprior.evidence(measured, prior=PRIORS["mixture"])
        return (
            measured.y,
            restored.samples,
            blurred.samples,
            torch.tensor(told.value, device="cpu", dtype=torch.float64),
        )

    plain = results()
    with AMBIENT[state]():
        here = results()
    assert all(map(torch.equal, plain, here))


def denoiser(x_t, sigma):
    return 0.5 + 0.0625 / (0.0625 + sigma**2) * (x_t - 0.5)


def test_what_was_made_in_inference_mode_can_be_differentiated_through():
    with torch.inference_mode():
        net = torch.nn.Conv2d(3, 3, 1)
        prior = genprior.from_denoiser(Network(net), SHAPE)
        y = image()
        A = Blur(motion_kernel(3, 0), SHAPE, "circular")
        sampled = genprior.restore(y, A, prior, sampler="dps", noise=0.1, steps=2, seed=0, progress=False).samples
    assert torch.isfinite(sampled).all()
    x = image().requires_grad_()
    A(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(genprior.restore(y, A, prior, sampler="dps", noise=0.1, steps=2, seed=0).samples).all()


class Network(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x_t, sigma):
        return x_t - 0.1 * sigma**2 * self.net(x_t)

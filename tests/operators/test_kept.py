"""What operators and measurements keep is theirs: nobody else can change it; and it can be pickled and copied."""

import copy
import pickle

import numpy as np
import pytest
import torch

from genprior.operators import (
    Blur,
    Colorize,
    Denoise,
    Inpaint,
    Matrix,
    Measurement,
    SuperResolution,
    gaussian_kernel,
    motion_kernel,
    random_mask,
)
from genprior.operators.channelwise import Channelwise
from genprior.priors.foreign.denoiser import from_denoiser
from genprior.priors.gaussian.field import GaussianField
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.gaussian.mixture import GaussianMixture
from genprior.samplers import SAMPLERS

SHAPE = (3, 8, 8)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# What is given, and the operator of it.
GIVEN = {
    "kernel": (draw(3, 3), lambda k: Blur(k, SHAPE)),
    "separable kernel": (torch.ones(3, 3) / 9, lambda k: Blur(k, SHAPE)),
    "kernel of each image": (draw(2, 3, 3), lambda k: Blur(k, SHAPE, "circular")),
    "kernel for a measurement": (draw(3, 3), lambda k: Blur.for_measurement(k, (3, 6, 6))),
    "mask": (random_mask(SHAPE, 0.4), lambda m: Inpaint(m, SHAPE)),
    "mask of each image": (
        torch.stack([random_mask(SHAPE, 0.4, seed=i) for i in range(2)]),
        lambda m: Inpaint(m, SHAPE),
    ),
    "matrix": (draw(5, 192), lambda M: Matrix(M, SHAPE)),
    "matrix of each image": (draw(2, 5, 192), lambda M: Matrix(M, SHAPE)),
}


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize("name", GIVEN)
def test_what_an_operator_was_made_of_may_change_afterwards(name, array):
    given, make = GIVEN[name]
    given = given.clone().numpy() if array else given.clone()
    A, x = make(given), draw(2, *SHAPE)
    untouched = make(given.copy() if array else given.clone())
    given[...] = True
    y = untouched(x)
    for op in (A, A.select(torch.tensor([0, 1]))):
        assert torch.equal(op(x), y)
        assert torch.equal(op.solve(y, 0.1), untouched.solve(y, 0.1))
        assert torch.equal(op.adjoint(y), untouched.adjoint(y))


def test_y_and_noise_of_a_measurement_may_change_afterwards():
    y, noise = draw(2, *SHAPE), torch.full((2, 1, 1, 1), 0.1)
    A = Inpaint(random_mask(SHAPE, 0.4), SHAPE)
    measurement = Measurement(y, A, noise)
    also = Measurement(y, A, noise.numpy())
    y0 = y.clone()
    y.zero_()
    noise.zero_()
    for one in (measurement, also, measurement.select(torch.tensor([0, 1])), measurement.with_noise(also.noise)):
        assert torch.equal(one.y, y0)
        assert (one.noise == 0.1).all()
    assert not Measurement(draw(1, *SHAPE).requires_grad_(), A, 0.1).y.requires_grad


@pytest.mark.parametrize("name", ["gaussian", "diagonal", "mixture", "stationary", "field", "denoiser"])
def test_what_a_prior_was_made_of_may_change_afterwards(name):
    mean, variances = torch.full((1, 8, 8), 0.5), torch.full((1, 8, 8), 0.04, dtype=torch.float64)
    given = {
        "gaussian": lambda: (Gaussian(mean, matrix), mean, matrix),
        "diagonal": lambda: (Gaussian(mean, variances), mean, variances),
        "mixture": lambda: (GaussianMixture(weights, mean[None], variances), mean, weights, variances),
        "stationary": lambda: (Gaussian.stationary(mean, variances), mean, variances),
        "field": lambda: (GaussianField(mean[:, :1, :1], variances.float(), axes), mean, variances, axes),
        "denoiser": lambda: (from_denoiser(centred, (1, 8, 8), centre=mean), mean),
    }
    matrix, weights, axes = 0.04 * torch.eye(64, dtype=torch.float64), torch.ones(1, dtype=torch.float64), torch.eye(1)
    prior, *kept = given[name]()
    x, centre = draw(1, 1, 8, 8), torch.as_tensor(prior.centre).clone()
    before = prior.sized(8, 8).denoise(x, 0.1).clone()
    for tensor in kept:
        tensor.mul_(0.5)
    assert torch.equal(prior.sized(8, 8).denoise(x, 0.1), before)
    assert torch.equal(torch.as_tensor(prior.centre), centre)


def centred(x_t, sigma):
    return x_t


OPERATORS = {
    "inpaint": Inpaint(random_mask(SHAPE, 0.4), SHAPE),
    "superres": SuperResolution(2, SHAPE),
    "superres of one scale": SuperResolution(1, SHAPE, "gaussian"),
    "separable": Blur(gaussian_kernel(0.5), SHAPE),
    "separable, selected": Blur(torch.stack([gaussian_kernel(w, 3) for w in (0.5, 1)]), SHAPE).select(
        torch.tensor([1, 0])
    ),
    "oblique": Blur(motion_kernel(3, 30), SHAPE),
    "circular": Blur(motion_kernel(3, 30), SHAPE, "circular"),
    "colorize": Colorize(SHAPE),
    "denoise": Denoise(SHAPE),
    "matrix": Matrix(draw(5, 192), SHAPE),
    "composition": Colorize((3, 4, 4)) @ SuperResolution(2, SHAPE),
    "channelwise": Channelwise(Inpaint(random_mask((1, 8, 8), 0.4), (1, 8, 8)), 3),
}


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("name", OPERATORS)
def test_operators_and_measurements_survive_pickle_and_copies(name, used):
    A, x = copy.deepcopy(OPERATORS[name]), draw(2, *SHAPE)
    if used:
        A.solve(A(x), 0.1)
    for same in (pickle.loads(pickle.dumps(A)), copy.deepcopy(A), copy.copy(A)):
        y = A(x)
        assert torch.equal(same(x), y)
        assert torch.equal(same.solve(y, 0.1), A.solve(y, 0.1))
        assert torch.equal(same.pinv(y), A.pinv(y))
    measurement = Measurement(A(x), A, torch.full((2, 1, 1, 1), 0.1))
    for same in (pickle.loads(pickle.dumps(measurement)), copy.deepcopy(measurement)):
        assert torch.equal(same.y, measurement.y)
        assert torch.equal(same.noise, measurement.noise)
        assert torch.equal(same.operator(x), A(x))


def test_what_was_worked_out_is_not_pickled():
    A = Blur(motion_kernel(3, 30), (3, 128, 128))
    before = len(pickle.dumps(A))
    A.solve(A(draw(1, 3, 128, 128)), 0.1)
    assert len(pickle.dumps(A)) < before + 100


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_survive_pickle_and_copies(name):
    sampler = SAMPLERS[name]()
    assert pickle.loads(pickle.dumps(sampler)) == sampler == copy.deepcopy(sampler)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16, bool])
def test_kernels_of_integers_are_divided_by_their_sum(dtype):
    kernel = np.array([[0, 1, 0], [1, 1, 0], [0, 0, 1]], dtype)
    with pytest.warns(UserWarning, match="integers, of sum 4"):
        A = Blur(kernel, SHAPE)
    torch.testing.assert_close(A.kernel[0], torch.from_numpy(kernel).double() / 4)
    with pytest.warns(UserWarning, match="integers"):
        each = Blur(torch.tensor([[[1, 3]], [[2, 0]]]), SHAPE)
    assert each.kernel.tolist() == [[[0.25, 0.75]], [[1.0, 0.0]]]
    with pytest.raises(ValueError, match="give it as floats"):
        Blur(np.array([[1, -1]]), SHAPE)

"""Operators as deepinv's physics, and the other way round."""

import copy
import pickle

import deepinv
import pytest
import torch

import genprior
from genprior.linalg import norm
from genprior.operators import (
    Blur,
    Colorize,
    Inpaint,
    SuperResolution,
    as_physics,
    check,
    from_physics,
    gaussian_kernel,
    physics_noise,
    random_mask,
)

OPERATORS = {
    "inpaint": Inpaint(random_mask((16, 12), 0.4, seed=0), (3, 16, 12)),
    "superres": SuperResolution(2, (3, 16, 12)),
    "valid": Blur(gaussian_kernel(1), (3, 16, 12)),
    "circular": Blur(gaussian_kernel(1), (3, 16, 12), "circular"),
    "colorize": Colorize((3, 16, 12)),
}
FILTER = gaussian_kernel(1)[1:, :][None, None].float()
PHYSICS = {
    "inpaint": lambda: deepinv.physics.Inpainting((1, 16, 12), mask=1.0 - OPERATORS["inpaint"].mask[0].float()),
    "blur-fft": lambda: deepinv.physics.BlurFFT((1, 16, 12), filter=gaussian_kernel(1)[None, None].float()),
    "blur-valid": lambda: deepinv.physics.Blur(filter=FILTER, padding="valid"),
    "downsampling": lambda: deepinv.physics.Downsampling(img_size=(1, 16, 12), filter="gaussian", factor=2),
}


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", OPERATORS)
def test_as_physics_passes_the_adjointness_test_of_deepinv(name):
    physics = as_physics(OPERATORS[name])
    assert physics.adjointness_test(u=draw(4, 3, 16, 12), num_samples=4) < 1e-12


@pytest.mark.parametrize("name", OPERATORS)
def test_prox_and_pinv_of_as_physics_are_those_deepinv_means(name):
    op = OPERATORS[name]
    physics = as_physics(op)
    z, y = draw(2, 3, 16, 12, seed=1), op(draw(2, 3, 16, 12))
    x = physics.prox_l2(z, y, gamma=2.0)
    # deepinv's own solver, run to a relative residual of 1e-9, with deepinv's meaning of gamma
    reference = deepinv.physics.LinearPhysics.prox_l2(physics, z, y, gamma=2.0, max_iter=200, tol=1e-9)
    assert (norm(x - reference) < 1e-6 * norm(reference)).all()
    torch.testing.assert_close(physics.A_dagger(y), op.pinv(y))
    torch.testing.assert_close(physics.prox_l2(None, y, 2.0), op.prox(torch.zeros_like(z), y, 2.0))


def test_noise_of_as_physics_has_its_standard_deviation():
    physics = as_physics(OPERATORS["colorize"], noise=0.3)
    x = torch.zeros(50, 3, 16, 12)
    # 9600 draws: relative error of a standard deviation 0.7 %, 5 of them
    torch.manual_seed(0)
    assert physics(x).std().item() == pytest.approx(0.3, rel=0.036)


@pytest.mark.parametrize("name", PHYSICS)
def test_from_physics_solves_what_deepinv_measures(name):
    physics = PHYSICS[name]()
    op = from_physics(physics, (1, 16, 12))
    x = draw(3, 1, 16, 12).float()
    y = physics.A(x)
    assert op.measurement_shape == tuple(y.shape[1:])
    torch.testing.assert_close(op(x), y)
    unit = torch.eye(192).reshape(192, 1, 16, 12)
    A = physics.A(unit).flatten(1).T.double()
    torch.testing.assert_close(op.adjoint(y).flatten(1).double(), y.flatten(1).double() @ A, rtol=0, atol=1e-5)
    z = draw(3, 1, 16, 12, seed=1).float()
    Q = 5 * A.T @ A + torch.eye(192, dtype=torch.float64)
    exact = torch.linalg.solve(Q, (5 * y.flatten(1).double() @ A + z.flatten(1).double()).T).T
    # float32 arithmetic, condition number at most 6
    torch.testing.assert_close(op.prox(z, y, 5.0).flatten(1).double(), exact, rtol=0, atol=2e-5)


def test_from_physics_is_not_changed_by_what_happens_to_the_physics():
    physics = PHYSICS["inpaint"]()
    op = from_physics(physics)
    x = draw(1, 1, 16, 12).float()
    before = op(x)
    physics.update(mask=torch.zeros(1, 1, 16, 12))
    assert torch.equal(op(x), before)


def test_physics_in_single_precision_takes_and_gives_double():
    op = from_physics(PHYSICS["blur-valid"](), (1, 16, 12))
    x = draw(2, 1, 16, 12)
    y = op(x)
    assert y.dtype == op.adjoint(y).dtype == torch.float64
    # products of float32
    torch.testing.assert_close(y, op(x.float()).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(op.adjoint(y), op.adjoint(y.float()).double(), rtol=0, atol=1e-6)


def test_noise_is_read_where_it_is_gaussian():
    noise = deepinv.physics.GaussianNoise
    physics = PHYSICS["inpaint"]()
    assert physics_noise(physics) is None
    physics.noise_model = noise(0.25)
    assert physics_noise(physics) == 0.25
    physics.noise_model = noise(torch.tensor([0.1, 0.2]))
    assert torch.equal(physics_noise(physics), torch.tensor([0.1, 0.2]).reshape(2, 1, 1, 1))


OTHER_NOISE = {
    "counts, not in units of y": lambda: deepinv.physics.PoissonNoise(0.1, normalize=False),
    "Gaussian of a random level": lambda: deepinv.physics.UniformGaussianNoise(0.1, 0.2),
    "salt and pepper": lambda: deepinv.physics.SaltPepperNoise(),
    "a function": lambda: lambda x: x + 0.1 * torch.randn_like(x),
}


@pytest.mark.parametrize("name", OTHER_NOISE)
def test_other_noise_is_not_taken_for_gaussian_unless_it_is_said(name):
    physics = deepinv.physics.LinearPhysics(A=double, A_adjoint=double, noise_model=OTHER_NOISE[name]())
    y = torch.full((1, 8, 8), 0.5)
    for call in (genprior.restore, genprior.evidence):
        with pytest.raises(TypeError, match=r"neither Gaussian.*noise=0.02"):
            call(y, physics, PRIOR)
    with pytest.raises(TypeError, match="neither Gaussian"):
        physics_noise(physics)
    result = genprior.restore(y, physics, PRIOR, noise=0.1, seed=0, progress=False)
    assert result.measurement.noise == 0.1


def denoiser(x_t, sigma):
    return 0.5 + 0.06 / (0.06 + sigma**2) * (x_t - 0.5)


PRIOR = genprior.from_denoiser(denoiser, (1, None, None))
SIZED = {
    "tomography": lambda: deepinv.physics.Tomography(angles=6, img_width=16, normalize=True),
    "tomography, fan": lambda: deepinv.physics.Tomography(angles=6, img_width=16, fan_beam=True, normalize=True),
    "blur-valid": PHYSICS["blur-valid"],
    "denoising": lambda: deepinv.physics.Denoising(),
    "functions": lambda: deepinv.physics.LinearPhysics(A=double, A_adjoint=double),
}


def double(x, **_):
    return 2 * x


@pytest.mark.parametrize("name", SIZED)
def test_the_size_of_the_images_is_found_by_the_adjoint(name):
    physics = SIZED[name]()
    assert physics.img_size is None
    x = 0.5 + 0.1 * draw(1, 1, 16, 16).float()
    y = physics.A(x)
    for given in (y, y[0], y[0].numpy()):
        found = genprior.restore(given, physics, PRIOR, n=1, noise=0.1, steps=3, seed=0, progress=False)
        said = genprior.restore(given, physics, PRIOR, n=1, noise=0.1, steps=3, seed=0, image_shape=(1, 16, 16))
        assert torch.equal(found.samples, said.samples)
        assert found.measurement.operator.image_shape == (1, 16, 16)


class Broken(deepinv.physics.LinearPhysics):
    """Fails with whatever error."""

    def __init__(self, error, where="A_adjoint", img_size=None):
        super().__init__(img_size=img_size)
        self.error, self.where = error, where

    def A(self, x, **_):
        return self.fail("A", x)

    def A_adjoint(self, y, **_):
        return self.fail("A_adjoint", y)

    def fail(self, where, a):
        if where == self.where:
            raise self.error
        return a


@pytest.mark.parametrize(
    "error",
    [RuntimeError("size"), AttributeError("a"), IndexError(3), AssertionError(), KeyError("x"), TypeError("t")],
)
def test_no_error_of_deepinv_reaches_the_user(error):
    y = torch.full((1, 8, 8), 0.5)
    with pytest.raises(ValueError, match="give image_shape"):
        genprior.restore(y, Broken(error), PRIOR)
    for where in ("A", "A_adjoint"):
        for call in (genprior.restore, genprior.evidence):
            with pytest.raises(ValueError, match=f"its {where} failed.*{type(error).__name__}"):
                call(y, Broken(error, where), PRIOR, image_shape=(1, 8, 8), noise=0.1)
        with pytest.raises(ValueError, match=f"its {where} failed"):
            genprior.degrade(y, Broken(error, where, (1, 8, 8)))


def test_physics_that_are_not_what_their_class_says_are_refused():
    P = deepinv.physics
    y = torch.full((1, 1, 16, 16), 0.5)
    wrong = [
        P.LinearPhysics(A=lambda x, **_: x + 0.3, A_adjoint=lambda y, **_: y),
        P.LinearPhysics(A=lambda x, **_: x.clamp(0, 1), A_adjoint=lambda y, **_: y),
        P.LinearPhysics(A=lambda x, **_: x.flip(-1), A_adjoint=lambda y, **_: y),
        P.PhaseRetrieval(P.Denoising(), img_size=(1, 16, 16)),
        P.Denoising(sensor_model=lambda y: y.clamp(0, 1)),
        P.Tomography(angles=6, img_width=16, adjoint_via_backprop=False, normalize=True),
    ]
    for physics in wrong:
        with pytest.raises(TypeError, match=type(physics).__name__):
            genprior.restore(y, physics, PRIOR, noise=0.1, image_shape=(1, 16, 16))
        with pytest.raises(TypeError, match=type(physics).__name__):
            check(physics, (1, 16, 16))
    check(P.Denoising(), (1, 16, 16))


@pytest.mark.parametrize("name", SIZED)
def test_physics_as_operators_survive_pickle_and_copies(name):
    physics = SIZED[name]()
    x = draw(2, 1, 16, 16).float()
    physics.A_adjoint(physics.A(x))  # of which Tomography keeps a function
    A = from_physics(physics, (1, 16, 16))
    y = A(x)
    for same in (pickle.loads(pickle.dumps(A)), copy.deepcopy(A)):
        assert torch.equal(same(x), y)
        assert torch.equal(same.adjoint(y), A.adjoint(y))
        assert torch.equal(same.solve(y, 1.0), A.solve(y, 1.0))


def test_a_physics_that_was_used_may_change_afterwards():
    physics = SIZED["tomography"]()
    x = draw(1, 1, 16, 16).float()
    y = physics.A(x)
    before = physics.A_adjoint(y)
    A = from_physics(physics, (1, 16, 16))
    physics.radon.all_grids.zero_()
    torch.testing.assert_close(A.adjoint(y), before)


def test_physics_that_cannot_be_wrapped_is_refused():
    with pytest.raises(TypeError, match="derivative of Physics is 0"):
        from_physics(deepinv.physics.Physics(A=lambda x, **_: x.sign()), (1, 16, 12))
    with pytest.raises(ValueError, match="give image_shape"):
        from_physics(PHYSICS["blur-valid"]())
    with pytest.raises(ValueError, match=r"one real \(1, C', H', W'\)"):
        from_physics(deepinv.physics.Inpainting((1, 16, 12), mask=torch.ones(3, 1, 16, 12)))
    with pytest.raises(ValueError, match=r"not \(1, 9, 9\)"):
        from_physics(PHYSICS["blur-fft"](), measurement_shape=(1, 9, 9))
    with pytest.raises(ValueError, match=r"cannot measure images of .*give image_shape"):
        from_physics(PHYSICS["inpaint"](), (1, 9, 9))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_physics_of_half_precision_computes_in_float32(dtype):
    """With the weights that it has; the user's own stays as it is."""
    physics = deepinv.physics.Blur(filter=FILTER.to(dtype), padding="valid")
    found = from_physics(physics, (1, 16, 12))
    wanted = from_physics(deepinv.physics.Blur(filter=FILTER.to(dtype).float(), padding="valid"), (1, 16, 12))
    x = draw(2, 1, 16, 12).float()
    torch.testing.assert_close(found(x), wanted(x), rtol=0, atol=0)
    assert physics.filter.dtype == dtype


@pytest.mark.parametrize("wrap", [torch.nn.DataParallel, lambda physics: torch.compile(physics, backend="eager")])
def test_wrapped_physics_is_what_it_wraps(wrap):
    physics = deepinv.physics.Blur(filter=FILTER, padding="valid", noise_model=deepinv.physics.GaussianNoise(0.1))
    y = draw(1, 9, 8).float()
    options = {"prior": lambda x_t, sigma: x_t, "steps": 2, "seed": 0, "progress": False, "image_shape": (1, 14, 14)}
    found, wanted = (genprior.restore(y, op, **options) for op in (wrap(physics), physics))
    torch.testing.assert_close(found.mean, wanted.mean, rtol=0, atol=0)
    assert found.measurement.noise == pytest.approx(0.1)

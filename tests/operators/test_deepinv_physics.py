"""Operators as deepinv's physics, and the other way round."""

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
    physics.noise_model = deepinv.physics.PoissonNoise(0.1)
    assert physics_noise(physics) is None


def test_physics_that_cannot_be_wrapped_is_refused():
    with pytest.raises(TypeError, match="not linear"):
        from_physics(deepinv.physics.Physics(), (1, 16, 12))
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
    torch.testing.assert_close(found.samples, wanted.samples, rtol=0, atol=0)
    assert found.measurement.noise == pytest.approx(0.1)

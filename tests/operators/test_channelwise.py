"""Channelwise against A applied to one channel at a time."""

import pytest
import torch

from genprior.operators import Blur, Inpaint, SuperResolution, gaussian_kernel, random_mask
from genprior.operators.channelwise import Channelwise

H, W, K, B = 6, 8, 3, 2
GREY = (1, H, W)


def masks(n):
    return torch.stack([random_mask((H, W), 0.4, seed=s) for s in range(n)])


def kernels():
    return torch.stack([gaussian_kernel(w, size=3) for w in (0.5, 1.5)])


OPERATORS = {
    "shared mask": Inpaint(masks(1), GREY),
    "masks per image": Inpaint(masks(B), GREY),
    "shared kernel, valid": Blur(gaussian_kernel(1.0, size=3), GREY),
    "kernels per image": Blur(kernels(), GREY, "circular"),
    "super-resolution": SuperResolution(2, GREY),
}
PER_IMAGE = torch.tensor([0.1, 3.0], dtype=torch.float64).reshape(B, 1, 1, 1)


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def by_channel(f, a):
    """f of each channel, (B, 1, ...), side by side."""
    return torch.cat([f(a[:, k : k + 1]) for k in range(K)], dim=1)


def assert_equal(a, b):
    # the same arithmetic in float64, in batches of another size
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", OPERATORS)
def test_channelwise_is_the_operator_on_each_channel(name):
    A = OPERATORS[name]
    C = Channelwise(A, K)
    assert C.image_shape == (K, H, W)
    x, y = random(B, *C.image_shape), random(B, *C.measurement_shape)
    assert_equal(C(x), by_channel(A, x))
    assert_equal(C.adjoint(y), by_channel(A.adjoint, y))
    assert_equal(C.pinv(y), by_channel(A.pinv, y))
    for c in (0.3, torch.tensor(0.3).double().reshape(1, 1, 1, 1), PER_IMAGE):
        assert_equal(C.solve(y, c), by_channel(lambda v, c=c: A.solve(v, c), y))
    assert_equal(C.prox(x, y, 1 / PER_IMAGE), x + C.adjoint(C.solve(y - C(x), PER_IMAGE)))
    assert_equal(C.frame(x), A.frame(x))


@pytest.mark.parametrize("name", ["masks per image", "kernels per image"])
def test_select_takes_the_images_with_all_their_channels(name):
    A = OPERATORS[name]
    index = torch.tensor([1, 1, 0])
    x = random(3, K, H, W)
    assert_equal(Channelwise(A, K).select(index)(x), by_channel(A.select(index), x))


def test_colour_operators_are_refused():
    with pytest.raises(ValueError, match="one channel"):
        Channelwise(Inpaint(masks(1), (3, H, W)), 3)

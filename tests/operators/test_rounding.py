"""What counts as not seen by an operator: what rounding hides in the dtype in use, and no more."""

import math

import pytest
import torch

from genprior.operators import Blur
from genprior.operators.blur import gaussian_kernel

SHAPE = (1, 16, 16)


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("boundary", "c"), [("circular", 1e-20), ("circular", 1e-13), ("valid", 1e-13)])
def test_solve_in_double_precision_takes_noise_far_below_single_precision(boundary, c):
    """(A A^T + c I)^-1 v, with c below 1e-12 |A|^2: by the SVD, whose own rounding of s, 1e-15, is below sqrt(c)."""
    A = Blur(gaussian_kernel(1.2, 7), SHAPE, boundary)
    v, svd = normal(1, *A.measurement_shape), A.svd()
    s = svd.singular_values
    expected = svd.U(svd.Ut(v) / (s**2 + c))
    found = A.solve(v, c)
    assert float(s[s > 0].min()) < math.sqrt(c) * 1e6  # some of what is divided by is small
    # of valid blurs, eigenvalues of A A^T are rounded by 2e-15, a fiftieth of c
    torch.testing.assert_close(
        found, expected, rtol=0, atol={1e-20: 1e-6, 1e-13: 0.05}[c] * float(expected.abs().max())
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pinv_divides_by_no_rounding(dtype):
    """Of a Gaussian as wide as the image, |k^| falls to 1e-17: A^+ A x has no more than x, but for rounding."""
    A = Blur(gaussian_kernel(3.0, 15), SHAPE, "circular")
    x = normal(1, *SHAPE).to(dtype)
    back = A.pinv(A(x))
    assert float(back.square().sum()) < 1.2 * float(x.square().sum())


def test_singular_values_that_are_rounding_are_zero():
    """The mean of 4 pixels loses the frequencies 8, 16, 24 of 32 along an axis: all others are seen."""
    A = Blur(torch.full((1, 4), 0.25, dtype=torch.float64), (1, 32, 32), "circular")
    s = A.svd().singular_values.expand(1, 1, 32, 32)[0, 0]
    lost = torch.zeros(32, dtype=torch.bool)
    lost[[8, 16, 24]] = True
    assert (s[:, lost] == 0).all()
    assert (s[:, ~lost] > 0.05).all()

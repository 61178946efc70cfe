"""Measurements, composition and the errors all operators share."""

import pytest
import torch

from genprior.checks import UnsupportedError
from genprior.operators import Blur, Colorize, Denoise, Inpaint, Matrix, Measurement, SuperResolution, random_mask


def masks(n):
    return torch.stack([random_mask((8, 8), 0.5, seed=i) for i in range(n)])


def test_select_of_a_measurement_takes_y_operator_and_noise_of_the_same_images():
    y = torch.arange(3.0).reshape(3, 1, 1, 1).expand(3, 1, 8, 8)
    noise = torch.tensor([0.1, 0.2, 0.3]).reshape(3, 1, 1, 1)
    measurement = Measurement(y, Inpaint(masks(3), (1, 8, 8)), noise)
    chosen = measurement.select(torch.tensor([2, 2, 0]))
    assert chosen.y[:, 0, 0, 0].tolist() == [2, 2, 0]
    assert torch.equal(chosen.noise.flatten(), noise.flatten()[[2, 2, 0]])
    assert torch.equal(chosen.operator.mask, masks(3)[[2, 2, 0]])
    assert Measurement(y, Denoise((1, 8, 8)), 0.1).select(torch.tensor([1])).noise == 0.1


@pytest.mark.parametrize(
    ("y", "noise", "message"),
    [
        (torch.zeros(2, 1, 8, 7), 0.1, r"\(B, 1, 8, 8\), not \(2, 1, 8, 7\)"),
        (torch.full((2, 1, 8, 8), float("nan")), 0.1, "128 values that are NaN"),
        (torch.zeros(2, 1, 8, 8), -0.1, "finite and >= 0"),
        (torch.zeros(2, 1, 8, 8), float("nan"), "finite and >= 0"),
        (torch.zeros(2, 1, 8, 8), torch.ones(2), r"\(2, 1, 1, 1\)"),
    ],
)
def test_a_measurement_that_cannot_be_is_refused(y, noise, message):
    with pytest.raises(ValueError, match=message):
        Measurement(y, Denoise((1, 8, 8)), noise)


def test_operators_name_the_shape_they_want():
    op = SuperResolution(2, (3, 8, 8))
    with pytest.raises(ValueError, match=r"an image of shape \(B, 3, 8, 8\), not \(3, 8, 8\)"):
        op(torch.zeros(3, 8, 8))
    for f in (op.adjoint, op.pinv, lambda y: op.solve(y, 1.0)):
        with pytest.raises(ValueError, match=r"a measurement of shape \(B, 3, 4, 4\)"):
            f(torch.zeros(1, 3, 8, 8))


def test_half_precision_is_refused_rather_than_rounded():
    with pytest.raises(TypeError, match="float32 and float64"):
        Denoise((1, 8, 8))(torch.zeros(1, 1, 8, 8, dtype=torch.bfloat16))


def test_a_batch_of_another_size_than_that_of_the_masks_is_refused():
    with pytest.raises(ValueError, match="for 3 images"):
        Inpaint(masks(3), (1, 8, 8))(torch.zeros(2, 1, 8, 8))


def test_negative_variances_are_refused():
    with pytest.raises(ValueError, match="variance"):
        Denoise((1, 8, 8)).solve(torch.zeros(1, 1, 8, 8), -1.0)


def test_operators_that_do_not_fit_do_not_compose():
    with pytest.raises(ValueError, match="build the outer one"):
        Denoise((3, 8, 8)) @ Colorize((3, 8, 8))


def test_without_a_closed_form_there_is_no_svd():
    with pytest.raises(UnsupportedError, match="no SVD"):
        Blur(torch.eye(3), (1, 8, 8)).svd()


def test_frame_of_a_composition_is_that_of_what_comes_first():
    blur = Blur(torch.ones(3, 5), (1, 10, 12))
    x = torch.arange(120.0).reshape(1, 1, 10, 12)
    assert torch.equal((SuperResolution(2, blur.measurement_shape) @ blur).frame(x), x[..., 1:9, 2:10])


def test_frame_of_a_composition_is_that_of_what_comes_last_where_the_first_keeps_the_pixels():
    x = torch.arange(120.0).reshape(1, 1, 10, 12)
    blur, shape = Blur(torch.ones(3, 5), (1, 10, 12)), (1, 10, 12)
    assert torch.equal((blur @ Inpaint(torch.zeros(10, 12), shape)).frame(x), x[..., 1:9, 2:10])
    again = Blur(torch.ones(3, 3), blur.measurement_shape)
    assert torch.equal((again @ blur).frame(x), x[..., 2:8, 3:9])
    # the pixels of the outer images are not those of x
    small = SuperResolution(2, shape)
    assert torch.equal((Blur(torch.ones(3, 3), small.measurement_shape) @ small).frame(x), x)


@pytest.mark.parametrize("M", [torch.ones(3, 5), torch.full((3, 4), float("nan")), torch.ones(3, 4).long(), "M"])
def test_a_matrix_that_does_not_fit_is_refused(M):
    with pytest.raises(ValueError, match="M "):
        Matrix(M, (1, 2, 2))

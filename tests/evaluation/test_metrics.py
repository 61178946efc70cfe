"""PSNR and SSIM against scikit-image's."""

import math

import numpy as np
import pytest
import torch
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from genprior.scores.metrics import psnr, ssim


def pair(sd=0.1):
    truth = torch.from_numpy(data.astronaut()[:64, 200:280].copy()).movedim(-1, 0).float() / 255
    return truth + sd * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0)), truth


def test_psnr_is_that_of_scikit_image_on_clipped_values():
    x, truth = pair()
    expected = peak_signal_noise_ratio(truth.numpy(), x.clamp(0, 1).numpy(), data_range=1)
    assert float(psnr(x, truth)) == pytest.approx(expected, abs=1e-4)  # float32 against float64
    assert float(psnr(x, truth)) > peak_signal_noise_ratio(truth.numpy(), x.numpy(), data_range=1) + 0.05


def test_psnr_is_one_number_per_image():
    (x, truth), (worse, _) = pair(), pair(0.3)
    both = psnr(torch.stack([x, worse]), torch.stack([truth, truth]))
    torch.testing.assert_close(both, torch.stack([psnr(x, truth), psnr(worse, truth)]))
    assert both[0] > both[1] + 5
    assert float(psnr(truth, truth)) == math.inf


def test_ssim_is_that_of_the_paper():
    x, truth = pair()
    expected = structural_similarity(
        x.clamp(0, 1).movedim(0, -1).double().numpy(),
        truth.movedim(0, -1).double().numpy(),
        data_range=1,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(x, truth) == pytest.approx(expected, abs=1e-12)
    assert ssim(truth, truth) == pytest.approx(1)
    # and by its formula: local moments under an 11 x 11 Gaussian window of width 1.5, C1 = 0.01^2, C2 = 0.03^2
    offsets = torch.arange(-5.0, 6, dtype=torch.float64)
    g = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = (torch.outer(g, g) / g.sum() ** 2)[None, None]

    def mean(a):
        return torch.nn.functional.conv2d(a[:, None], window)

    a, b = x.clamp(0, 1).double(), truth.double()
    m_a, m_b = mean(a), mean(b)
    v_a, v_b, cov = mean(a * a) - m_a**2, mean(b * b) - m_b**2, mean(a * b) - m_a * m_b
    index = (2 * m_a * m_b + 1e-4) * (2 * cov + 9e-4) / ((m_a**2 + m_b**2 + 1e-4) * (v_a + v_b + 9e-4))
    assert ssim(x, truth) == pytest.approx(float(index.mean()), abs=1e-9)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_images_that_cannot_be_compared_are_an_error(metric):
    with pytest.raises(ValueError, match="differ in shape"):
        metric(torch.zeros(3, 20, 20), torch.zeros(1, 20, 20))
    with pytest.raises(ValueError, match=r"are \(C, H, W\).*got \(20, 20\)"):
        metric(torch.zeros(20, 20), torch.zeros(20, 20))


def test_ssim_says_what_it_needs():
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ssim(torch.zeros(3, 10, 20), torch.zeros(3, 10, 20))
    # a batch would be taken for channels
    with pytest.raises(ValueError, match=r"\(C, H, W\)"):
        ssim(torch.zeros(2, 3, 20, 20), torch.zeros(2, 3, 20, 20))


def test_metrics_take_tensors_with_gradients():
    x = torch.full((1, 20, 20), 0.4, requires_grad=True)
    assert psnr(x, torch.full((1, 20, 20), 0.5)).item() == pytest.approx(20, abs=1e-4)
    assert np.isfinite(ssim(x, torch.full((1, 20, 20), 0.5)))

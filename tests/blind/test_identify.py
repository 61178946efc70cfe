"""Blurs found in photographs, and said not to be found where they cannot be."""

import math

import numpy as np
import pytest
import skimage.data
import torch

import genprior
from genprior import images
from genprior.blind.identification import Marginal
from genprior.blind.parameters import density
from genprior.blind.spectra import Spectra
from genprior.blind.whittle import Powers, Whittle
from genprior.blind.windows import SIDE, chosen, periodograms, seen_through
from genprior.operators import for_measurement

ANYTHING = torch.rand(3, 80, 80, generator=torch.Generator().manual_seed(0))


def photograph(name="chelsea", top=60, left=100, side=150):
    return images.read(getattr(skimage.data, name)()).x[0, :, top : top + side, left : left + side]


@pytest.fixture(scope="module")
def moved():
    y = genprior.degrade(photograph(), "motion-deblur", length=9.5, angle=175, noise=0.02, seed=0).y[0]
    return genprior.identify(y, "motion-deblur", length=(5, 15), angle=(160, 200))


def test_a_motion_is_found_in_a_photograph(moved):
    mean, (low, high) = moved.parameters, moved.interval()["length"]
    assert abs(mean["length"] - 9.5) < 1
    assert low < 9.5 < high
    assert abs((mean["angle"] - 175 + 90) % 180 - 90) < 4
    assert mean["noise"] == pytest.approx(0.02, rel=0.1)


def test_what_is_told_of_a_motion_agrees_with_itself(moved):
    draws, mean, std = moved.draws, moved.parameters, moved.std
    error = 5 / math.sqrt(len(draws["length"]))
    assert abs(draws["length"].mean() - mean["length"]) < error * std["length"]
    assert draws["length"].std() == pytest.approx(std["length"], rel=error)
    assert draws["noise"].std() == pytest.approx(std["noise"], rel=error)
    low, high = moved.interval(0.5)["length"]
    assert ((draws["length"] > low) & (draws["length"] < high)).double().mean() == pytest.approx(0.5, abs=error)
    A = for_measurement("motion-deblur", moved.measurement_shape, length=mean["length"], angle=mean["angle"])
    assert torch.equal(moved.operator.kernel, A.kernel)
    assert f"length    {mean['length']:.4g} ± {std['length']:.2g} px" in str(moved)
    assert len(moved.plot().axes) == 5  # three densities, the map and its scale


def test_law_of_an_angle_goes_round_the_circle():
    """At 177 degrees, the normal of -3 +- 5 has its centre; that of 87 has none of its mass."""
    log_density = density(torch.distributions.Normal(-3.0, 5.0), 180)
    theta = torch.tensor([177.0, 2.0, 87.0], dtype=torch.float64)
    straight = torch.distributions.Normal(0.0, 5.0).log_prob(torch.tensor([0.0, 5.0]))
    torch.testing.assert_close(log_density(theta)[:2], straight.double(), rtol=0, atol=1e-6)
    assert log_density(theta)[2] < -100
    y = genprior.degrade(photograph("astronaut", 20, 200), "motion-deblur", length=9, angle=177, noise=0.01, seed=0).y[
        0
    ]
    law = torch.distributions.Normal(0.0, 5.0)
    found = genprior.identify(y, "motion-deblur", length=9, noise=0.01, angle=law)
    assert abs(found.parameters["angle"] % 180 - 177) < 7


def test_laws_need_not_say_their_support():
    class OfTorch(torch.distributions.Distribution):
        def log_prob(self, theta):
            return -theta

    class Other:
        support = (0, 10)
        log_prob = OfTorch.log_prob

    theta = torch.tensor([1.0, 2.0], dtype=torch.float64)
    for law in (OfTorch(validate_args=False), Other()):
        assert torch.equal(density(law, None)(theta), -theta)


def test_laws_of_bounded_support_and_beyond_the_usual_range_are_taken():
    y = genprior.degrade(photograph("astronaut", 20, 150), "gaussian-deblur", width=1.6, noise=0.01, seed=0).y[0]
    given = {"op": "gaussian-deblur", "noise": 0.01}
    found = genprior.identify(y, **given, width=torch.distributions.Uniform(1.0, 3.0))
    assert found.parameters["width"] == pytest.approx(1.6, abs=0.5)
    far = genprior.identify(y, **given, width=torch.distributions.Normal(7.0, 0.01))
    assert far.parameters["width"] == pytest.approx(7, abs=0.2)
    with pytest.raises(ValueError, match="no mass where a blur is looked for, width from 0 to 10"):
        genprior.identify(y, **given, width=torch.distributions.Uniform(20.0, 30.0))


def test_widths_are_found_and_known_ones_are_taken():
    y = genprior.degrade(photograph("astronaut", 20, 150), "gaussian-deblur", width=1.6, noise=0.01, seed=0).y[0]
    found = genprior.identify(y, "gaussian-deblur", noise=0.01)
    low, high = found.interval()["width"]
    assert low < 1.6 < high
    assert high - low < 1
    assert found.noise == 0.01
    assert found.interval()["noise"] == (0.01, 0.01)
    by_law = genprior.identify(y, "gaussian-deblur", noise=0.01, width=torch.distributions.Normal(1.4, 0.001))
    assert by_law.parameters["width"] == pytest.approx(1.4, abs=0.1)
    only_noise = genprior.identify(y, "gaussian-deblur", width=1.6)
    assert only_noise.found == {}
    assert only_noise.noise == pytest.approx(0.01, rel=0.1)


def test_draws_are_keyed_by_the_seed_alone():
    y = genprior.degrade(photograph("camera", 100, 100), "gaussian-deblur", width=1, noise=0.01, seed=0).y[0]
    state = torch.get_rng_state()
    first, again = (genprior.identify(y, "gaussian-deblur", seed=3) for _ in range(2))
    assert torch.equal(first.draws["width"], again.draws["width"])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("y", "options", "error", "message"),
    [
        (torch.full((3, 80, 80), 0.5), {}, genprior.UnsupportedError, "saturated or constant in every part"),
        (torch.ones(3, 20, 20), {}, ValueError, "windows of 64 x 64 .* got .3, 20, 20."),
        (torch.zeros(2, 3, 80, 80), {}, ValueError, "one image at a time; got 2"),
        (ANYTHING, {"op": "inpaint"}, genprior.UnsupportedError, "Nothing of inpaint is identified"),
        (ANYTHING, {"op": "super-resolution"}, genprior.UnsupportedError, "Nothing of super-resolution is identified"),
        (ANYTHING, {"width": (3, 1)}, ValueError, "low below high; got .3, 1."),
        (ANYTHING, {"width": "?"}, ValueError, "a range .low, high. or a law"),
        (ANYTHING, {"noise": "poisson"}, ValueError, "in Gaussian noise only. State the width"),
        (ANYTHING, {"noise": genprior.likelihoods.Poisson(0.1)}, ValueError, "in Gaussian noise only. State the width"),
        (ANYTHING, {"noise": -1}, ValueError, "noise, a standard deviation"),
        (ANYTHING, {"noise": (0.1, 0.01)}, ValueError, "low below high"),
        (ANYTHING, {"noise": (0.1, 0.2, 0.3)}, ValueError, "A range of the noise is .low, high., two numbers"),
        (ANYTHING, {"noise": ()}, ValueError, "A range of the noise is .low, high., two numbers; got .."),
        (ANYTHING, {"noise": 0}, ValueError, "noise=0: .* Leave noise out"),
        (ANYTHING, {"prior": "ddpm-photo"}, genprior.UnsupportedError, "no p.y. in closed form"),
        (ANYTHING, {"draws": 0}, ValueError, "draws is a whole number from 1"),
        (ANYTHING, {"length": 3}, TypeError, "takes width, boundary; got length"),
    ],
)
def test_what_cannot_be_identified_is_one_clear_error(y, options, error, message):
    with pytest.raises(error, match=message):
        genprior.identify(y, **{"op": "gaussian-deblur", **options})


def fields(spectrum, number, seed):
    """Periodograms of that many windows of white noise times a spectrum, (number, F)."""
    uniform = torch.rand(number, len(spectrum), generator=torch.Generator().manual_seed(seed))
    return -spectrum * uniform.log()


def test_kinds_of_photographs_are_those_whose_windows_come_together():
    """Of two spectra, half of the photographs have windows of the one only, half of the other only."""
    F = int(chosen().sum())
    spectra = torch.stack([torch.linspace(1.5, 0.5, F), torch.linspace(0.5, 1.5, F)])
    fitted = Spectra.fit([fields(spectra[k % 2], 9, k) for k in range(60)], components=2, kinds=2)
    order = fitted.densities[:, 0].argsort(descending=True)
    assert (fitted.densities[order] / spectra - 1).square().mean().sqrt() < 1.5 / math.sqrt(30 * 9)
    torch.testing.assert_close(fitted.kinds, torch.tensor([0.5, 0.5]), rtol=0, atol=0.02)
    assert fitted.shares.max(1).values.min() > 0.95
    assert set(fitted.shares.argmax(1).tolist()) == {0, 1}


def test_windows_of_two_kinds_are_less_likely_in_one_photograph():
    F = int(chosen().sum())
    densities = torch.stack([torch.linspace(1.5, 0.5, F), torch.linspace(0.5, 1.5, F)])
    shares = torch.tensor([[0.99, 0.01], [0.01, 0.99]])
    spectra, powers = Spectra(densities, shares, torch.tensor([0.5, 0.5])), Powers(1.0, 1.0, 1.0)
    one, other = (0.01 * fields(densities[k], 1, k) for k in (0, 1))
    A, noise = for_measurement("denoise", (1, 64, 64)), torch.tensor([0.001], dtype=torch.float64)
    both, *alone = (Whittle(torch.cat(I), spectra, powers)(A, noise) for I in ([one, other], [one], [other]))
    # within a kind the other component has the share 0.01; photographs of their own would have kinds of their own
    assert float(both - sum(alone)) == pytest.approx(math.log(2 * 0.01 * 0.99 / 0.5), abs=0.01)


def test_contrast_may_be_any_times_the_noise():
    """Levels that are both next to nothing, 10^-8 and 4 10^-8 of the contrast, are as likely as one another.

    A factor of 2, for which s^2 is looked for at the same places. What the noise adds, F * 4e-8 / 0.5, is below 1e-4.
    """
    P = torch.linspace(1.5, 0.5, int(chosen().sum()))
    likelihood = Whittle(fields(P, 3, 0), Spectra(P[None], torch.ones(1, 1), torch.ones(1)), Powers(1.0, 1.0, 1.0))
    A = for_measurement("denoise", (1, 64, 64))
    low, high = (float(likelihood(A, torch.tensor([level], dtype=torch.float64))) for level in (1e-4, 2e-4))
    assert low == pytest.approx(high, abs=0.01)


def test_noise_alone_says_nothing_of_a_blur():
    """Its posterior of the width is nearly as wide as the prior: that is refused."""
    y = 0.5 + 0.03 * torch.randn(3, 100, 100, generator=torch.Generator().manual_seed(0))
    with pytest.raises(genprior.UnsupportedError, match=r"does not say: of width .* it is flat"):
        genprior.identify(y, "gaussian-deblur")


def test_saturated_windows_are_left_out():
    y = photograph(side=160).clone()
    whole = len(periodograms(y))
    y[:, :, : SIDE // 2] = 1
    assert 0 < len(periodograms(y)) < whole


def test_a_window_sees_what_a_blur_leaves_of_white_noise():
    """The mean periodogram of k * n, over 4000 windows, with n of the spectrum |f|^-2.4: to its standard error."""
    side, generator = 4 * SIDE, torch.Generator().manual_seed(0)
    f = torch.fft.fftfreq(side)
    spectrum = (f[:, None] ** 2 + f**2 + (1 / (4 * SIDE)) ** 2) ** -1.2
    A = for_measurement("motion-deblur", (1, side, side), length=9, angle=30, boundary="circular")
    power = torch.fft.fft2(A.kernel[0], s=(side, side)).abs() ** 2
    sums = []
    for P in (spectrum, spectrum * power):
        noise = torch.randn(60, 1, side, side, generator=generator)
        x = torch.fft.ifft2(torch.fft.fft2(noise) * P.sqrt()).real
        sums.append(torch.cat([periodograms(each) for each in x]).double().mean(0))
    ratio = sums[1] / sums[0] / seen_through(A)
    assert len(ratio) == int(chosen().sum())
    assert ratio.mean() == pytest.approx(1, abs=0.02)
    assert float(ratio.log().abs().mean()) < 0.05


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_angles_go_around():
    """Two cells on either side of 0 are one interval across it, and their mean is 0, not 90."""
    across = Marginal(double(0, 170), double(10, 180), double(0.5, 0.5), 180)
    assert min(across.mean(), 180 - across.mean()) < 1e-4
    assert across.std() == pytest.approx(10 / math.sqrt(3), rel=1e-6)
    low, high = across.shortest(0.9)
    assert (low, high) == (pytest.approx(170, abs=2.1), pytest.approx(low + 18, abs=0.2))
    anything = Marginal(double(0), double(180), double(1), 180)
    assert anything.std() == pytest.approx(180 / math.sqrt(12), rel=0.01)


def test_restore_identifies_what_is_left_out_and_draws_with_draws_of_it():
    clean = photograph(side=90)
    y = genprior.degrade(clean, "motion-deblur", length=7, angle=30, noise=0.02, seed=0).y[0]
    result = genprior.restore(y, "motion-deblur", angle=30, n=3, seed=0, steps=4, progress=False)
    found = result.identification
    assert found.known == {"angle": 30}
    assert result.samples.shape == (3, *y.shape)
    assert result.diagnostics["residual"].shape == (3,)
    assert torch.equal(result.measurement.operator.kernel, found.operator.kernel)
    assert result.measurement.noise == found.noise
    assert f"identified length {found.parameters['length']:.3g} ± {found.std['length']:.2g}" in str(result)
    kernels = found.copies(y[None], 3).operator.kernel
    assert len({tuple(kernel.flatten().tolist()) for kernel in kernels}) == 3


def test_copies_are_measured_by_draws_of_the_blur(moved):
    """Each by the kernel of its draw, whose length its second moment along the line tells, and its noise."""
    y = torch.zeros(1, *moved.measurement_shape)
    copies = moved.copies(y, 4)
    for k, kernel in enumerate(copies.operator.kernel):
        length, angle = float(moved.draws["length"][k]), math.radians(float(moved.draws["angle"][k]))
        i = torch.arange(len(kernel), dtype=torch.float64) - len(kernel) // 2
        along = i[None] * math.cos(angle) - i[:, None] * math.sin(angle)
        assert (kernel * along**2).sum() == pytest.approx((length**2 - 1) / 12, abs=0.6)
    torch.testing.assert_close(copies.noise.flatten().double(), moved.draws["noise"][:4], rtol=1e-6, atol=0)


def test_a_parameter_that_is_given_is_not_identified():
    y = genprior.degrade(photograph(side=90), "motion-deblur", length=7, noise=0.02, seed=0).y[0]
    assert genprior.restore(y, "motion-deblur", length=7, angle=0, steps=2, progress=False).identification is None


def test_arrays_and_files_are_taken(tmp_path):
    y = genprior.degrade(photograph(), "gaussian-deblur", width=1, noise=0.01, seed=0).y[0]
    images.save(images.to_pil(y.clamp(0, 1)), tmp_path / "y.png")
    array = np.round(255 * y.clamp(0, 1).movedim(0, -1).numpy()).astype(np.uint8)
    from_file, from_array = (genprior.identify(each, "gaussian-deblur") for each in (tmp_path / "y.png", array))
    assert from_file.parameters == from_array.parameters

"""The presets are the degradations that they say, at the size of the images."""

import pytest
import torch

import genprior
from genprior.benchmark.presets import PRESETS, camera_motion, preset
from genprior.operators import Blur, Inpaint, SuperResolution


def measured(name, side, seed=0):
    return genprior.degrade(torch.full((3, side, side), 0.5), seed=seed, **preset(name, side))


def test_there_are_the_tasks_of_dps_and_as_many_for_photographs():
    tasks = {"inpaint-box", "inpaint-random", "sr4", "gaussian", "motion"}
    assert set(PRESETS) == {f"{family}-{task}" for family in ("dps", "photo") for task in tasks}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("side", [64, 128, 256])
def test_every_preset_measures_images_with_noise_0_025_on_0_1(name, side):
    m = measured(name, side)
    assert m.noise == 0.05 / 2
    # a constant image stays constant under all of them, so what is left in y is the noise
    keep = m.operator(torch.ones(1, *m.operator.image_shape)) > 0.5
    deviation = (m.y[keep] - 0.5).std()
    # the sd of a sample standard deviation of N normal values is noise / sqrt(2 N)
    assert abs(deviation - 0.025) < 4 * 0.025 / (2 * int(keep.sum())) ** 0.5


def test_lengths_of_dps_are_those_of_256_pixels_in_proportion():
    for side, hole, width, kernel in [(256, 128, 3.0, 61), (128, 64, 1.5, 31), (64, 32, 0.75, 15)]:
        box = measured("dps-inpaint-box", side).operator
        rows, columns = box.mask[0, 0].nonzero().T
        assert isinstance(box, Inpaint)
        assert int(box.mask.sum()) == hole**2
        assert int(rows.max() - rows.min()) + 1 == int(columns.max() - columns.min()) + 1 == hole
        blur = measured("dps-gaussian", side).operator
        assert blur.boundary == "circular"
        i = torch.arange(blur.kernel.shape[-1]) - blur.kernel.shape[-1] // 2
        profile = blur.kernel[0].sum(0)
        # of a Gaussian, neighbours in the middle have the ratio exp(-1 / (2 width^2)), wherever it is cut
        middle = len(i) // 2
        assert abs(float((profile[middle] / profile[middle + 1]).log()) - 1 / (2 * width**2)) < 1e-9
        motion = measured("dps-motion", side).operator
        assert motion.boundary == "circular"
        assert motion.kernel.shape[1:] == (kernel, kernel)
        small = measured("dps-sr4", side).operator
        assert isinstance(small, SuperResolution)
        assert (small.scale, small.antialias) == (4, "bicubic")


def test_random_inpainting_lacks_92_and_70_percent():
    for name, fraction in [("dps-inpaint-random", 0.92), ("photo-inpaint-random", 0.7)]:
        mask = measured(name, 64).operator.mask
        assert mask.shape[1] == 1  # all channels of a pixel
        assert int(mask.sum()) == round(fraction * 64**2)


def test_masks_differ_between_images_and_the_camera_moves_the_same_for_all():
    a, b = (measured("dps-inpaint-random", 64, seed).operator.mask for seed in (0, 1))
    assert not torch.equal(a, b)
    a, b = (measured("dps-motion", 64, seed).operator.kernel for seed in (0, 1))
    assert torch.equal(a, b)


def test_camera_motion_is_a_path_through_the_middle_of_its_kernel():
    before = torch.random.get_rng_state()
    kernel = camera_motion(61)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-6)
    assert bool((kernel >= 0).all())
    i = torch.arange(61) - 30.0
    # its mean lies on the middle pixel, and it goes somewhere: a few pixels along both axes
    for along in (kernel.sum(0), kernel.sum(1)):
        mean = float((along * i).sum())
        assert abs(mean) < 1
        assert 3 < float((along * (i - mean) ** 2).sum()) ** 0.5 < 15
    assert int((kernel > 1e-4).sum()) < 61 * 61 / 10


def test_blurs_of_photographs_go_on_past_the_frame():
    gaussian, motion = (measured(f"photo-{name}", 64).operator for name in ("gaussian", "motion"))
    assert isinstance(gaussian, Blur)
    assert gaussian.boundary == motion.boundary == "valid"
    assert gaussian.measurement_shape == (3, 64 - 12, 64 - 12)  # 2 ceil(3 * 2) + 1 = 13 wide
    assert motion.measurement_shape == (3, 64 - 14, 64 - 14)
    assert int(measured("photo-inpaint-box", 64).operator.mask.sum()) == 16**2


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="Did you mean 'dps-sr4'"):
        preset("dps-sr", 64)
    with pytest.raises(ValueError, match=r"up to 256 pixels, where its kernel has 61; got 512: crop"):
        preset("dps-motion", 512)

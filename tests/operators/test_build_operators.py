"""Operators by name."""

import subprocess
import sys

import pytest
import torch

from genprior.operators import Blur, Inpaint, box_mask, for_image, for_measurement, gaussian_kernel, motion_kernel
from genprior.registry import lookup

KERNEL = torch.arange(6.0).reshape(2, 3)
HOLE = box_mask((24, 32), 4, seed=0)
PARAMETERS = {
    "inpaint": {"mask": HOLE},
    "super-resolution": {"scale": 4, "antialias": "average"},
    "sr": {"scale": 2},
    "gaussian-deblur": {"width": 1.0},
    "motion-deblur": {"length": 5, "angle": 20},
    "deblur": {"kernel": KERNEL, "boundary": "circular"},
    "denoise": {},
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_both_ways_give_the_same_operator(name):
    given = for_image(name, (3, 24, 32), **PARAMETERS[name])
    measured = for_measurement(name, given.measurement_shape, **PARAMETERS[name])
    x = torch.randn(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    assert given.image_shape == measured.image_shape == (3, 24, 32)
    assert torch.equal(given(x), measured(x))


@pytest.mark.parametrize("name", ["colorize", "colourize", "colorise", "colourise"])
def test_colorize_goes_from_three_channels_to_one(name):
    for op in (for_image(name, (3, 8, 9)), for_measurement(name, (1, 8, 9))):
        assert (op.image_shape, op.measurement_shape) == ((3, 8, 9), (1, 8, 9))


def test_parameters_reach_the_kernels():
    for name, parameters, kernel in (
        ("gaussian-deblur", {"width": 1.5}, gaussian_kernel(1.5)),
        ("motion-deblur", {"length": 7, "angle": 25}, motion_kernel(7, 25)),
        ("deblur", {"kernel": KERNEL}, KERNEL),
    ):
        op = for_measurement(name, (1, 16, 16), **parameters)
        assert isinstance(op, Blur)
        assert op.boundary == "valid"
        assert torch.equal(op.kernel[0], kernel)
        assert op.image_shape == (1, 16 + kernel.shape[0] - 1, 16 + kernel.shape[1] - 1)


def test_masks_are_simulated_for_images():
    op = for_image("inpaint", (3, 24, 32), mask="box", size=4, seed=0)
    assert isinstance(op, Inpaint)
    assert torch.equal(op.mask[0], HOLE)
    assert for_image("inpaint", (3, 24, 32), mask="random", fraction=0.25, seed=1).mask.sum() == 24 * 32 / 4


@pytest.mark.parametrize(
    ("build", "name", "parameters", "error", "message"),
    [
        (for_image, "gausian-deblur", {}, ValueError, "Did you mean 'gaussian-deblur'"),
        (for_image, 3, {}, ValueError, "Unknown operator 3"),
        (for_image, "denoise", {"width": 1}, TypeError, "takes no parameters; got width"),
        (for_image, "sr", {"sacle": 2}, TypeError, "super-resolution takes scale, antialias; got sacle"),
        (for_image, "motion-deblur", {"angle": 9}, TypeError, "takes length, angle, boundary; got angle"),
        (for_image, "inpaint", {"mask": "random"}, TypeError, "takes fraction, seed; got none"),
        (for_image, "inpaint", {"mask": "boxes", "size": 3}, ValueError, "Did you mean 'box'"),
        (for_image, "inpaint", {"mask": HOLE, "seed": 3}, TypeError, "seed with mask='random'"),
        (for_measurement, "inpaint", {"mask": "random"}, ValueError, "simulates holes"),
        (for_measurement, "gaussian-deblur", {"width": "wide"}, ValueError, "got 'wide'"),
    ],
)
def test_what_cannot_be_built_is_named(build, name, parameters, error, message):
    with pytest.raises(error, match=message):
        build(name, (3, 24, 32), **parameters)


def test_lookup_lists_names_and_the_closest():
    assert lookup("sampler", "dps", {"dps": 1}) == 1
    with pytest.raises(ValueError, match=r"Unknown sampler 'dpss'; choose among dps, mmps. Did you mean 'dps'\?"):
        lookup("sampler", "dpss", {"mmps": 1, "dps": 2})


def test_import_loads_no_other_imaging_library():
    code = (
        "import sys, genprior.operators; print({'deepinv', 'kornia', 'torchvision', 'matplotlib'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"

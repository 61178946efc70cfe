"""The JPEG operator against the encoder that it describes, Pillow's, whose files are read back."""

from io import BytesIO

import jpegio
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from genprior.compression import compress
from genprior.operators import JPEG, for_measurement

# Sides that 8 and 16 divide; that neither does; that 8 divides and 16 does not; even ones, odd ones.
SIZES = [(64, 48), (101, 75), (104, 72), (98, 68), (7, 9)]
SUBSAMPLINGS = ["4:4:4", "4:2:2", "4:2:0"]


def photograph(height, width):
    return Image.fromarray(data.astronaut()[50 : 50 + height, 100 : 100 + width])


def as_x(image):
    x = torch.from_numpy(np.atleast_3d(np.array(image))).double() / 255
    return x.movedim(-1, 0)[None]


def encoded(image, path, **options):
    image.save(path, "JPEG", **options)
    file = jpegio.read(str(path))
    steps = [file.quant_tables[component.quant_tbl_no] for component in file.comp_info]
    whole = [np.tile(s, (p.shape[0] // 8, p.shape[1] // 8)) for p, s in zip(file.coef_arrays, steps)]
    return [np.array(plane) for plane in file.coef_arrays], whole


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("subsampling", [*SUBSAMPLINGS, "grey"])
def test_coefficients_are_those_of_the_encoder(size, subsampling, tmp_path):
    """To what the encoder rounds besides: luma and chroma to half a level, and averages of chroma to half a level more.

    The 64 values of a basis function have a sum of squares of 1, so at most 8 levels add up of each level of rounding.
    Rounding by chance is far less: 1 in 100 coefficients of a step of 10 levels and more may be in the next cell.
    """
    grey = subsampling == "grey"
    image = photograph(*size).convert("L" if grey else "RGB")
    options = {} if grey else {"subsampling": subsampling}
    planes, steps = encoded(image, tmp_path / "a.jpg", quality=10, **options)
    A = JPEG((1 if grey else 3, *size), **options)
    assert A.planes == tuple(plane.shape for plane in planes)
    x = as_x(image)
    for k, (z, plane, step) in enumerate(zip(A.split(A(x) - A.offset.double()), planes, steps)):
        levels = 255 * z[0, 0].numpy()
        assert np.abs(levels - step * plane).max() <= (step / 2 + (4 if k == 0 else 8)).max()
        assert (np.abs(levels - step * plane) <= step / 2 + (4 if k == 0 else 8)).all()
        assert (np.rint(levels / step) != plane).mean() < 0.01


@pytest.mark.parametrize("quality", [1, 10, 50, 90, 100])
@pytest.mark.parametrize("size", [(64, 48), (101, 75)])
def test_degrade_gives_what_the_encoder_gives(quality, size, tmp_path):
    """The same tables; of the coefficients, as many differ as steps of few levels let the encoder's rounding decide."""
    image = photograph(*size)
    planes, steps = encoded(image, tmp_path / "a.jpg", quality=quality)
    m = compress(as_x(image).float(), quality=quality)
    A, step = m.operator, m.noise.step
    for mine, theirs in zip(A.split(255 * step), steps):
        torch.testing.assert_close(mine[0, 0], torch.from_numpy(theirs).float(), rtol=1e-6, atol=0)
    levels = A.split((m.y - A.offset) / step)
    differ = np.concatenate([(p[0, 0].round().numpy() != plane).ravel() for p, plane in zip(levels, planes)])
    # rounding of 1 / sqrt(12) levels moves a value over the border of a cell with probability 0.46 / step
    expected = np.concatenate([np.minimum(1, 0.46 / s).ravel() for s in steps]).mean()
    assert differ.mean() <= 2 * expected


def test_tables_of_quality_50_are_those_of_the_standard():
    m = compress(torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)), quality=50, subsampling="4:4:4")
    luma, chroma, _ = m.operator.split(255 * m.noise.step)
    assert luma[0, 0, 0, :8].round().tolist() == [16, 11, 10, 16, 24, 40, 51, 61]
    assert chroma[0, 0, 0, :8].round().tolist() == [17, 18, 24, 47, 99, 99, 99, 99]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_is_what_exif_says(orientation):
    """A of the upright picture is that of the stored one, which EXIF turns upright."""
    from PIL import ImageOps

    stored = photograph(24, 40)
    stored.getexif()[274] = orientation
    upright = as_x(ImageOps.exif_transpose(stored))
    A = JPEG(tuple(upright.shape[1:]), "4:2:0", orientation)
    torch.testing.assert_close(A(upright), JPEG((3, 24, 40), "4:2:0")(as_x(stored)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(64, 48), (98, 68)])
def test_decoded_is_what_pillow_decodes(size):
    """Of 4:4:4, whose chroma nobody enlarges: to the rounding of the decoder, and to what it clips."""
    image = photograph(*size)
    file = BytesIO()
    image.save(file, "JPEG", quality=95, subsampling="4:4:4")
    m = compress(as_x(image).float(), quality=95, subsampling="4:4:4")
    decoded = m.operator.decoded(m.y)
    gap = (decoded.clamp(0, 1) - as_x(Image.open(file)).float()).abs()
    assert float(gap.mean()) < 1 / 255
    repeated = JPEG((3, 16, 16), "4:2:0")
    flat = torch.full((1, 3, 16, 16), 0.3)
    torch.testing.assert_close(repeated.decoded(repeated(flat)), flat)


def test_whole_blocks_are_solved_at_once_and_others_nearly():
    """In float32, of a measurement whose noise is a hundredth: to 1e-4 of the exact solution in float64."""
    for size in ((32, 48), (37, 50)):
        A = JPEG((3, *size), "4:2:0")
        generator = torch.Generator().manual_seed(0)
        z, v = (torch.randn(1, *shape, generator=generator) for shape in (A.image_shape, A.measurement_shape))
        y = A(z) + v
        exact = JPEG((3, *size), "4:2:0", iterations=500).prox(z.double(), y.double(), 1e4)
        assert float((A.prox(z, y, 1e4) - exact).norm() / exact.norm()) < 1e-4


def test_what_makes_no_jpeg_is_named():
    with pytest.raises(ValueError, match=r"grey or colour images, \(1, 8, 8\) or \(3, 8, 8\)"):
        JPEG((2, 8, 8))
    with pytest.raises(ValueError, match="Unknown subsampling '4:2:1'"):
        JPEG((3, 8, 8), "4:2:1")
    with pytest.raises(ValueError, match="orientation, as EXIF counts it, is a whole number from 1 to 8; got 9"):
        JPEG((3, 8, 8), orientation=9)
    with pytest.raises(ValueError, match="restore the file itself"):
        for_measurement("jpeg", (1, 1, 384))

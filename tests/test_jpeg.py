"""JPEG files as measurements: read, simulated, restored; and those that are refused."""

from io import BytesIO

import jpegio
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

import genprior
from genprior import images
from genprior.cells import in_cells
from genprior.cli import main
from genprior.compression import cut
from genprior.images.jpeg import read_coefficients
from genprior.likelihoods import Quantised
from genprior.operators import Denoise, Measurement, SuperResolution
from genprior.samplers.guidance.quantised import QuantisedGuidance
from genprior.samplers.quantised_mean import QuantisedMean
from genprior.scores.metrics import psnr


def photograph(height=40, width=56, mode="RGB"):
    return Image.fromarray(data.astronaut()[60 : 60 + height, 180 : 180 + width]).convert(mode)


def encoded(image=None, quality=20, **options):
    file = BytesIO()
    (photograph() if image is None else image).save(file, "JPEG", quality=quality, **options)
    return file.getvalue()


def furthest(x, m):
    """How far A x is outside the cells, in steps."""
    return float(((m.operator(x) - m.y).abs() / m.noise.step).max()) - 0.5


@pytest.fixture(scope="module")
def prior():
    return genprior.load_prior("ddpm-photo", "cpu")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:4:4"}, {"subsampling": "4:2:2"}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_file_is_read_as_it_is(mode, options, tmp_path):
    data = encoded(photograph(mode=mode), **options)
    (tmp_path / "a.jpg").write_bytes(data)
    file = jpegio.read(str(tmp_path / "a.jpg"))
    m = genprior.read_jpeg(data)
    assert m.operator.image_shape == (1 if mode == "L" else 3, 40, 56)
    planes = m.operator.split(255 * (m.y - m.operator.offset))
    for plane, coefficients, part in zip(planes, file.coef_arrays, file.comp_info):
        table = np.tile(file.quant_tables[part.quant_tbl_no], [side // 8 for side in coefficients.shape])
        torch.testing.assert_close(plane[0, 0], torch.from_numpy(coefficients * table).float(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_part_of_a_file_says_what_the_file_says_of_it(mode, subsampling, orientation):
    """The picture of the part is that part of the whole, and so are the steps, which y has whole multiples of."""
    exif = Image.Exif()
    exif[274] = orientation
    whole = genprior.read_jpeg(encoded(photograph(121, 87, mode), subsampling=subsampling, exif=exif))
    part = cut(whole, 32)
    C, H, W = whole.operator.image_shape
    assert part.operator.image_shape == (C, 32, 32)
    # all parts of that size, of which it is one, at most a block of chroma from the middle
    parts = whole.picture[0].unfold(-2, 32, 1).unfold(-2, 32, 1)
    off = (parts - part.picture[0, :, None, None]).abs().amax((0, 3, 4))
    ((i, j),) = (off < 1e-5).nonzero().tolist()
    assert abs(i - (H - 32) / 2) <= 16
    assert abs(j - (W - 32) / 2) <= 16
    levels = (part.y - part.operator.offset) / part.noise.step
    assert (levels - levels.round()).abs().max() < 1e-3
    assert part.noise.step.unique().tolist() == whole.noise.step.unique().tolist()


def test_a_path_bytes_and_pil_images_say_the_same(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded())
    loaded, half = Image.open(path), Image.open(BytesIO(path.read_bytes()))
    loaded.load()
    given = [path, str(path), path.read_bytes(), Image.open(path), loaded, half]
    first, *others = (genprior.read_jpeg(each) for each in given)
    assert all(torch.equal(first.y, each.y) and torch.equal(first.noise.step, each.noise.step) for each in others)
    assert np.array_equal(np.asarray(half), np.asarray(loaded))  # which can still be decoded


def test_several_files_are_one_batch_with_steps_of_their_own(prior):
    files = [encoded(quality=10), encoded(photograph().transpose(Image.Transpose.FLIP_LEFT_RIGHT), quality=60)]
    m = genprior.read_jpeg(files)
    assert m.noise.step.shape == m.y.shape
    assert m.noise.step[0].mean() > 3 * m.noise.step[1].mean()
    result = genprior.restore(files, "jpeg", prior, progress=False)
    assert [image.size for image in result.image] == [(56, 40)] * 2
    alone = genprior.restore(files[1], "jpeg", prior, progress=False)
    torch.testing.assert_close(result.mean[1], alone.mean, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"item 0 is 3 x 40 x 56 .* 4:2:0, .* and item 1 is 3 x 40 x 56 .* 4:4:4"):
        genprior.read_jpeg([files[0], encoded(subsampling="4:4:4")])
    with pytest.raises(TypeError, match="image 1 of the list: jpeg takes the JPEG file"):
        genprior.read_jpeg([files[0], 3])
    with pytest.raises(ValueError, match="the list is empty"):
        genprior.read_jpeg([])


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_pictures_come_out_upright(orientation, prior):
    exif = Image.Exif()
    exif[274] = orientation
    file = encoded(photograph(38, 50), exif=exif, quality=90, subsampling="4:4:4")
    upright = images.read(Image.open(BytesIO(file))).x[0]
    result = genprior.restore(file, "jpeg", prior, progress=False)
    assert result.mean.shape == upright.shape
    assert result.image.size == upright.shape[:0:-1]
    # at quality 90 a picture is near to what its file decodes to, and a turned one is not
    assert float((result.mean - upright).square().mean().sqrt()) < 0.02
    torch.testing.assert_close(result.measurement.picture[0].clamp(0, 1), upright, rtol=0, atol=0.03)


REFUSED = {
    "array": (lambda: np.asarray(photograph()), TypeError, "its path, its bytes or the PIL image .* got numpy.ndarray"),
    "tensor": (lambda: torch.zeros(3, 8, 8), TypeError, "got torch.Tensor"),
    "PNG": (lambda: _as(photograph(), "PNG"), ValueError, "the JPEG file is a PNG file, not a JPEG file"),
    "PIL image": (photograph, ValueError, "the PIL image is no JPEG file as it was opened"),
    "crop": (lambda: Image.open(BytesIO(encoded())).crop((0, 0, 8, 8)), ValueError, "no JPEG file as it was opened"),
    "closed": (lambda: _closed(), ValueError, "no longer has its file"),
    "CMYK": (lambda: encoded(photograph(mode="CMYK")), ValueError, "whose colours are CMYK"),
    "RGB": (lambda: encoded(keep_rgb=True), ValueError, "whose colours are RGB"),
    "truncated": (lambda: encoded()[:-100], ValueError, "cannot be read as an image: .*truncated"),
    "12 bits": (lambda: _patched(4, 12), ValueError, "that is of 12 bits"),
    "arithmetic": (lambda: _patched(1, 0xC9), ValueError, "that is arithmetic-coded"),
    "hierarchical": (lambda: _patched(1, 0xC5), ValueError, "that is hierarchical"),
    "lossless": (lambda: _patched(1, 0xC3), ValueError, "that is lossless"),
    "factors": (lambda: _patched(11, 0x31), ValueError, "sampling factors|samples of chroma"),
    "nothing": (lambda: b"", ValueError, "cannot be read as an image"),
    "no image": (lambda: b"text", ValueError, "cannot be read as an image"),
    "no file": (lambda: "nowhere.jpg", FileNotFoundError, "There is no file nowhere.jpg"),
}


def _as(image, kind):
    file = BytesIO()
    image.save(file, kind)
    return file.getvalue()


def _patched(place, value):
    """A file in whose header of the frame one byte is another."""
    file = bytearray(encoded())
    file[file.index(b"\xff\xc0") + place] = value
    return bytes(file)


def _closed():
    image = Image.open(BytesIO(encoded()))
    image.load()
    return image


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_such_file_is_refused_by_name(kind):
    make, error, message = REFUSED[kind]
    with pytest.raises(error, match=message):
        genprior.restore(make(), "jpeg")


def test_a_picture_that_was_changed_is_refused(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(encoded())
    image = Image.open(tmp_path / "photo.jpg")
    image.putpixel((3, 3), (255, 0, 255))
    with pytest.raises(ValueError, match=r"photo.jpg was changed since it was opened"):
        genprior.read_jpeg(image)


def test_parameters_that_the_file_brings_are_refused():
    with pytest.raises(TypeError, match="takes all it needs from the file: leave quality, noise out"):
        genprior.restore(encoded(), "jpeg", quality=10, noise=0.1)
    with pytest.raises(ValueError, match=r"adds no other noise: leave noise=0\.1 out"):
        genprior.degrade(photograph(), "jpeg", noise=0.1)
    with pytest.raises(TypeError, match="jpeg takes quality, subsampling; got scale"):
        genprior.degrade(photograph(), "jpeg", scale=2)
    with pytest.raises(ValueError, match="quality is a whole number from 1 to 100; got 0"):
        genprior.degrade(photograph(), "jpeg", quality=0)
    with pytest.raises(ValueError, match="Unknown subsampling '4:4:0'"):
        genprior.degrade(photograph(), "jpeg", subsampling="4:4:0")


def test_without_the_package_that_reads_them_it_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jpegio", None)
    with pytest.raises(genprior.UnsupportedError, match=r'pip install "genprior\[jpeg\]"'):
        read_coefficients(encoded())


@pytest.mark.parametrize("quality", [10, 85])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("size", [(48, 64), (41, 58), (40, 56)])
def test_the_picture_is_in_every_cell(size, subsampling, quality, prior):
    """The float result, before clipping, to 1e-3 of a step; nearer to the photograph than the decoded file is."""
    image = photograph(*size)
    file = encoded(image, quality, subsampling=subsampling)
    result = genprior.restore(file, "jpeg", prior, progress=False)
    assert (result.estimator, result.network_evaluations) == (QuantisedMean(turns=True, grain=0.8), 8)
    assert not result.noise_was_estimated
    assert furthest(result.mean[None], result.measurement) < 1e-3
    x, decoded = images.read(image).x[0], images.read(Image.open(BytesIO(file))).x[0]
    assert (result.mean - x).square().mean() < 0.95 * (decoded - x).square().mean()


@pytest.mark.parametrize("size", [(48, 64), (41, 58)])
def test_draws_are_in_every_cell_and_vary(size, prior):
    image = photograph(*size)
    result = genprior.restore(encoded(image, 10), "jpeg", prior, n=2, steps=8, seed=0, progress=False)
    assert result.sampler == QuantisedGuidance(steps=8)
    assert furthest(result.samples, result.measurement) < 1e-3
    # two draws differ by about as much as each of them differs from the photograph
    x = images.read(image).x[0]
    apart = (result.samples[0] - result.samples[1]).square().mean()
    assert 0.3 < apart / (result.samples - x).square().mean() < 3


@pytest.mark.parametrize("options", [{"progressive": True}, {}])
def test_grey_and_progressive_pictures_are_in_every_cell(options, prior):
    result = genprior.restore(encoded(photograph(41, 50, "L"), **options), "jpeg", prior, progress=False)
    assert (result.mean.shape, result.image.mode) == ((1, 41, 50), "L")
    assert furthest(result.mean[None], result.measurement) < 1e-3


def test_simulated_files_are_restored_as_files_are(prior):
    """To the rounding of the encoder's integers, of which quality 20 hides most."""
    image = photograph()
    simulated = genprior.restore(genprior.degrade(image, "jpeg", quality=20), prior=prior, progress=False)
    read = genprior.restore(encoded(image, 20), "jpeg", prior, progress=False)
    assert furthest(simulated.mean[None], simulated.measurement) < 1e-3
    assert float((simulated.mean - read.mean).square().mean().sqrt()) < 0.01


def test_cells_are_reached_from_anywhere():
    """Whole blocks in one round, others in several; and where x is in its cells it stays where it is."""
    for size in ((32, 48), (37, 50)):
        m = genprior.degrade(photograph(*size), "jpeg", quality=30)
        anywhere = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
        x = in_cells(anywhere, m, rounds=2 if size == (32, 48) else 100)
        assert furthest(x, m) <= 0
        assert torch.equal(in_cells(x, m), x)
        assert furthest(anywhere, m) > 1


def test_command_line_writes_files_that_it_restores(tmp_path, capsys):
    photograph().save(tmp_path / "photo.png")
    out = tmp_path / "out"
    words = ["degrade", tmp_path / "photo.png", "--op", "jpeg", "--quality", 10, "-o", out]
    assert main([str(word) for word in words]) == 0
    assert (out / "photo.jpg").read_bytes() == encoded(quality=10)
    words = ["restore", out / "photo.jpg", "--op", "jpeg", "--prior", "ddpm-photo", "--concat", "-o", out / "x.png"]
    assert main([str(word) for word in [*words, "--device", "cpu"]]) == 0
    restored = images.read(out / "x.png").x
    x, decoded = images.read(photograph()).x, images.read(out / "photo.jpg").x
    assert (restored - x).square().mean() < 0.9 * (decoded - x).square().mean()
    assert Image.open(out / "x_concat.png").size[0] > 2 * 56
    words = ["degrade", tmp_path / "photo.png", "--op", "jpeg", "-o", tmp_path / "photo2.png"]
    assert main([str(word) for word in words]) == 1
    assert "writes JPEG files: end it with .jpg" in capsys.readouterr().err


def test_rounded_pictures_are_restored_in_their_cells(prior):
    """An image of eight grey levels for each colour: y is the image, rounded, and nothing else."""
    image, step = images.read(photograph()).x, 1 / 7
    m = Measurement(step * (image / step).round(), Denoise((3, 40, 56)), Quantised(step))
    result = genprior.restore(m, prior=prior, progress=False)
    assert result.estimator == QuantisedMean(turns=True, grain=0.8)
    assert float(((result.mean - m.y[0]).abs() / step).max()) < 0.5 + 1e-3
    assert (result.mean - image).square().mean() < 0.7 * (m.y - image).square().mean()


def test_hard_stripes_have_no_speckles(prior):
    """Of stripes of 12 pixels, networks that are told of noise that is not there make a picture of noise."""
    rows = torch.arange(96) // 12 % 2
    x = (0.1 + 0.8 * rows.float())[None, None, :, None].expand(1, 3, 96, 96)
    m = genprior.degrade(x, "jpeg", quality=10)
    errors = [
        float((genprior.restore(m, prior=prior, sampler=sampler, progress=False).mean - x[0]).square().mean())
        for sampler in ("auto", QuantisedMean(turns=True))
    ]
    assert errors[0] < 0.25 * float((m.picture - x).square().mean()) < errors[1]


def test_a_small_photograph_from_the_web_is_enlarged_within_its_cells(prior):
    """Reduced by 2, then compressed: the picture and draws lie in the cells of the file, and the picture is above the
    decoded file enlarged by bicubic interpolation, by 1 dB on this photograph of smooth china."""
    x = images.read(data.coffee()[116:212, 216:312]).x
    reduce = SuperResolution(2, (3, 96, 96))
    file = BytesIO()
    images.to_pil(reduce(x)[0]).save(file, "JPEG", quality=40)
    read = genprior.read_jpeg(file.getvalue())
    web = Measurement(read.y, read.operator @ reduce, read.noise)
    result = genprior.restore(web, prior=prior, n=1, steps=12, seed=0, progress=False)
    for found in (result.mean[None], result.samples):
        cells = (web.operator(found) - web.y).abs() / read.noise.step
        assert cells.max() < 0.5 + 1e-3
    small = images.read(Image.open(file)).x
    enlarged = torch.nn.functional.interpolate(small, scale_factor=2, mode="bicubic", antialias=True)
    assert float(psnr(result.mean[None].clamp(0, 1), x)) > float(psnr(enlarged.clamp(0, 1), x)) + 0.3

"""The page to try it: what it works out, to whom it is served, and one visit in a browser."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image, ImageDraw

import genprior
from genprior import images
from genprior.cli import main
from genprior.demo import work
from genprior.likelihoods import Poisson, PoissonGaussian, Quantised
from genprior.priors.ddpm import DDPM
from genprior.scores.metrics import psnr

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def prior():
    """A network that was never trained: E[x | x_t] of a Gaussian of standard deviation 0.25 about 0.5."""
    return DDPM((3, None, None), widths=(8, 8), blocks=1).eval().requires_grad_(False)


def picture(width=40, height=30):
    """A smooth RGB image, 8 bits."""
    i, j = np.mgrid[0:height, 0:width]
    return Image.fromarray(
        np.stack([100 + 60 * np.sin((i + k * j) / 6) for k in range(3)], axis=-1).astype(np.uint8), "RGB"
    )


def strokes(size, box):
    """What the brush leaves: a layer that is transparent but for a filled box."""
    layer = Image.new("RGBA", size)
    ImageDraw.Draw(layer).rectangle(box, fill=(255, 0, 128, 255))
    return layer


def test_simulation_is_degrade_then_restore(prior):
    outcome = work.simulate(
        work.as_photo(picture()), "super-resolution", {"scale": 4}, noise=0.02, seed=5, prior=prior, n=3, steps=2
    )
    # 30 rows are no multiple of 4
    truth = images.read(picture().crop((0, 0, 40, 28))).x[0]
    y = genprior.degrade(truth, "super-resolution", scale=4, noise=0.02, seed=5)
    result = genprior.restore(y, prior=prior, seed=5, n=3, steps=2, progress=False)
    assert outcome.measured.size == (10, 7)
    assert "40 x 28" in outcome.facts["photograph"]
    for shown, x in [(outcome.truth, truth), (outcome.mean, result.mean), *zip(outcome.samples, result.samples)]:
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(images.to_pil(x)))
    assert len(outcome.samples) == 3
    assert outcome.facts["PSNR of the picture"] == f"{float(psnr(result.mean, truth)):.2f} dB"
    of_samples = psnr(result.samples, truth.expand_as(result.samples)).mean()
    assert outcome.facts["PSNR of a sample"] == f"{float(of_samples):.2f} dB"
    assert outcome.facts["picture"].startswith("by DPIR(steps=2")
    assert outcome.facts["samples"].startswith("3 by ProbedCovariance(steps=2")
    assert outcome.facts["network evaluations"] == str(2 + 3 * 4)
    assert (outcome.facts["seed"], outcome.facts["noise"]) == ("5", "0.02, as stated")


def test_without_samples_there_is_the_picture(prior):
    options = {"noise": 0.02, "seed": 5, "prior": prior, "steps": 2}
    alone, drawn = (
        work.simulate(work.as_photo(picture()), "super-resolution", {"scale": 2}, **options, **more)
        for more in ({}, {"n": 2})
    )
    np.testing.assert_array_equal(np.asarray(alone.mean), np.asarray(drawn.mean))
    assert (alone.samples, alone.deviation, alone.facts["samples"]) == ([], None, "none")
    assert "PSNR of a sample" not in alone.facts
    assert alone.facts["PSNR of the picture"] == drawn.facts["PSNR of the picture"]


def test_what_is_painted_is_filled_and_the_rest_is_kept(prior):
    photo = work.as_photo(picture(), strokes((40, 30), (10, 5, 19, 14)))
    outcome = work.restore_photo(photo, "inpaint", {}, noise=0.0, prior=prior, n=2, steps=2)
    before, after = np.asarray(picture()), np.asarray(outcome.mean)
    hole = np.zeros((30, 40), bool)
    hole[5:15, 10:20] = True
    np.testing.assert_array_equal(after[~hole], before[~hole])
    assert (np.asarray(outcome.measured)[hole] == 255).all()
    assert (after[hole] != before[hole]).any(axis=-1).mean() > 0.9
    assert outcome.truth is None


def test_strokes_on_a_smaller_copy_mark_the_whole_photograph():
    photo = work.as_photo(picture(80, 60), strokes((40, 30), (10, 5, 19, 14)))
    assert photo.holes.getbbox() == (20, 10, 40, 30)


def test_transparency_is_a_hole_and_equal_channels_are_grey():
    image = picture().convert("L").convert("RGBA")
    image.putalpha(strokes((40, 30), (0, 0, 3, 3)).getchannel("A").point(lambda alpha: 255 - alpha))
    photo = work.as_photo(image)
    assert photo.image.mode == "L"
    assert photo.holes.getbbox() == (0, 0, 4, 4)


def test_noise_is_estimated_unless_stated(prior):
    photo = work.as_photo(picture(64, 64))
    assert "estimated" in work.restore_photo(photo, "denoise", {}, prior=prior, steps=1).facts["noise"]
    stated = work.restore_photo(photo, "denoise", {}, noise=0.1, prior=prior, steps=1)
    assert stated.facts["noise"] == "0.1, as stated"
    assert stated.deviation is None
    one = work.restore_photo(photo, "denoise", {}, noise=0.1, prior=prior, steps=1, n=1)
    assert len(one.samples) == 1
    assert one.deviation is None  # of one sample there is none


def test_photon_noise_is_added_stated_and_estimated(prior):
    photo, law = work.as_photo(picture(64, 64)), Poisson(0.05)
    outcome = work.simulate(photo, "denoise", {}, noise=law, seed=5, prior=prior, n=2, steps=2)
    y = genprior.degrade(images.read(picture(64, 64)).x[0], "denoise", noise=law, seed=5)
    result = genprior.restore(y, prior=prior, seed=5, n=2, steps=2, progress=False)
    for shown, x in [(outcome.measured, y.y[0]), (outcome.mean, result.mean), *zip(outcome.samples, result.samples)]:
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(images.to_pil(x)))
    assert outcome.facts["noise"] == "Poisson(gain=0.05), as stated"
    noisy = work.as_photo(outcome.measured)
    told = work.restore_photo(noisy, "denoise", {}, noise="poisson", prior=prior, steps=1).facts["noise"]
    assert told.startswith("PoissonGaussian(gain=")
    assert told.endswith("), estimated")


def test_a_jpeg_file_is_restored_from_what_it_holds(prior, tmp_path):
    path = tmp_path / "photo.jpg"
    picture().save(path, quality=20)
    outcome = work.restore_photo(work.as_photo(str(path)), "jpeg", {}, prior=prior, seed=5, steps=2, n=1)
    result = genprior.restore(path, "jpeg", prior=prior, seed=5, steps=2, n=1, progress=False)
    np.testing.assert_array_equal(np.asarray(outcome.mean), np.asarray(images.to_pil(result.mean)))
    np.testing.assert_array_equal(np.asarray(outcome.samples[0]), np.asarray(images.to_pil(result.samples[0])))
    assert outcome.measured.size == (40, 30)
    assert "Quantised" in outcome.facts["noise"]
    assert "photograph" not in outcome.facts  # it was not cut


def test_a_large_jpeg_file_is_cut_in_its_middle(tmp_path):
    path = tmp_path / "photo.jpg"
    picture(700, 300).save(path, quality=20)
    whole, (part, photo) = genprior.read_jpeg(path), work.read_file(work.as_photo(str(path)))
    # blocks of 16 pixels: the last before (700 - 512) / 2 begins at column 80
    assert (part.picture - whole.picture[..., 80:592]).abs().max() < 1e-5
    assert photo.image.size == photo.holes.size == (512, 300)
    assert "700 x 300 to 512 x 300" in photo.notices[0]


def test_jpeg_of_a_clean_photo_is_simulated(prior):
    photo = work.as_photo(picture())
    outcome = work.simulate(photo, "jpeg", {"quality": 10}, noise=0.0, seed=5, prior=prior, steps=2)
    y = genprior.degrade(images.read(picture()).x[0], "jpeg", quality=10)
    np.testing.assert_array_equal(np.asarray(outcome.measured), np.asarray(images.to_pil(y.picture[0])))
    assert "PSNR of the picture" in outcome.facts


def test_what_is_no_jpeg_file_and_what_reads_none_says_what_to_do(tmp_path, monkeypatch):
    picture().save(tmp_path / "photo.png")
    picture().save(tmp_path / "photo.jpg")
    painted, png, jpg = (work.as_photo(each) for each in (picture(), *map(str, sorted(tmp_path.iterdir())[::-1])))
    assert "drop the .jpg file itself" in work.obstacle(painted, "jpeg", {}, clean=False)
    assert "got a file of the format PNG" in work.obstacle(png, "jpeg", {}, clean=False)
    assert work.obstacle(png, "jpeg", {"quality": 10}, clean=True) is None  # which is compressed by the page
    assert work.obstacle(jpg, "jpeg", {}, clean=False) is None
    monkeypatch.setitem(sys.modules, "jpegio", None)
    assert 'pip install "genprior[jpeg]"' in work.obstacle(jpg, "jpeg", {}, clean=False)


def test_a_large_clean_photo_is_made_smaller_and_a_damaged_one_is_cut_about_its_holes():
    large = work.as_photo(picture(1200, 600), strokes((1200, 600), (1100, 500, 1109, 509)))
    clean, damaged = work.fit_clean(large), work.fit_damaged(large)
    assert clean.image.size == clean.holes.size == (512, 256)
    assert damaged.image.size == damaged.holes.size == (512, 512)
    assert all("1200 x 600" in fitted.notices[0] for fitted in (clean, damaged))
    # the pixels themselves, with the hole among them
    np.testing.assert_array_equal(np.asarray(damaged.image), np.asarray(large.image.crop((688, 88, 1200, 600))))
    assert damaged.holes.getbbox() == (1100 - 688, 500 - 88, 1110 - 688, 510 - 88)


def test_only_what_goes_together_is_offered():
    photo, digit = work.as_photo(picture()), work.as_photo(picture(28, 28).convert("L"))
    colour = work.operator_of(photo, "super-resolution", {"scale": 2}, clean=False)
    assert colour.image_shape == (3, 60, 80)
    assert work.priors_for(colour)[0] == "ddpm-photo"
    assert not any(name.endswith("-mnist") for name in work.priors_for(colour))
    grey = work.operator_of(digit, "denoise", {}, clean=True)
    assert {"ddpm-mnist", "gan-mnist", "vae-mnist"} <= set(work.priors_for(grey))
    ddpm = genprior.load_prior("ddpm-photo")
    assert {"diffpir", "ddrm"} <= set(work.samplers_for(ddpm, colour))
    assert "fisher-hmc" not in work.samplers_for(ddpm, colour)
    blur = work.operator_of(photo, "gaussian-deblur", {"width": 1.0}, clean=True)
    assert "ddrm" in work.samplers_for(ddpm, blur)
    oblique = work.operator_of(photo, "motion-deblur", {"length": 5, "angle": 30.0}, clean=True)
    assert "ddrm" not in work.samplers_for(ddpm, oblique)  # past the frame, and not separable: it has no svd
    assert "diffpir" in work.samplers_for(ddpm, work.operator_of(digit, "denoise", {}, clean=True))  # as colour
    assert work.automatic_for(ddpm, colour) == "optimal-covariance"
    photons = PoissonGaussian(1.0, 1.0)
    assert work.automatic_for(ddpm, colour, photons) in work.samplers_for(ddpm, colour, photons)
    assert "diffpir" not in work.samplers_for(ddpm, colour, photons)
    jpeg = work.operator_of(digit, "jpeg", {"quality": 10}, clean=True)
    assert work.automatic_for(ddpm, jpeg, Quantised(1.0)) == "quantised"
    assert work.automatic_for(genprior.load_prior("nf-mnist"), jpeg, Quantised(1.0)) is None


def test_what_cannot_work_says_why():
    colour, grey = work.as_photo(picture()), work.as_photo(picture().convert("L"))
    holed = work.as_photo(picture(), strokes((40, 30), (5, 5, 9, 9)))
    assert work.obstacle(colour, "denoise", {}, clean=True) is None
    assert "no holes to fill" in work.obstacle(colour, "inpaint", {}, clean=True)
    assert work.obstacle(holed, "inpaint", {}, clean=True) is None
    assert "colo" in work.obstacle(grey, "colorize", {}, clean=True)
    assert work.obstacle(grey, "colorize", {}, clean=False) is None  # a grey photograph is what it restores
    assert "this one has colours" in work.obstacle(colour, "colorize", {}, clean=False)
    assert work.obstacle(colour, "gaussian-deblur", {"width": 9.5}, clean=True)  # larger than the photograph


def test_listening_changes_nothing_and_can_end_it(prior):
    photo, heard = work.as_photo(picture()), []
    drawing = {"noise": 0.1, "seed": 1, "steps": 3, "n": 1}
    alone = work.restore_photo(photo, "denoise", {}, prior=prior, **drawing)
    listening = work.listening(prior.sized(30, 40), lambda: heard.append(1))
    np.testing.assert_array_equal(
        np.asarray(work.restore_photo(photo, "denoise", {}, prior=listening, **drawing).mean), np.asarray(alone.mean)
    )
    assert len(heard) == 1 + 3  # of the picture and of the sample

    def stop():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        work.restore_photo(photo, "denoise", {}, prior=work.listening(prior.sized(30, 40), stop), **drawing)


def test_without_gradio_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", "--no-open"]) == 1
    assert 'pip install "genprior[demo]"' in capsys.readouterr().err


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """Of the page, served by the command in an environment that asks for the whole world; it leaves no picture."""
    folder = tmp_path_factory.mktemp("temporary")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SHARE": "True", "GRADIO_ANALYTICS_ENABLED": "True"}
    process = subprocess.Popen(
        [sys.executable, "-m", "genprior", "demo", "--no-open", "--port", str(port)],
        env={**os.environ, **world, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
        # which a shell's background jobs ignore, and their children after them
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        line = process.stdout.readline()
        watchdog.cancel()
        assert f"http://127.0.0.1:{port}" in line
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
    assert not list(folder.rglob("*.png"))


def test_only_this_computer_is_served(port):
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    # another address of this computer, where a server of all addresses would answer (Linux)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5)


@pytest.fixture
def visit(port):
    """The page in a browser, and the addresses of everything it asked for."""
    if BROWSER is None:
        pytest.skip("no Chromium or Chrome is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        root = hasattr(os, "geteuid") and os.geteuid() == 0  # for whom Chromium has no sandbox
        browser = playwright.chromium.launch(executable_path=BROWSER, chromium_sandbox=not root)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://127.0.0.1:{port}")
        yield page, asked
        browser.close()


def choose(page, box, option):
    page.locator(f"#{box} input").click()
    page.get_by_role("option", name=option).click()


def size_of(page, box):
    """(width, height) in the file of each picture in a box, once there are any."""
    page.wait_for_selector(f"#{box} img")
    return page.eval_on_selector_all(
        f"#{box} img", "all => Promise.all(all.map(i => i.decode().then(() => [i.naturalWidth, i.naturalHeight])))"
    )


def drop(page, box, path):
    """A file onto the picture that is there."""
    held = page.evaluate_handle(
        """([bytes, name]) => {
            const held = new DataTransfer();
            held.items.add(new File([new Uint8Array(bytes)], name, {type: "image/jpeg"}));
            return held;
        }""",
        [list(path.read_bytes()), path.name],
    )
    for event in ("dragenter", "dragover", "drop"):
        page.locator(f"#{box} img").dispatch_event(event, {"dataTransfer": held})


def test_a_visit_with_photons_and_a_jpeg_file(visit, tmp_path):
    from playwright.sync_api import expect

    page, _ = visit
    start, hint, gain = (page.locator(f"#{name}") for name in ("start", "hint", "gain"))
    size_of(page, "photo")
    expect(gain).to_be_hidden()
    page.get_by_label("photons: the brighter, the more").check()
    expect(gain).to_be_visible()
    page.locator("#sampler input").click()
    expect(page.get_by_role("option", name="optimal-covariance", exact=True)).to_have_count(1)
    expect(page.get_by_role("option", name="optimal-covariance", exact=True)).to_be_visible()
    expect(page.get_by_role("option", name="diffpir", exact=True)).to_have_count(0)
    page.keyboard.press("Escape")
    choose(page, "op", "remove noise")
    page.locator("#steps textarea, #steps input").fill("1")
    page.locator("#n input[type=number]").fill("1")
    start.click()
    page.get_by_text("Poisson(gain=0.034), as stated").wait_for()
    expect(start).to_be_enabled()

    choose(page, "op", "undo JPEG")
    expect(page.locator("#law")).to_be_hidden()
    expect(page.locator("#quality")).to_be_visible()
    page.get_by_label("Restore a photo that is damaged already").check()
    expect(hint).to_contain_text("drop the .jpg file itself")
    expect(page.locator("#quality")).to_be_hidden()
    expect(start).to_be_disabled()
    picture(64, 48).save(tmp_path / "photo.jpg", quality=20)
    drop(page, "photo", tmp_path / "photo.jpg")
    expect(start).to_be_enabled()
    start.click()
    page.get_by_text("Quantised(").wait_for()
    assert size_of(page, "mean") == size_of(page, "measured") == [[64, 48]]


def test_a_visit(visit):
    from playwright.sync_api import expect

    page, asked = visit
    start, stop, hint = (page.locator(f"#{name}") for name in ("start", "stop", "hint"))
    assert size_of(page, "photo") == [[256, 170]]  # chelsea, with which it begins
    expect(start).to_be_enabled()
    expect(stop).to_be_disabled()

    choose(page, "op", "fill holes")
    expect(hint).to_contain_text("There are no holes to fill")
    expect(start).to_be_disabled()
    choose(page, "sample", "camera")  # 256 x 256, grey
    page.wait_for_function("document.querySelector('#photo img').naturalHeight == 256")
    choose(page, "op", "add colour")
    expect(hint).to_contain_text("colour")
    expect(start).to_be_disabled()
    choose(page, "sample", "chelsea")
    expect(start).to_be_enabled()
    expect(hint).to_have_text("")

    choose(page, "op", "enlarge")
    page.locator("#scale").wait_for()
    page.locator("#n input[type=number]").fill("2")
    page.locator("#steps textarea, #steps input").fill("1")
    page.locator("#start").click()
    assert size_of(page, "samples") == [[256, 168]] * 2
    assert size_of(page, "mean") == size_of(page, "truth") == [[256, 168]]
    assert size_of(page, "measured") == [[64, 42]]
    assert size_of(page, "deviation")
    assert "OptimalCovariance(steps=1" in page.locator("#facts").inner_text()

    # of a sampler by its name: "auto" first shows the bar of the picture
    page.locator("#sampler input").click()
    page.get_by_role("option", name="diffpir", exact=True).click()
    page.locator("#steps textarea, #steps input").fill("400")
    page.locator("#start").click()
    page.get_by_text("/800 steps").first.wait_for()  # the bar: evaluations of both samples
    expect(start).to_be_disabled()
    stop.click()
    page.get_by_text("Nothing was finished").wait_for()
    expect(start).to_be_enabled()
    expect(stop).to_be_disabled()
    assert all(url.startswith(("http://127.0.0.1:", "data:", "blob:")) for url in asked)

"""An evaluation is what it says: figures by hand on a Gaussian prior, whose posterior is known; nothing computed twice;
the same from two processes as from one."""

import csv
import hashlib
import importlib.metadata
import io
import json
import math
import os
import sys
import types
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from deepinv.physics import LinearPhysics
from PIL import Image
from skimage.metrics import structural_similarity

import genprior
from genprior.benchmark.evaluate import image_seed
from genprior.benchmark.items import differences, digest
from genprior.benchmark.summary import columns
from genprior.operators import Blur, Inpaint, PhaseRetrieval, from_physics, random_mask
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.samplers.base import Sampler
from genprior.samplers.exact import Exact
from genprior.scores import perceptual
from genprior.truth.gaussian import correlated

SHAPE = (1, 16, 16)
NOISE = 0.05
DEVIATION = 0.06  # of a pixel: 8 of them fit in [0, 1]


def independent():
    return Gaussian(torch.full(SHAPE, 0.5), torch.full(SHAPE, DEVIATION**2))


def smooth():
    wide = correlated(SHAPE)
    eigenvalues = wide.covariance.eigenvalues * (DEVIATION / 0.25) ** 2
    V = wide.covariance.eigenvectors
    return Gaussian(wide.mean, (V * eigenvalues.flatten()) @ V.T)


def draws(prior, n, seed=5):
    return prior.sample(n, seed=seed).float()


def evaluate(x, prior, sampler="exact", **options):
    return genprior.evaluate(x, "denoise", prior, sampler, **{"noise": NOISE, "n": 3, "progress": False} | options)


@dataclass(frozen=True)
class Far(Sampler):
    """Draws far from all truths."""

    needs: ClassVar[str] = "sample"
    evaluations = 0

    def sample(self, prior, measurement, noise):
        return 9 + noise(measurement.y)


def rows_of(evaluation):
    return list(csv.DictReader(io.StringIO(evaluation.images.csv())))


def lasting(evaluation):
    """images.csv without what another run may have otherwise."""
    return [{k: v for k, v in row.items() if k not in ("seconds", "peak_memory")} for row in rows_of(evaluation)]


calls = []


@dataclass(frozen=True)
class Watched(Exact):
    """Exact, which counts its calls and is stopped in the middle of one."""

    stops_at: int = 10**6
    error: str = "KeyboardInterrupt"

    def sample(self, prior, measurement, noise):
        calls.append(1)
        if len(calls) == self.stops_at:
            raise {"KeyboardInterrupt": KeyboardInterrupt, "RuntimeError": RuntimeError}[self.error]("out of memory")
        return super().sample(prior, measurement, noise)


@pytest.fixture(autouse=True)
def _count():
    calls.clear()


def stopping(monkeypatch, at, error="KeyboardInterrupt"):
    """`Watched`, with the same parameters as when it is not stopped."""
    monkeypatch.setattr(Watched, "__str__", lambda self: "Watched()")
    return Watched(stops_at=at, error=error)


def test_figures_are_those_computed_by_hand():
    prior = smooth()
    x = draws(prior, 3)
    found = evaluate(x, prior, seed=7, n=4)
    by_hand = {key: [] for key in ("psnr_sample", "psnr_mean", "ssim_sample", "ssim_mean", "crps")}
    for i, row in enumerate(rows_of(found)):
        # the seed in the table is all that it takes
        m = genprior.degrade(x[i], "denoise", noise=NOISE, seed=int(row["seed"]))
        samples = genprior.restore(m, prior=prior, sampler="exact", n=4, seed=int(row["seed"])).samples.double().numpy()
        truth = x[i].double().numpy()
        for kind, estimate in {"sample": samples[0], "mean": samples.mean(0)}.items():
            by_hand[f"psnr_{kind}"].append(-10 * np.log10(((estimate - truth) ** 2).mean()))
            settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
            by_hand[f"ssim_{kind}"].append(structural_similarity(estimate[0], truth[0], **settings))
        pairs = np.abs(samples[:, None] - samples[None]).sum((0, 1)) / (2 * 4 * 3)
        by_hand["crps"].append((np.abs(samples - truth).mean(0) - pairs).mean())
        for key, values in by_hand.items():
            assert float(row[key]) == pytest.approx(values[i], rel=1e-5)
        assert (row["image"], row["number"], row["method"], row["evaluations"]) == (str(i), str(i), "exact", "0")
    (row,) = found.table.rows
    for key, values in by_hand.items():
        figure = row[columns(4)[key]]
        assert figure.value == pytest.approx(np.mean(values), rel=1e-5)
        assert figure.error == pytest.approx(np.std(values, ddof=1) / math.sqrt(3), rel=1e-3)


def test_holes_are_measured_by_themselves():
    """Of the mean and a sample, known pixels left out; of operators without holes there is no such figure."""
    prior = smooth()
    x = draws(prior, 2)
    found = genprior.evaluate(
        x, "inpaint", prior, "exact", n=3, noise=NOISE, seed=7, mask="box", size=5, progress=False
    )
    for i, row in enumerate(rows_of(found)):
        m = genprior.degrade(x[i], "inpaint", noise=NOISE, seed=int(row["seed"]), mask="box", size=5)
        samples = genprior.restore(m, prior=prior, sampler="exact", n=3, seed=int(row["seed"])).samples.double()
        holes = m.operator.mask[0].expand_as(x[i])
        assert holes.sum() == 25
        for kind, estimate in {"sample": samples[0], "mean": samples.mean(0)}.items():
            error = float((estimate[holes].clamp(0, 1) - x[i].double()[holes].clamp(0, 1)).square().mean())
            assert float(row[f"psnr_holes_{kind}"]) == pytest.approx(-10 * math.log10(error), rel=1e-5)
            assert float(row[f"psnr_holes_{kind}"]) < float(row[f"psnr_{kind}"])
    assert "psnr_holes_mean" not in rows_of(evaluate(x, prior))[0]


def test_exact_samples_of_the_right_prior_have_the_errors_scores_and_coverage_of_theory():
    prior, N = independent(), 24
    found = rows_of(evaluate(draws(prior, N), prior))
    D = N * math.prod(SHAPE)
    tau = (DEVIATION**2 * NOISE**2 / (DEVIATION**2 + NOISE**2)) ** 0.5
    keys = ("psnr_sample", "psnr_mean", "crps", "coverage")
    values = {key: np.array([float(row[key]) for row in found]) for key in keys}
    # x - mean of n samples ~ N(0, tau^2 (1 + 1 / n)); the sd of the mean of D squares is sqrt(2 / D) of it
    for kind, factor in {"sample": 2, "mean": 4 / 3}.items():
        error = (10 ** (-values[f"psnr_{kind}"] / 10)).mean()
        assert abs(error / (factor * tau**2) - 1) < 4 * (2 / D) ** 0.5
    # E|x_i - x*| - E|x_i - x_j| / 2 = tau / sqrt(pi) for normal laws
    assert abs(values["crps"].mean() - tau / math.pi**0.5) < 4 * values["crps"].std() / N**0.5
    # of 3 samples the interval from least to largest: a pixel counts 0 or 1, and 1/2 on average
    assert abs(values["coverage"].mean() - 0.5) < 4 * (0.25 / D) ** 0.5


@pytest.mark.parametrize(("n", "level"), [(2, "33%"), (4, "60%"), (18, "89%"), (19, "90%"), (30, "90%")])
def test_coverage_is_at_a_level_at_which_it_can_be_0(n, level):
    """At 90 %, four samples that hold no truth at all would still be said to cover 75 % of them."""
    found = evaluate(draws(independent(), 2), independent(), Far(), n=n)
    (row,) = found.table.rows
    assert row[f"coverage at {level}"].value == 0
    assert f"the central {level} interval" in str(found)


def test_methods_are_compared_on_the_same_measurements():
    prior = smooth()
    x = draws(prior, 4)
    mmps = genprior.MMPS(steps=5)
    found = genprior.evaluate(
        x, "super-resolution", prior, ["exact", mmps], scale=2, noise=NOISE, n=2, baselines=["bicubic"], progress=False
    )
    names = ["exact", str(mmps), "bicubic"]
    rows = rows_of(found)
    of = {m: np.array([float(r["psnr_mean"]) for r in rows if r["method"] == m]) for m in names}
    first, *others = found.table.rows
    names_of = columns(2)
    assert [row["method"] for row in found.table.rows] == names
    assert first["less that of exact, dB"] is None
    # the first image warms up, and its seconds count for nothing
    of_exact = [float(row["seconds"]) for row in rows if row["method"] == "exact"]
    assert first[names_of["seconds"]].value == pytest.approx(np.mean(of_exact[1:]))
    for row in others:
        gain = of[row["method"]] - of["exact"]
        figure = row["less that of exact, dB"]
        assert figure.value == pytest.approx(gain.mean())
        assert figure.error == pytest.approx(gain.std(ddof=1) / 2)
    bicubic = others[1]
    assert bicubic[names_of["psnr_sample"]] is bicubic[names_of["coverage"]] is None  # it draws no samples
    assert others[0][names_of["evaluations"]] == 2 * mmps.evaluations > 0


def test_one_sample_has_neither_coverage_nor_crps():
    found = evaluate(draws(independent(), 2), independent(), n=1)
    (row,) = found.table.rows
    assert not any("coverage" in name for name in row)
    assert row[columns(1)["psnr_sample"]] == row[columns(1)["psnr_mean"]]
    assert "Coverage" not in str(found)


def test_an_image_is_alone_whatever_the_others_are():
    prior = smooth()
    x = draws(prior, 4)
    assert lasting(evaluate(x, prior, limit=2)) == lasting(evaluate(x[:2], prior)) == lasting(evaluate(x, prior))[:2]
    assert len({image_seed(seed, i) for seed in range(20) for i in range(20)}) == 400


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path, monkeypatch):
    prior = smooth()
    x = draws(prior, 5)
    whole = evaluate(x, prior, stopping(monkeypatch, 10**6))
    assert len(calls) == 5
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        evaluate(x, prior, stopping(monkeypatch, 3), out=tmp_path)
    assert not (tmp_path / "table.md").exists()
    assert len(calls) == 3
    calls.clear()
    rest = evaluate(x, prior, stopping(monkeypatch, 10**6), out=tmp_path)
    assert len(calls) == 3  # two were done, and the third, in which it was stopped, is lost
    assert lasting(rest) == lasting(whole)
    calls.clear()
    again = evaluate(x, prior, stopping(monkeypatch, 10**6), out=tmp_path)
    assert calls == []
    assert again.images.csv() == rest.images.csv()  # seconds and memory too
    assert again.table.markdown() == rest.table.markdown()
    assert again.contact.tobytes() == rest.contact.tobytes()


def test_a_result_is_whole_or_not_there(tmp_path, monkeypatch):
    prior = independent()
    x = draws(prior, 2)
    replace = os.replace

    def killed(source, target):
        if str(target).endswith("000001-exact.json"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(x, prior, out=tmp_path)
    assert sorted(p.name for p in (tmp_path / "items").glob("*.json")) == ["000000-exact.json"]
    assert not list((tmp_path / "items").glob(".*"))
    monkeypatch.setattr(os, "replace", replace)
    assert lasting(evaluate(x, prior, out=tmp_path)) == lasting(evaluate(x, prior))


def test_more_images_and_methods_cost_only_themselves(tmp_path, monkeypatch):
    prior = smooth()
    x = draws(prior, 4)
    sampler = stopping(monkeypatch, 10**6)
    evaluate(x, prior, sampler, out=tmp_path, limit=2)
    assert len(calls) == 2
    found = evaluate(x, prior, [sampler, "exact"], out=tmp_path)
    assert len(calls) == 4
    assert [row["images"] for row in found.table.rows] == [4, 4]
    fewer = evaluate(x, prior, "exact", out=tmp_path, limit=3)
    assert [(row["method"], row["images"]) for row in fewer.table.rows] == [("exact", 3)]


class Wiener(torch.nn.Module):
    """The denoiser of `independent`."""

    def __init__(self, deviation=DEVIATION):
        super().__init__()
        self.register_buffer("variance", torch.tensor(deviation**2))

    def forward(self, x_t, sigma):
        return 0.5 + self.variance / (self.variance + sigma**2) * (x_t - 0.5)


def test_a_denoiser_is_evaluated_as_the_prior_that_it_is(tmp_path):
    x, wanted = draws(independent(), 2), genprior.from_denoiser(Wiener(), (1, None, None))
    found = evaluate(x, Wiener(), "diffpir", out=tmp_path)
    assert lasting(found) == lasting(evaluate(x, wanted, "diffpir"))
    assert found.run["prior"]["name"] == "Wiener"
    again = evaluate(x, Wiener(), "diffpir", out=tmp_path)
    assert again.images.csv() == found.images.csv()  # seconds too: nothing was computed
    with pytest.raises(ValueError, match=r"prior_sha256 was '.*and is '"):
        evaluate(x, Wiener(0.07), "diffpir", out=tmp_path)
    # of grey and colour images it is one of colour, and grey ones are three equal channels to it
    mixed = [x[0], x[1].expand(3, -1, -1)]
    wanted = genprior.from_denoiser(Wiener(), (3, None, None))
    assert lasting(evaluate(mixed, Wiener(), "diffpir")) == lasting(evaluate(mixed, wanted, "diffpir"))


@pytest.mark.parametrize("given", [lambda f: f, lambda f: genprior.from_denoiser(f, (1, None, None))])
def test_a_run_with_a_function_does_not_go_on_for_a_function_has_no_hash(given, tmp_path):
    x, options = draws(independent(), 1), {"sampler": "diffpir", "out": tmp_path}
    found = evaluate(x, given(lambda x_t, sigma: Wiener()(x_t, sigma)), **options)
    assert lasting(found) == lasting(evaluate(x, Wiener(), "diffpir"))
    assert found.run["settings"]["prior_sha256"] is None
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"prior is a function.*give another folder"):
        evaluate(x, given(lambda x_t, sigma: Wiener(0.07)(x_t, sigma)), **options)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": 2}, "n was 3 and is 2"),
        ({"noise": 0.06}, "noise was 0.05 and is 0.06"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"crop": 12}, "crop was None and is 12"),
        ({"prior": smooth()}, "prior_sha256 was '"),
        ({"op": "inpaint", "mask": "random", "fraction": 0.3}, "op was 'denoise' and is 'inpaint'"),
        ({"data": draws(independent(), 2, seed=6)}, "of image 0, the values was '"),
        ({"sampler": stopping}, "Watched was 'Watched()' and is 'Watched(stops_at=7"),
    ],
)
def test_other_settings_are_refused_and_named(change, words, tmp_path, monkeypatch):
    prior = independent()
    arguments = {"data": draws(prior, 2), "op": "denoise", "prior": prior, "sampler": "exact"}
    options = {"noise": NOISE, "n": 3, "progress": False, "out": tmp_path}
    if change.get("sampler") is stopping:
        monkeypatch.setitem(genprior.samplers.SAMPLERS, "Watched", Watched)
        arguments["sampler"] = "Watched"
        monkeypatch.setattr(Watched, "__str__", lambda self: "Watched()")
        genprior.evaluate(**arguments, **options)
        monkeypatch.setattr(Watched, "__str__", lambda self: "Watched(stops_at=7)")
        change = {}
    else:
        genprior.evaluate(**arguments, **options)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="holds an evaluation with other settings") as error:
        genprior.evaluate(**arguments | options | change)
    assert words in str(error.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "table.md").write_text("precious")
    with pytest.raises(FileExistsError, match=r"holds table\.md but no run\.json"):
        evaluate(draws(independent(), 1), independent(), out=tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(ValueError, match="not of an evaluation"):
        evaluate(draws(independent(), 1), independent(), out=tmp_path)
    assert (tmp_path / "table.md").read_text() == "precious"


def test_a_method_that_does_not_suit_says_why_and_the_others_go_on(tmp_path):
    prior = smooth()
    x = draws(prior, 2)
    found = genprior.evaluate(
        x, "motion-deblur", prior, ["ddrm", "exact"], noise=NOISE, n=2, length=3, angle=30.0,
        baselines=["bicubic", "wiener"], out=tmp_path, progress=False,
    )  # fmt: skip
    ddrm, exact, bicubic, wiener = found.table.rows
    assert ddrm["images"] == bicubic["images"] == 0
    assert "has no SVD in closed form" in ddrm["note"]
    assert bicubic["note"] == "suits SuperResolution, not Blur"
    assert exact["images"] == wiener["images"] == 2
    assert exact["note"] is wiener["note"] is None
    assert "less that of ddrm, dB" not in wiener  # there is nothing to compare with
    assert all(bool(row["note"]) != bool(row["psnr_mean"]) for row in rows_of(found))


def test_what_ran_out_of_memory_is_noted_and_tried_again(tmp_path, monkeypatch):
    prior = smooth()
    x = draws(prior, 3)
    found = evaluate(x, prior, stopping(monkeypatch, 2, "RuntimeError"), out=tmp_path)
    (row,) = found.table.rows
    assert row["images"] == 2
    assert row["note"] == "1 of 3 failed: out of memory"
    calls.clear()
    found = evaluate(x, prior, stopping(monkeypatch, 10**6), out=tmp_path)
    assert len(calls) == 1
    assert found.table.rows[0]["images"] == 3
    assert "note" not in found.table.rows[0]


def test_run_json_has_what_it_takes_to_run_it_again(tmp_path):
    prior = smooth()
    x = draws(prior, 2)
    methods = [Exact(), "diffpir"]
    options = {"noise": NOISE, "n": 2, "seed": 3, "mask": "random", "fraction": 0.4}
    found = genprior.evaluate(x, "inpaint", prior, methods, **options, out=tmp_path / "a", progress=False)
    run = json.loads((tmp_path / "a" / "run.json").read_text())
    assert run == json.loads(json.dumps(found.run))
    settings = run["settings"]
    assert settings["versions"].keys() == {"genprior", "torch", "deepinv", "kornia", "scikit-image"}
    assert settings["versions"]["torch"] == torch.__version__.split("+")[0]
    assert (settings["op"], settings["parameters"]) == ("inpaint", {"mask": "random", "fraction": 0.4})
    assert (settings["noise"], settings["n"], settings["seed"], settings["device"]) == (NOISE, 2, 3, "cpu")
    assert "[0, 1]" in run["noise_unit"]
    assert run["methods"] == {"Exact()": "Exact()", "diffpir": str(genprior.DiffPIR())}
    assert run["command"]
    for i, image in enumerate(run["images"]):
        m = genprior.degrade(x[i], "inpaint", mask="random", fraction=0.4, noise=NOISE, seed=image["seed"])
        assert image["sha256"] == hashlib.sha256(x[i].numpy().tobytes()).hexdigest()
        assert image["mask_sha256"] == hashlib.sha256(m.operator.mask.numpy().tobytes()).hexdigest()
    assert run["images"][0]["mask_sha256"] != run["images"][1]["mask_sha256"]
    # what run.json says gives the same again
    options = {key: settings[key] for key in ("noise", "n", "seed", "crop", "lpips")} | settings["parameters"]
    again = genprior.evaluate(x, settings["op"], prior, methods, **options, progress=False)
    assert lasting(again) == lasting(found)
    # and what a user saves elsewhere is what was written
    found.save(tmp_path / "b")
    for name in ("table.md", "table.csv", "images.csv", "run.json", "contact.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        found.save(tmp_path / "b")


def test_the_contact_sheet_shows_truth_measurement_means_and_samples(tmp_path):
    prior = smooth()
    x = draws(prior, 5)
    found = evaluate(x, prior, ["exact", Exact()], n=2, out=tmp_path)
    sheet = np.asarray(Image.open(tmp_path / "contact.png")).astype(float) / 255
    side, pad = 96, 4
    assert np.asarray(found.contact).shape == (22 + 4 * (side + pad) - pad, 6 * (side + pad) - pad, 3)

    def cell(row, column):
        top, left = 22 + row * (side + pad), column * (side + pad)
        return sheet[top : top + side : 6, left : left + side : 6, 0]

    for i in range(4):
        np.testing.assert_allclose(cell(i, 0), x[i, 0], atol=0.51 / 255)
        seed = image_seed(0, i)
        m = genprior.degrade(x[i], "denoise", noise=NOISE, seed=seed)
        np.testing.assert_allclose(cell(i, 1), m.y[0, 0].clamp(0, 1), atol=0.51 / 255)
        result = genprior.restore(m, prior=prior, sampler="exact", n=2, seed=seed)
        np.testing.assert_allclose(cell(i, 2), result.mean[0], atol=0.51 / 255)
        np.testing.assert_allclose(cell(i, 3), result.samples[0, 0], atol=0.51 / 255)


def test_data_are_folders_files_arrays_and_lists_and_crops_their_middle(tmp_path):
    prior = independent()
    pixels = (np.arange(3 * 20 * 24).reshape(3, 20, 24) % 251).astype(np.uint8)
    for i, name in enumerate(["b.png", "a.png", "deep/c.png"]):
        (tmp_path / "photos" / name).parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(pixels[i]).save(tmp_path / "photos" / name)
    np.savez(tmp_path / "data.npz", test_images=pixels, others=pixels[:1])
    as_list = [tmp_path / "photos" / "b.png", Image.fromarray(pixels[1]), torch.from_numpy(pixels[2] / 255.0)[None]]

    def truths(data, **options):
        run = evaluate(data, prior, crop=16, **options).run
        return [(image["name"], image["sha256"]) for image in run["images"]]

    expected = [
        hashlib.sha256((each[2:18, 4:20].astype(np.float32) / np.float32(255)).tobytes()).hexdigest() for each in pixels
    ]
    assert truths(tmp_path / "photos") == [("a.png", expected[1]), ("b.png", expected[0]), ("deep/c.png", expected[2])]
    assert truths(tmp_path / "photos", limit=1) == [("a.png", expected[1])]
    assert truths(tmp_path / "data.npz") == [(str(i), expected[i]) for i in range(3)]
    assert truths(tmp_path / "data.npz", images="others") == [("0", expected[0])]
    assert [name for name, _ in truths(as_list)] == ["b.png", "1", "2"]
    assert [h for _, h in truths(as_list)][:2] == expected[:2]
    assert [h for _, h in truths(list(torch.from_numpy(pixels[:, None] / np.float32(255))))] == expected


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"op": "denoize"}, ValueError, "Did you mean 'denoise'"),
        ({"op": "dps-sr"}, ValueError, "Did you mean 'dps-sr4'"),
        ({"op": "photo-sr4", "scale": 2}, ValueError, "brings its own parameters; leave scale out"),
        ({"sampler": "exakt"}, ValueError, "Did you mean 'exact'"),
        ({"sampler": ["exact", "mmsp"]}, ValueError, "Did you mean 'mmps'"),
        ({"sampler": [], "baselines": []}, ValueError, "nothing to evaluate"),
        ({"baselines": ["biharmnic"]}, ValueError, "Did you mean 'biharmonic'"),
        ({"prior": "dpm"}, ValueError, "Unknown prior 'dpm'"),
        ({"prior": 3}, TypeError, "prior is a name, a folder, a checkpoint, a Prior or a denoiser"),
        ({"noise": None}, ValueError, "Give noise="),
        ({"noise": torch.ones(2)}, ValueError, "one noise level"),
        ({"n": 0}, ValueError, "the number of samples of each image"),
        ({"seed": -1}, ValueError, "seed"),
        ({"limit": 0}, ValueError, "limit"),
        ({"crop": 17}, ValueError, "image 0 is 16 x 16, smaller than crops of 17 x 17"),
        ({"crop": 10}, ValueError, "SSIM needs 11 x 11"),
        ({"op": "gaussian-deblur", "width": 1.0}, ValueError, "image 0: 10 x 10 pixels of it are restored"),
        ({"op": "gaussian-deblur"}, TypeError, "gaussian-deblur takes width"),
        ({"data": []}, ValueError, "no images"),
        ({"data": 5}, TypeError, "data is a folder"),
        ({"data": [torch.zeros(1, 16, 16), torch.full((1, 16, 16), 3.0)]}, ValueError, "image 1: "),
        (
            {"op": "photo-sr4", "data": [torch.zeros(1, 16, 16), torch.zeros(1, 20, 20)]},
            ValueError,
            r"smaller side of the images, and there are \[16, 20\]; give crop=",
        ),
        ({"data": [torch.zeros(1, 28, 28), torch.zeros(1, 32, 32)], "prior": "ddpm"}, ValueError, "several priors"),
    ],
)
def test_errors_come_before_anything_is_computed_and_say_what_to_do(arguments, error, words, tmp_path):
    prior = independent()
    defaults = {"data": draws(prior, 1), "op": "denoise", "prior": prior, "sampler": Watched(), "noise": NOISE, "n": 2}
    with pytest.raises(error, match=words):
        genprior.evaluate(**defaults | arguments, out=tmp_path / "out", progress=False)
    assert calls == []
    assert not (tmp_path / "out").exists()


def test_lpips_is_an_extra_that_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    perceptual.network.cache_clear()
    with pytest.raises(genprior.UnsupportedError, match=r'pip install "genprior\[lpips\]".*downloads the weights'):
        evaluate(draws(independent(), 1), independent(), lpips=True)


def test_lpips_is_measured_where_it_is_installed(monkeypatch):
    """By a stand-in that keeps what the package is given: the mean squared distance on [-1, 1]."""

    class LPIPS(torch.nn.Module):
        def __init__(self, net, verbose):
            super().__init__()
            assert net == "vgg"
            self.weight = torch.nn.Parameter(torch.rand(1))

        def forward(self, a, b, normalize):
            assert a.shape == b.shape == (1, 3, *SHAPE[1:])
            assert normalize
            return (2 * a - 2 * b).square().mean().reshape(1, 1, 1, 1)

    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=LPIPS))
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0" if name == "lpips" else version(name))
    perceptual.network.cache_clear()
    state = torch.random.get_rng_state()
    found = evaluate(draws(independent(), 2), independent(), lpips=True)
    perceptual.network.cache_clear()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert found.run["settings"]["versions"]["lpips"] == "0"
    for row in rows_of(found):
        for kind in ("sample", "mean"):
            assert float(row[f"lpips_{kind}"]) == pytest.approx(4 * 10 ** (-float(row[f"psnr_{kind}"]) / 10), rel=1e-5)


def test_global_random_state_is_left_alone():
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    genprior.evaluate(
        draws(independent(), 1), "gaussian-deblur", independent(), "exact", noise=NOISE, width=0.5, boundary="circular",
        baselines=["wiener-unsupervised", "wiener"], progress=False,
    )  # fmt: skip
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_a_mask_may_be_an_image(tmp_path):
    holes = np.zeros((16, 16), dtype=np.uint8)
    holes[4:9, 4:9] = 255
    options = {"n": 2, "noise": NOISE, "progress": False, "out": tmp_path}
    x = draws(smooth(), 1)
    found = genprior.evaluate(x, "inpaint", smooth(), "exact", mask=Image.fromarray(holes), **options)
    assert found.run["settings"]["parameters"]["mask"].startswith("16 x 16, sha256 ")
    with pytest.raises(ValueError, match="parameters mask was '16 x 16, sha256 "):
        genprior.evaluate(x, "inpaint", smooth(), "exact", mask=Image.fromarray(255 - holes), **options)


def test_digests_tell_things_apart_and_nothing_else():
    a, b = independent(), independent()
    assert digest(a) == digest(b)
    b.mean[0, 3, 3] += 1e-6
    assert digest(a) != digest(b)
    b = independent()
    b.spread_of_labels = 3  # any parameter of its own
    assert digest(a) != digest(b)
    mask = random_mask((8, 8), 0.5)
    assert digest(Inpaint(mask, (1, 8, 8))) == digest(Inpaint(mask.clone(), (1, 8, 8)))
    assert digest(Inpaint(mask, (1, 8, 8))) != digest(Inpaint(~mask, (1, 8, 8)))
    assert digest(PhaseRetrieval((1, 8, 8), 2)) == digest(PhaseRetrieval((1, 8, 8), 2))
    assert digest(PhaseRetrieval((1, 8, 8), 2)) != digest(PhaseRetrieval((1, 8, 8), 4))
    kernel = torch.ones(3, 3) / 9
    blurs = [Blur(kernel, (1, 8, 8), boundary) for boundary in ("valid", "circular")]
    assert len({digest(blur) for blur in [*blurs, Blur(kernel / 2, (1, 8, 8))]}) == 3
    blurs[0](torch.zeros(1, 1, 8, 8))  # what it keeps for later is no part of it
    assert digest(blurs[0]) == digest(Blur(kernel, (1, 8, 8)))

    def physics(gain):
        return LinearPhysics(A=lambda x, **_: gain * x, A_adjoint=lambda y, **_: gain * y, img_size=(1, 8, 8))

    other = LinearPhysics(A=lambda x, **_: x / 2.0, A_adjoint=lambda y, **_: y / 2.0, img_size=(1, 8, 8))
    assert digest(physics(2.0)) == digest(physics(2.0))
    assert len({digest(each) for each in (physics(2.0), physics(3.0), other)}) == 3

    class Own:
        def __init__(self, gain):
            self.gain = gain
            self.own = lambda x: self.gain * self.own(x)  # refers back to itself

        def f(self, x):
            return self.gain * x

    assert len({digest(each) for each in (Own(2).f, Own(3).f)}) == 2
    assert digest(Own(2).f) == digest(Own(2).f)
    assert digest(Own(2).own) == digest(Own(2).own)
    assert digest(lambda x: x in {1, 2}) != digest(lambda x: x in {3, 4})
    assert digest(torch.view_as_complex(torch.ones(2, 2)).conj())

    wrapped = [from_physics(each, (1, 8, 8)) for each in (physics(2.0), physics(2.0), physics(3.0))]
    wrapped[0](torch.zeros(1, 1, 8, 8))
    assert digest(wrapped[0]) == digest(wrapped[1]) != digest(wrapped[2])


def test_differences_are_named_by_their_place():
    stored = {"a": 1, "b": {"c": [1, 2], "d": "x"}}
    assert differences(stored, stored) == []
    assert differences(stored, {"a": 1, "b": {"c": [1, 3], "d": "x"}, "e": 0}) == [
        "b c was [1, 2] and is [1, 3]",
        "e was None and is 0",
    ]


def test_evaluate_is_not_the_module_of_its_name():
    import genprior.benchmark.evaluate

    assert callable(genprior.evaluate)
    assert isinstance(genprior.benchmark.evaluate, types.ModuleType)

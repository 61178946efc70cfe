"""What `restore` gives back as uncertainty, and what its .npz file keeps, judged by Gaussian priors."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import genprior
from genprior import operators, record
from genprior.operators import Measurement, gaussian_kernel, random_mask
from genprior.priors.ddpm import DDPM
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.samplers import SAMPLERS

H, W = 6, 5
MASK = random_mask((H, W), 0.4, seed=3)[0]


def white(*shape):
    """Independent values of mean 0.5 and variance 0.04."""
    return Gaussian(torch.full(shape, 0.5), torch.full(shape, 0.04))


def photo(*shape, seed=0):
    return 0.2 + 0.6 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def restore(img, op="denoise", prior=None, **options):
    prior = prior or white(*img.shape[-3:])
    return genprior.restore(img, op, prior, **{"noise": 0.1, "seed": 0, "progress": False, **options})


# ---- uncertainty ----


@pytest.mark.parametrize(("n", "coverage"), [(9, 0.8), (19, 0.9)])
def test_interval_holds_the_truth_as_often_as_it_says(n, coverage):
    """Truth and samples are draws of one law, and of n + 1 such values each is as likely to be the smallest."""
    truth, *samples = torch.randn(n + 1, 1, 200, 200, generator=torch.Generator().manual_seed(0))
    result = replace(restore(photo(1, H, W), n=1), _samples=torch.stack(samples))
    low, high = result.interval(coverage)
    # 200^2 independent pixels: 4.5 standard deviations of their share
    assert abs(((low < truth) & (truth < high)).float().mean() - coverage) < 4.5 * 0.4 / 200
    assert abs((truth < result.quantile(0.3)).float().mean() - 0.3) < 4.5 * math.sqrt(0.3 * 0.7) / 200


def test_interval_of_a_restoration_holds_the_truth():
    prior = white(1, 16, 16)
    truth = prior.sample(1, seed=7)
    noise = 0.1 * torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(8))
    measured = Measurement(truth + noise, operators.Denoise((1, 16, 16)), 0.1)
    low, high = genprior.restore(measured, prior=prior, n=9, seed=9, progress=False).interval(0.8)
    # 256 independent pixels: 4.5 standard deviations of their share
    assert abs(((low < truth[0]) & (truth[0] < high)).float().mean() - 0.8) < 4.5 * 0.4 / 16


def test_quantiles_are_those_of_the_samples_and_shaped_like_the_mean():
    several = restore(photo(2, 1, H, W), n=4)
    assert several.quantile(0.3).shape == several.mean.shape == (2, 1, H, W)
    assert several.quantile([0.2, 0.5, 0.8]).shape == (3, 2, 1, H, W)
    ordered = several.samples.sort(dim=1).values
    for k in range(4):
        torch.testing.assert_close(several.quantile((k + 1) / 5), ordered[:, k], atol=1e-6, rtol=0)
    torch.testing.assert_close(several.quantile(0.5), (ordered[:, 1] + ordered[:, 2]) / 2, atol=1e-6, rtol=0)
    # beyond what four samples say
    assert torch.equal(several.quantile(0.0), ordered[:, 0])
    assert torch.equal(several.interval(0.99)[1], ordered[:, 3])
    one = restore(photo(1, H, W), n=1)
    assert torch.equal(one.quantile(0.9), one.samples[0])


def test_samples_of_many_pixels_have_quantiles():
    """torch.quantile takes no more than 2^24 values."""
    samples = torch.rand(8, 1, 1500, 1500, generator=torch.Generator().manual_seed(0))
    assert samples.numel() > 2**24
    result = replace(restore(photo(1, H, W), n=1), _samples=samples)
    # the k-th smallest of n uniform values has the mean k / (n + 1), here of 2.25 million with deviations below 0.17
    assert abs(result.quantile(0.4).mean() - 0.4) < 4.5 * 0.17 / 1500


@pytest.mark.parametrize("q", [-0.1, 1.1, math.nan, [0.5, 2.0], [[0.5]]])
def test_quantiles_that_are_none_are_refused(q):
    with pytest.raises(ValueError, match=r"in \[0, 1\].*got"):
        restore(photo(1, H, W), n=1).quantile(q)
    if not isinstance(q, list):
        with pytest.raises(ValueError, match="between 0 and 1; got"):
            restore(photo(1, H, W), n=1).interval(q)


# ---- what is kept ----

NET = DDPM((3, None, None), widths=(8, 8), blocks=1).eval()
CASES = {
    "inpaint": ("inpaint", {"mask": MASK.numpy()}, {}),
    "masks": ("inpaint", {"mask": [MASK.numpy(), ~MASK.numpy()]}, {}),
    "super-resolution": ("super-resolution", {"scale": 2, "antialias": "average"}, {}),
    "kernels": ("deblur", {"kernel": [gaussian_kernel(0.7), gaussian_kernel(0.3)]}, {"sampler": "mmps"}),
    "noise": ("denoise", {}, {"noise": [0.1, 0.2]}),
    "nested sampler": ("denoise", {}, {"sampler": "smc", "n": 2}),
}


def build(saved, run):
    """The operator again, as docs say: from its class, its parameters and its arrays."""
    made = {"Inpaint": "mask", "Blur": "kernel"}
    described = run["operator"]
    shape = tuple(described["image_shape"])
    kind = getattr(operators, described["class"])
    if described["class"] in made:
        more = {"boundary": described["boundary"]} if described["class"] == "Blur" else {}
        return kind(torch.from_numpy(saved[f"operator.{made[described['class']]}"]), shape, **more)
    if described["class"] == "SuperResolution":
        return kind(described["scale"], shape, described["antialias"])
    return kind(shape)


def sampler_of(described):
    values = {k: sampler_of(v) if isinstance(v, dict) else v for k, v in described["parameters"].items()}
    return SAMPLERS[described["name"]](**values)


@pytest.mark.parametrize("case", CASES)
def test_npz_has_what_it_takes_to_draw_the_same_samples(case, tmp_path):
    op, parameters, options = CASES[case]
    options = {"noise": 0.1, "n": 3, "sampler": "diffpir", "steps": 2, "seed": 5, **options}
    result = restore(photo(2, 3, H, W), op, NET, **parameters, **options)
    assert result.save(tmp_path / "out.npz") == [tmp_path / "out.npz"]

    saved = np.load(tmp_path / "out.npz")  # no pickle
    run = json.loads(str(saved["run"]))
    for name in ("samples", "mean", "std"):
        np.testing.assert_array_equal(saved[name], getattr(result, name))
    noise = torch.from_numpy(saved["noise"]) if saved["noise"].ndim else float(saved["noise"])
    measurement = Measurement(torch.from_numpy(saved["y"]), build(saved, run), noise)
    again = genprior.restore(
        measurement, prior=NET, sampler=sampler_of(run["sampler"]), n=run["n"], seed=run["seed"], progress=False
    )
    assert torch.equal(again.samples, result.samples)


def test_npz_without_draws_has_the_picture_and_what_made_it(tmp_path):
    """And with draws both methods, from which each comes again."""
    for n in (None, 2):
        result = restore(photo(2, 3, H, W), "denoise", NET, seed=5, n=n, steps=2)
        result.save(tmp_path / "a.npz", overwrite=True)
        saved = np.load(tmp_path / "a.npz")
        run = json.loads(str(saved["run"]))
        assert {"samples", "std"} & set(saved) == ({"samples", "std"} if n else set())
        np.testing.assert_array_equal(saved["mean"], result.mean)
        assert run["n"] == result.n == (n or 0)
        assert sampler_of(run["estimator"]) == result.estimator
        again = genprior.restore(
            Measurement(torch.from_numpy(saved["y"]), build(saved, run), float(saved["noise"])),
            prior=NET,
            sampler=sampler_of(run["estimator"]),
            progress=False,
        )
        assert torch.equal(again.mean, result.mean)
        assert (run["sampler"] is None) == (n is None)
        assert n is None or sampler_of(run["sampler"]) == result.sampler
        # 1 for E[x | y], and of each draw 2 steps of 2
        assert run["network_evaluations"] == result.network_evaluations == 1 + 4 * (n or 0)


def test_diagnostics_are_of_the_draws_or_else_of_the_picture():
    for n, shape in ((None, (1,)), (3, (3,))):
        result = restore(photo(1, H, W), n=n)
        for figures in result.diagnostics.values():
            assert figures.shape == shape
        left = result.mean[None] if n is None else result.samples
        residual = ((result.measurement.y - left) / 0.1).square().flatten(1).mean(1).sqrt()
        torch.testing.assert_close(result.diagnostics["residual"], residual, check_dtype=False)
        assert restore(photo(2, 1, H, W), n=n).diagnostics["residual"].shape == (2, *shape)


def test_npz_keeps_the_tile_where_it_makes_a_difference(tmp_path):
    """Of a denoiser that sees all of an image, every tile has its own mean."""
    prior = genprior.from_denoiser(lambda x_t, sigma: (x_t + x_t.mean((2, 3), keepdim=True)) / 2, (1, None, None))
    img, options = photo(1, 20, 150), {"sampler": "diffpir", "steps": 2}
    result, whole = restore(img, prior=prior, tile=144, **options), restore(img, prior=prior, **options)
    assert (result.samples - whole.samples).abs().max() > 1e-4
    for each, tile in ((result, 144), (whole, None)):
        each.save(tmp_path / "a.npz", overwrite=True)
        assert json.loads(str(np.load(tmp_path / "a.npz")["run"]))["tile"] == each.tile == tile
        assert torch.equal(restore(img, prior=prior, tile=each.tile, **options).samples, each.samples)


def test_npz_names_the_prior_and_a_hash_that_changes_with_its_weights(tmp_path):
    image = photo(1, 28, 28)
    restore(image, "denoise", "gaussian-mnist").save(tmp_path / "a.npz")
    run = json.loads(str(np.load(tmp_path / "a.npz")["run"]))
    prior = genprior.load_prior("gaussian-mnist")
    assert (run["prior"]["name"], run["prior"]["class"], run["prior"]["label"]) == ("gaussian-mnist", "Gaussian", None)
    assert run["prior"]["weights_sha256"] == record.weights_hash(prior.state_dict())
    assert run["versions"]["genprior"] == genprior.__version__
    state = prior.state_dict()
    key = next(iter(state))
    changed = state | {key: state[key].clone()}
    changed[key].view(-1)[0] += 1
    assert record.weights_hash(changed) != run["prior"]["weights_sha256"]
    weights = {"k": torch.rand(2, 3, 4, 5)}
    assert record.weights_hash(weights) == record.weights_hash(
        {"k": weights["k"].to(memory_format=torch.channels_last)}
    )


def test_npz_keeps_the_label_and_diagnostics(tmp_path):
    prior = DDPM((1, H, W), widths=(8, 8), blocks=1, classes=3).eval()
    result = restore(photo(1, H, W), "denoise", prior, label=2, sampler="smc", steps=2, n=4)
    result.save(tmp_path / "a.npz")
    saved = np.load(tmp_path / "a.npz")
    assert json.loads(str(saved["run"]))["prior"]["label"] == 2
    assert result.diagnostics
    for name, figures in result.diagnostics.items():
        np.testing.assert_array_equal(saved[f"diagnostics.{name}"], figures)


def test_npz_is_not_overwritten_unless_told(tmp_path):
    result = restore(photo(2, 1, H, W), n=2)
    result.save(tmp_path / "a.npz")
    before = (tmp_path / "a.npz").read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        restore(photo(2, 1, H, W, seed=1), n=2).save(tmp_path / "a.npz")
    assert (tmp_path / "a.npz").read_bytes() == before
    assert result.save(tmp_path / "a.npz", overwrite=True) == [tmp_path / "a.npz"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_operators_made_of_operators_are_described_whole():
    inner = operators.Blur(gaussian_kernel(0.7), (1, 12, 12), "circular")
    described, arrays = record.of_operator(operators.Inpaint(torch.zeros(12, 12).bool(), (1, 12, 12)) @ inner)
    assert described["inner"]["class"] == "Blur"
    assert described["outer"]["class"] == "Inpaint"
    assert arrays["inner.kernel"].shape == (1, 7, 7)
    assert arrays["outer.mask"].shape == (1, 1, 12, 12)


def test_what_the_documentation_says_draws_the_same_samples_again(tmp_path, monkeypatch):
    page = (Path(__file__).parent.parent / "docs" / "inputs.md").read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "np.load" in block)
    mask = random_mask((28, 28), 0.4, seed=3)[0].numpy()
    result = restore(photo(1, 28, 28), "inpaint", "ddpm-mnist", mask=mask, n=2, steps=2, sampler="mmps")
    monkeypatch.chdir(tmp_path)
    result.save("out.npz")
    names = {}
    exec(code, names)
    assert torch.equal(names["again"].samples, result.samples)
    # and every key is documented
    keys = {"diagnostics.NAME" if key.startswith("diagnostics.") else key for key in np.load("out.npz")}
    told = re.findall(r"`([\w.]+)`", page[page.index("## Draw it again") :])
    assert keys <= set(told)
    assert set(json.loads(str(np.load("out.npz")["run"]))) | set(names["run"]["prior"]) <= set(told)

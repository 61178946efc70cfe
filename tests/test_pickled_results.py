"""Results go between processes and to files, without the network."""

import copy
import json
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import genprior
from genprior.operators import Blur, gaussian_kernel

SHAPE = (1, 12, 12)


def image(seed=0):
    return 0.5 + 0.1 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def prior():
    return genprior.Gaussian(torch.full(SHAPE, 0.5), torch.full(SHAPE, 0.01))


def as_pil():
    return Image.fromarray(np.uint8(255 * image()[0].clamp(0, 1)))


GIVEN = {
    "tensor": lambda: (image(), "denoise"),
    "array": lambda: (image()[0].numpy(), "denoise"),
    "PIL image": lambda: (as_pil(), "denoise"),
    "list": lambda: ([image(), as_pil()], "denoise"),
    "tensor and operator": lambda: (image(), Blur(gaussian_kernel(0.5), SHAPE, "circular")),
    "array and operator": lambda: (image().numpy()[None], Blur(gaussian_kernel(0.5), SHAPE, "circular")),
    "measurement": lambda: (genprior.degrade(image(), "denoise", noise=0.1, seed=0), "inpaint"),
}


def restored(name, n):
    img, op = GIVEN[name]()
    return genprior.restore(img, op, prior(), n=n, noise=0.1, seed=0, progress=False)


def same_image(one, other):
    assert type(one) is type(other)
    if isinstance(one, list):
        assert len(one) == len(other)
        return all(map(same_image, one, other))
    return np.array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("copied", [lambda r: pickle.loads(pickle.dumps(r)), copy.deepcopy], ids=["pickle", "deepcopy"])
@pytest.mark.parametrize(("name", "n"), [*((name, 3) for name in GIVEN), ("array", None), ("list", None)])
def test_a_result_survives_whole_but_for_its_prior(name, n, copied, tmp_path):
    result = restored(name, n)
    same = copied(result)
    assert same.n == result.n == (n or 0)
    if n:
        assert torch.equal(same.samples, result.samples)
        assert torch.equal(same.std, result.std)
    assert torch.equal(same.mean, result.mean)
    assert (same.sampler, same.estimator) == (result.sampler, result.estimator)
    assert same_image(same.image, result.image)
    assert same.prior is None
    assert str(same) == str(result)
    again = copied(same)
    for number, one in enumerate((result, same, again)):
        one.save(tmp_path / f"{number}.npz")
    runs = [json.loads(str(np.load(tmp_path / f"{number}.npz")["run"])) for number in range(3)]
    assert runs[0] == runs[1] == runs[2]
    assert runs[2]["prior"]["weights_sha256"]


HOLES = {
    "tensor": lambda: image(),
    "array": lambda: image()[0].numpy(),
    "PIL image": as_pil,
    "list": lambda: [image(), as_pil()],
}


@pytest.mark.parametrize("copied", [lambda r: pickle.loads(pickle.dumps(r)), copy.deepcopy], ids=["pickle", "deepcopy"])
@pytest.mark.parametrize("name", HOLES)
def test_a_result_with_known_pixels_survives(name, copied):
    options = {"mask": np.eye(12) > 0, "noise": 0, "seed": 0, "progress": False}
    result = genprior.restore(HOLES[name](), "inpaint", prior(), n=1, **options)
    same = copied(result)
    assert torch.equal(same.samples, result.samples)
    assert torch.equal(same.mean, result.mean)
    assert same_image(same.image, result.image)


def test_a_result_does_not_carry_the_network():
    network = torch.nn.Conv2d(1, 1000, 11)

    class Denoiser(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x_t, sigma):
            return 0.5 + (x_t - 0.5) / (1 + 100 * sigma**2)

    given = genprior.from_denoiser(Denoiser(), SHAPE)
    result = genprior.restore(image(), "denoise", given, noise=0.1, seed=0, progress=False)
    assert sum(4 * p.numel() for p in network.parameters()) > 400_000
    assert len(pickle.dumps(result)) < 50_000
    assert result.prior is given


def test_what_was_given_may_change_afterwards():
    y, A = image(), Blur(gaussian_kernel(0.5), SHAPE, "circular")
    measurement = genprior.Measurement(y[None].clone(), A, 0.1)
    results = [
        genprior.restore(y, A, prior(), noise=0.1, seed=0),
        genprior.restore(y, "denoise", prior(), noise=0.1, seed=0),
        genprior.restore(y.numpy(), A, prior(), noise=0.1, seed=0),
        genprior.restore(measurement, prior=prior(), seed=0),
    ]
    degraded = genprior.degrade(y, "denoise", seed=0)
    before = y.clone()
    y.zero_()
    measurement.y.zero_()
    for measured in [result.measurement for result in results] + [degraded]:
        assert torch.equal(measured.y[0], before)


def restored_elsewhere(given):
    img, op = given
    return genprior.restore(img, op, prior(), n=2, noise=0.1, seed=3, progress=False)


def test_results_come_out_of_a_pool_of_processes():
    jobs = [(image(1), Blur(gaussian_kernel(0.5), SHAPE, "circular")), (image(2).numpy()[0], "denoise")]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for job, result in zip(jobs, pool.map(restored_elsewhere, jobs)):
            here = restored_elsewhere(job)
            torch.testing.assert_close(result.samples, here.samples)
            torch.testing.assert_close(result.mean, here.mean)

"""How much is worked on at once, and how much memory it took."""

import pytest
import torch

from genprior import devices
from genprior.operators import Blur, blur, motion_kernel

CPU = torch.device("cpu")


def test_as_many_images_as_their_pixels_fit_whatever_their_channels(monkeypatch):
    monkeypatch.setitem(devices.PIXELS_AT_ONCE, "cpu", 1000)
    assert devices.rows_at_once((1, 10, 20), CPU) == devices.rows_at_once((3, 10, 20), CPU) == 5
    assert devices.rows_at_once((1, 10, 34), CPU) == 2


def test_an_image_that_does_not_fit_is_worked_on_alone(monkeypatch):
    monkeypatch.setitem(devices.PIXELS_AT_ONCE, "cpu", 1000)
    assert devices.rows_at_once((3, 4000, 4000), CPU) == 1


def test_a_gpu_is_filled_to_half_of_what_is_free_with_what_torch_keeps_for_reuse(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (3 * 10**9, 16 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 4 * 10**9)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 3 * 10**9)
    # half of 3 + (4 - 3) GB at 10 kB a pixel
    assert devices.rows_at_once((3, 100, 100), torch.device("cuda")) == 20


def test_devices_whose_memory_is_not_known_have_a_number_of_their_own():
    assert devices.pixels_at_once(torch.device("mps")) == devices.PIXELS_AT_ONCE["mps"]
    assert devices.pixels_at_once(torch.device("meta")) == devices.pixels_at_once(CPU)


def test_tiles_are_as_large_as_fits_but_not_mostly_overlap(monkeypatch):
    assert devices.tile_side(CPU) == 1024
    assert devices.tile_side(torch.device("mps")) == 724  # the root of 2^19
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 0)
    for free, side in ((80 * 10**9, 2000), (2 * 10**9, 512)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, free))
        assert devices.tile_side(torch.device("cuda")) == side


@pytest.mark.parametrize("angles", [(20.0, 70.0), (0.0, 90.0)], ids=["oblique", "separable"])
@pytest.mark.parametrize("boundary", ["valid", "circular"])
def test_large_images_are_blurred_channel_by_channel_alike(boundary, angles, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    kernels = torch.stack([motion_kernel(5, angle) for angle in angles])
    A = Blur(kernels, (3, 14, 17), boundary)
    x = torch.rand(2, 3, 14, 17, generator=generator, dtype=torch.float64).requires_grad_()
    y = torch.rand(2, *A.measurement_shape, generator=generator, dtype=torch.float64)
    c = torch.tensor([0.1, 0.01], dtype=torch.float64).reshape(2, 1, 1, 1)

    def results():
        Ax = A(x)
        return Ax, A.adjoint(y), A.solve(y, c), A.prox(x, y, 1 / c), *torch.autograd.grad(Ax, x, y)

    whole = results()
    monkeypatch.setattr(blur, "LARGE", 1)
    channels, own = [], Blur._filter
    monkeypatch.setattr(Blur, "_filter", lambda A, gain, x: channels.append(x.shape[1]) or own(A, gain, x))
    for part, expected in zip(results(), whole):
        torch.testing.assert_close(part, expected, rtol=1e-10, atol=1e-12)
    assert channels[:6] == [1] * 6  # forward and back


def test_peak_memory_of_the_cpu_grows_with_what_is_held():
    before = devices.peak_memory(CPU)
    held = torch.ones(64 * 2**18)  # 64 MiB beyond all that was ever held, unless more was and is free again
    after = devices.peak_memory(CPU)
    assert before <= after
    assert after >= held.numel() * 4 / 2**20

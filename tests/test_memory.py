"""How much is worked on at once, and how much memory it took."""

import torch

from genprior import memory

CPU = torch.device("cpu")


def test_as_many_images_as_their_pixels_fit_whatever_their_channels(monkeypatch):
    monkeypatch.setitem(memory.PIXELS_AT_ONCE, "cpu", 1000)
    assert memory.rows_at_once((1, 10, 20), CPU) == memory.rows_at_once((3, 10, 20), CPU) == 5
    assert memory.rows_at_once((1, 10, 34), CPU) == 2


def test_an_image_that_does_not_fit_is_worked_on_alone(monkeypatch):
    monkeypatch.setitem(memory.PIXELS_AT_ONCE, "cpu", 1000)
    assert memory.rows_at_once((3, 4000, 4000), CPU) == 1


def test_a_gpu_is_filled_to_half_of_what_is_free_with_what_torch_keeps_for_reuse(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (3 * 10**9, 16 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 4 * 10**9)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 3 * 10**9)
    # half of 3 + (4 - 3) GB at 10 kB a pixel
    assert memory.rows_at_once((3, 100, 100), torch.device("cuda")) == 20


def test_devices_whose_memory_is_not_known_have_a_number_of_their_own():
    assert memory.pixels_at_once(torch.device("mps")) == memory.PIXELS_AT_ONCE["mps"]
    assert memory.pixels_at_once(torch.device("meta")) == memory.pixels_at_once(CPU)


def test_peak_memory_of_the_cpu_grows_with_what_is_held():
    before = memory.peak_memory(CPU)
    held = torch.ones(64 * 2**18)  # 64 MiB beyond all that was ever held, unless more was and is free again
    after = memory.peak_memory(CPU)
    assert before <= after
    assert after >= held.numel() * 4 / 2**20

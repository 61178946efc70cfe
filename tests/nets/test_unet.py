"""The U-Net: zero at first, any size, rows of a batch apart, labels heard."""

import pytest
import torch

from genprior.nets.unet import UNet


def awake(**arguments):
    """A network whose layers, zero at initialisation, are random, so that what reaches its output can be seen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = UNet(**({"channels": 2, "widths": (8, 8), "blocks": 1, "patch": 1} | arguments)).double()
        for parameter in net.parameters():
            if not parameter.any():
                parameter.data.normal_(std=0.2)
    return net.requires_grad_(False)


def images(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


LEVEL = torch.tensor([-0.7, 0.1, 0.6], dtype=torch.float64)


def test_output_is_zero_at_initialisation():
    x = images(3, 2, 8, 8).float()
    assert not UNet(2, (8, 8), 1, 2)(x, LEVEL.float()).any()
    assert awake(patch=2)(x.double(), LEVEL).abs().min() > 0


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (8, 8), (9, 16)])
def test_any_size_is_the_corner_of_its_mirrored_continuation(size, patch):
    """The output has the input's size, and is that of the image continued to whole cells as in a mirror."""
    net = awake(patch=patch)
    x = images(3, 2, *size)
    cell = 2 * patch
    mirror = [list(range(n)) + list(range(n - 1, -1, -1)) for n in size]
    rows, columns = ((4 * m)[: -(-n // cell) * cell] for m, n in zip(mirror, size))
    whole = net(x[:, :, rows][..., columns], LEVEL)
    assert torch.equal(net(x, LEVEL), whole[..., : size[0], : size[1]])


def test_network_commutes_with_shifts_by_whole_cells():
    """What makes it fully convolutional; away from the border, which zero padding tells apart."""
    net = awake(patch=2)
    x = images(1, 2, 96, 96)
    shifted = x.roll((4, 8), (2, 3))
    here, there = net(x, LEVEL[:1]), net(shifted, LEVEL[:1])
    inner = (..., slice(44, 52), slice(44, 52))
    torch.testing.assert_close(here.roll((4, 8), (2, 3))[inner], there[inner], rtol=0, atol=1e-12)
    assert here[inner].std() > 0.01


def test_rows_of_a_batch_do_not_see_each_other():
    net = awake(classes=3)
    x, label = images(3, 2, 6, 5), torch.tensor([2, 0, 3])
    together = net(x, LEVEL, label)
    for k in range(3):
        alone = net(x[k : k + 1], LEVEL[k : k + 1], label[k : k + 1])
        torch.testing.assert_close(alone, together[k : k + 1], rtol=0, atol=1e-12)  # float64, sums of ~100 terms


def test_level_and_label_change_the_output():
    net = awake(classes=3)
    x = images(1, 2, 6, 5)
    levels = [net(x, LEVEL[k : k + 1], torch.tensor([0])) for k in range(3)]
    labels = [net(x, LEVEL[:1], torch.tensor([k])) for k in range(4)]  # three classes and none
    for outputs in (levels, labels):
        assert min((a - b).abs().max() for i, a in enumerate(outputs) for b in outputs[:i]) > 1e-3


def test_every_weight_is_used():
    net = awake(classes=1, widths=(8, 8, 8), blocks=2, patch=2).requires_grad_(True)
    net(images(3, 2, 16, 16), LEVEL, torch.tensor([0, 1, 1])).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []

"""Monte-Carlo bounds hold with probability > 1 - 1e-6 for an ideal generator; seeds are fixed, so outcomes are too."""

import math

import pytest
import torch

from genprior.noise import Noise, philox

N = 3 * 64 * 64
# A mean of N independent terms of variance v lies within 5 sqrt(v / N) of its expectation.
BOUND = 5 / math.sqrt(N)


def image(rows=1, shape=(3, 64, 64), dtype=torch.float64):
    return torch.zeros(rows, *shape, dtype=dtype)


def correlation(a, b):
    return float(((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std()))


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_published_words(counter, key, words):
    out = philox(tuple(torch.tensor([c]) for c in counter), tuple(key))
    assert [int(w) for w in out] == words


def test_noise_is_box_muller_of_the_philox_words():
    image_number, sample, step, seed = 7, 5, 1, (3 << 32) + 11
    noise = Noise(seed, [image_number], [sample])
    noise(image())
    n = noise(torch.zeros(1, 8, dtype=torch.float64))
    for i in range(2):
        words = philox(tuple(torch.tensor([w]) for w in (i, step, sample, image_number)), (11, 3))
        u1, v1, u2, v2 = [(int(w) + 0.5) / 2**32 for w in words]
        r1, r2 = math.sqrt(-2 * math.log(u1)), math.sqrt(-2 * math.log(u2))
        t1, t2 = 2 * math.pi * v1, 2 * math.pi * v2
        expected = [r1 * math.cos(t1), r1 * math.sin(t1), r2 * math.cos(t2), r2 * math.sin(t2)]
        assert n[0, 4 * i : 4 * i + 4].tolist() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("draw", [Noise.__call__, Noise.uniform])
def test_row_of_a_batch_equals_the_row_alone(draw):
    batch = Noise(1, [4, 4, 9], [0, 1, 1])
    alone = Noise(1, [4], [1])
    for _ in range(3):
        assert torch.equal(draw(batch, image(3))[1], draw(alone, image(1))[0])


def test_selected_rows_go_on_from_the_same_step():
    whole = Noise(1, [4, 4, 9], [0, 1, 1])
    whole(image(3))
    part = whole.select(torch.tensor([2, 1]))
    assert torch.equal(part(image(2)), whole(image(3))[[2, 1]])


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 1, 200, 200), (2, 2**17)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_made_ahead_are_those_made_one_by_one(shape, dtype):
    """A part is made anew for each step, and makes nothing ahead; calls of other kinds come between."""
    noise, like = Noise(1, [4, 2], [0, 7]), torch.zeros(shape, dtype=dtype)
    for k in range(24):
        part = noise.select(torch.tensor([0, 1]))
        if k in (3, 13, 14):
            assert torch.equal(noise.uniform(like), part.uniform(like))
        elif k in (9, 20):
            assert torch.equal(noise(like[:, :1]), part(like[:, :1]))
        else:
            assert torch.equal(noise(like), part(like))


def test_no_more_steps_are_made_ahead_than_were_asked_for_in_a_row(monkeypatch):
    made = []

    def counted(counter, key):
        made.append(counter[1].flatten().tolist())
        return philox(counter, key)

    monkeypatch.setattr("genprior.noise.philox", counted)
    noise = Noise(0, [0])
    for _ in range(20):
        noise(torch.zeros(1, 8))
    for _ in range(2):
        noise(torch.zeros(1, 4))
        noise(torch.zeros(1, 8))
    assert [len(steps) for steps in made] == [1, 2, 4, 8, 8, 1, 1, 1, 1]
    assert [steps[0] for steps in made] == [0, 1, 3, 7, 15, 20, 21, 22, 23]


@pytest.mark.parametrize("draw", [Noise.__call__, Noise.uniform])
def test_cloud_is_all_samples_of_the_image_of_a_row_from_the_same_step_on(draw):
    whole, samples = Noise(1, [4, 9, 4], [0, 1, 7]), Noise(1, [9] * 3, [0, 1, 2])
    draw(whole, image(3))
    draw(samples, image(3))
    cloud = whole.cloud(torch.tensor([1]), torch.tensor([0]), 3)
    for _ in range(3):
        assert torch.equal(draw(cloud, image(3)), draw(samples, image(3)))
    assert whole.step == 1


def test_sample_is_0_by_default():
    assert torch.equal(Noise(1, [4, 2])(image(2)), Noise(1, [4, 2], [0, 0])(image(2)))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda: Noise(2, [0])(image()), id="seed"),
        pytest.param(lambda: Noise(1 + 2**32, [0])(image()), id="high half of the seed"),
        pytest.param(lambda: Noise(1, [1])(image()), id="image"),
        pytest.param(lambda: Noise(1, [0], [1])(image()), id="sample"),
        pytest.param(lambda: [noise := Noise(1, [0]), noise(image()), noise(image())][-1], id="step"),
    ],
)
def test_other_seeds_images_samples_and_steps_are_uncorrelated(other):
    a, b = Noise(1, [0])(image()), other()
    assert abs(correlation(a, b)) < BOUND
    assert abs(correlation(a**2, b**2)) < BOUND


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 64, 4096])
def test_neighbouring_elements_are_uncorrelated(lag):
    n = Noise(3, [0])(image()).flatten()
    bound = 5 / math.sqrt(N - lag)
    assert abs(correlation(n[:-lag], n[lag:])) < bound
    assert abs(correlation(n[:-lag] ** 2, n[lag:] ** 2)) < bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_standard_normal(dtype):
    n = Noise(5, range(8))(image(8, dtype=dtype)).double().flatten().sort().values
    count = len(n)
    # Dvoretzky, Kiefer, Wolfowitz: the distance of the distributions exceeds d with probability 2 exp(-2 count d^2).
    d = math.sqrt(math.log(2 / 1e-6) / 2 / count)
    law = torch.special.ndtr(n)
    grid = torch.arange(count + 1) / count
    assert max((law - grid[:-1]).abs().max(), (law - grid[1:]).abs().max()) < d
    # Moments of N(0, 1): 0, 1, 0, 3, their estimates of variance 1, 2, 15, 96 over count.
    for power, (moment, variance) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], start=1):
        assert float((n**power).mean()) == pytest.approx(moment, abs=5 * math.sqrt(variance / count))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_noise_is_uniform_and_never_0_or_1(dtype):
    u = Noise(5, range(8)).uniform(image(8, dtype=dtype)).double().flatten().sort().values
    assert u[0] > 0
    assert u[-1] < 1
    d = math.sqrt(math.log(2 / 1e-6) / 2 / len(u))
    assert (u - torch.arange(len(u)) / len(u)).abs().max() < d


def test_uniform_noise_is_open_at_the_extreme_words(monkeypatch):
    words = torch.tensor([[0, 0xFFFFFFFF]])
    monkeypatch.setattr("genprior.noise.philox", lambda counter, key: (words,) * 4)
    for dtype in (torch.float32, torch.float64):
        u = Noise(0, [0]).uniform(torch.zeros(1, 8, dtype=dtype))
        assert float(u.min()) > 0
        assert float(u.max()) < 1
        assert Noise(0, [0])(torch.zeros(1, 8, dtype=dtype)).isfinite().all()


@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 3, 7), (2, 3, 3)])
def test_sizes_that_4_does_not_divide_are_the_start_of_longer_noise(shape):
    n = Noise(2, [0, 1])(torch.zeros(2, *shape))
    longer = Noise(2, [0, 1])(torch.zeros(2, 24))
    assert n.shape == (2, *shape)
    assert torch.equal(n.reshape(2, -1), longer[:, : math.prod(shape)])


def test_float32_noise_is_float64_noise_rounded():
    a, b = Noise(2, [0])(image(dtype=torch.float32)), Noise(2, [0])(image())
    # The uniforms differ by at most 2^-23, the angles by 2 pi 2^-23 = 8e-7; log magnifies that only near u = 0.
    assert a.dtype == torch.float32
    assert float((a - b).abs().median()) < 1e-6


def test_noise_leaves_the_global_random_state_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = Noise(0, [0])(image())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(Noise(0, [0])(image()), first)


@pytest.mark.parametrize("seed", [-1, 2**64, 0.5, None])
def test_a_seed_out_of_range_is_named(seed):
    with pytest.raises(ValueError, match=rf"seed is {seed}.*2\*\*64"):
        Noise(seed, [0])


def test_seeds_reach_the_whole_range():
    assert not torch.equal(Noise(2**64 - 1, [0])(image()), Noise(2**63 - 1, [0])(image()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Noise(0, [-1]), r"image numbers \[-1\].*2\*\*32"),
        (lambda: Noise(0, [0], [2**32]), r"sample numbers \[4294967296\]"),
        (lambda: Noise(0, [0.5]), r"image is \[0.5\]"),
        (lambda: Noise(0, [0, 1], [0]), "2 image numbers but 1 sample numbers"),
        (lambda: Noise(0, [0])(image(2)), "noise for 1 rows"),
        (lambda: Noise(0, [0])(image(dtype=torch.int64)), "torch.int64"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_numbers_on_a_device_are_not_waited_for():
    """Reading a value of a tensor on the meta device, which has none, is an error."""
    noise = Noise(0, torch.zeros(2, dtype=torch.int64, device="meta"))
    assert noise(torch.empty(2, 3, device="meta")).shape == (2, 3)
    with pytest.raises(ValueError, match="out of range"):
        Noise(0, torch.tensor([0, 2**32]))


@pytest.mark.parametrize("n", [0, -1, 2.0, True, "2", None])
def test_other_numbers_of_draws_are_refused(n):
    with pytest.raises(ValueError, match=r"n is .*: give the number of draws, an integer, at least 1"):
        Noise.of_draws(n, 0)

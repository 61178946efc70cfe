"""Training data: an item is a function of (seed, item number); every epoch visits every image once."""

import itertools
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from genprior.training import data as data_module
from genprior.training.data import Arrays, Photos, first, item_numbers


def save(path, array):
    Image.fromarray(np.asarray(array, dtype=np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path):
    """Five photographs of noise, the k-th within 10 values of 50 k, so that a crop tells where it is from."""
    rng = np.random.default_rng(0)
    for k in range(5):
        save(tmp_path / f"{k}.png", 50 * k + rng.integers(0, 10, (9 + k, 12, 3)))
    return tmp_path


@pytest.fixture
def ramp(tmp_path):
    """One photograph whose red is the row and green the column of the pixel."""
    i, j = np.mgrid[:20, :30]
    save(tmp_path / "ramp.png", np.stack([i, j, 0 * i], axis=2))
    return tmp_path


def source(example):
    return round(float(example["x"].mean()) * 255) // 50


def test_item_is_the_same_in_any_order(photos):
    forward, backward = Photos(photos, 8, seed=3), Photos(photos, 8, seed=3)
    there = [forward[i] for i in range(23)]
    back = [backward[i] for i in reversed(range(23))][::-1]
    assert all(torch.equal(a["x"], b["x"]) and a["item"] == b["item"] == i for i, (a, b) in enumerate(zip(there, back)))


def test_seed_and_item_change_the_crop(ramp):
    crops = [Photos(ramp, 8, seed=seed, shrink=1.0, grey=0.0)[item]["x"] for seed in (0, 1) for item in range(20)]
    assert len({crop.numpy().tobytes() for crop in crops}) == 40


def test_photos_travel_to_worker_processes(photos):
    data = Photos(photos, 8)
    assert torch.equal(pickle.loads(pickle.dumps(data))[7]["x"], data[7]["x"])


def test_every_epoch_visits_every_photo_once_in_an_order_of_its_own(photos):
    data = Photos(photos, 8, seed=1, shrink=0.0)
    epochs = [[source(data[5 * epoch + k]) for k in range(5)] for epoch in range(6)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_crops_are_squares_of_the_photo_flipped_and_turned_eight_ways(ramp):
    data = Photos(ramp, 8, shrink=0.0, grey=0.0)
    ways = Counter()
    for item in range(400):
        rows, columns, blue = (data[item]["x"] * 255).round().int()
        top, left = int(rows.min()), int(columns.min())
        assert 0 <= top <= 20 - 8
        assert 0 <= left <= 30 - 8
        i, j = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
        assert {*zip(rows.flatten().tolist(), columns.flatten().tolist())} == {
            *zip((i + top).flatten().tolist(), (j + left).flatten().tolist())
        }
        assert not blue.any()
        ways[tuple((int(rows[0, b]) - top, int(columns[0, b]) - left) for b in (0, 7))] += 1
    # Binomial: 50 of 400 each, sd 6.6; four of them.
    assert len(ways) == 8
    assert 50 - 27 <= min(ways.values()) <= max(ways.values()) <= 50 + 27


def test_crops_reach_every_edge_of_the_photo(ramp):
    data = Photos(ramp, 8, shrink=0.0, grey=0.0)
    corners = [(data[item]["x"] * 255).round().int().flatten(1).min(1).values.tolist()[:2] for item in range(400)]
    # Of 13 x 23 positions 400 draws miss a given row with probability (12/13)^400 = 1e-14, a column with 2e-8.
    assert {top for top, _ in corners} == set(range(13))
    assert {left for _, left in corners} == set(range(23))


def test_shrunk_crops_lie_in_the_photo_and_span_up_to_twice_their_size(ramp):
    data = Photos(ramp, 8, shrink=1.0, grey=0.0)
    spans = []
    for item in range(300):
        x = data[item]["x"] * 255
        assert x.shape == (3, 8, 8)
        assert -0.5 <= x[0].min() <= x[0].max() <= 19.5
        assert -0.5 <= x[1].min() <= x[1].max() <= 29.5
        spans.append(float(x[0].max() - x[0].min()))
    # Seven steps of the factor in [1, 2], ends within a pixel of rounding and of the filter at the crop's border.
    assert 6 <= min(spans) < 8
    assert 12.5 < max(spans) <= 15
    assert 8.8 < np.mean(spans) < 11.2


def test_a_fraction_of_crops_is_shrunk(ramp):
    data = Photos(ramp, 8, shrink=0.25, grey=0.0)
    plain = sum(
        float((x := data[item]["x"] * 255)[0].max() - x[0].min()) == pytest.approx(7, abs=0.01) for item in range(400)
    )
    # Binomial: 300 of 400, sd sqrt(400 / 4 * 3 / 4) = 8.7; three of them. Factors below 1.1 can look plain: 10 more.
    assert 274 <= plain <= 336


def test_a_fraction_of_crops_is_grey(ramp):
    data = Photos(ramp, 8, grey=0.25)
    grey = sum(bool((x[0] == x[1]).all() and (x[0] == x[2]).all()) for x in (data[item]["x"] for item in range(400)))
    assert 100 - 26 <= grey <= 100 + 26  # binomial, three standard deviations of 8.7


def test_grey_photos_have_one_channel_of_luminance(ramp):
    x = Photos(ramp, 8, channels=1, augment=False)[0]["x"] * 255
    i, j = torch.meshgrid(torch.arange(6.0, 14), torch.arange(11.0, 19), indexing="ij")
    assert x.shape == (1, 8, 8)
    # Rec. 601, rounded to 8 bits
    torch.testing.assert_close(x[0], 0.299 * i + 0.587 * j, rtol=0, atol=0.51)


def test_validation_crops_are_the_centres_in_order(ramp):
    save(ramp / "a.png", np.full((8, 9, 3), 200))
    data = Photos(ramp, 8, augment=False)
    assert (data[0]["x"] * 255).round().unique().tolist() == [200]
    rows, columns, _ = (data[1]["x"] * 255).round().int()
    assert (rows[:, 0].tolist(), columns[0].tolist()) == (list(range(6, 14)), list(range(11, 19)))


def test_bad_photos_are_refused_with_their_path_before_training_starts(photos):
    with pytest.raises(ValueError, match=r"0\.png is 12 x 9, smaller than crops of 10 x 10; remove it"):
        Photos(photos, 10)
    (photos / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.png is not an image that can be read"):
        Photos(photos, 8)
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(photos / "broken.png")
    with pytest.raises(ValueError, match=r"broken\.png has the mode I;16"):
        Photos(photos, 8)


def test_truncated_photo_is_named(photos):
    path = photos / "0.png"
    path.write_bytes(path.read_bytes()[:200])
    data = Photos(photos, 8, augment=False)
    with pytest.raises(ValueError, match=r"0\.png is damaged"):
        data[0]


def test_decoded_photos_are_kept_within_a_budget_of_bytes(photos, monkeypatch):
    decode, decoded = data_module._decode, []
    monkeypatch.setattr(data_module, "_decode", lambda path, mode: decoded.append(path.stem) or decode(path, mode))
    expected = [Photos(photos, 8, augment=False)[k]["x"] for k in range(5)]
    # Photograph k is 12 x (9 + k) pixels of four bytes: there is room for the first two, and no more.
    monkeypatch.setattr(data_module, "DECODED_BYTES", 12 * (9 + 10) * 4)
    data = Photos(photos, 8, augment=False)
    decoded.clear()
    for _ in range(3):
        assert all(torch.equal(data[k]["x"], expected[k]) for k in range(5))
    assert Counter(decoded) == {"0": 1, "1": 1, "2": 3, "3": 3, "4": 3}


def test_first_images_are_stacked_in_order(photos):
    data = Photos(photos, 8, augment=False)
    assert torch.equal(first(data, 2), torch.stack([data[0]["x"], data[1]["x"]]))
    assert len(first(data, 64)) == 5


def test_folder_without_photos_and_odd_channels_are_refused(tmp_path, ramp):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="No images found in"):
        Photos(tmp_path / "empty")
    with pytest.raises(ValueError, match="channels is 2: give 3 for RGB or 1 for grey"):
        Photos(ramp, 8, channels=2)


# ---- npz ----


@pytest.fixture
def digits(tmp_path):
    x = np.arange(6, dtype=np.uint8)[:, None, None] * 40 + np.arange(12, dtype=np.uint8).reshape(3, 4)
    path = tmp_path / "digits.npz"
    np.savez(path, x=x, y=np.arange(6) + 10, reals=x / 255.0, fewer=np.arange(5), colour=np.stack([x, x, x], 3))
    return path


def test_arrays_give_images_and_labels_in_order(digits):
    data = Arrays(digits, "x", "y", keep=slice(2, 6), seed=None)
    for k in range(4):
        expected = (40 * (k + 2) + torch.arange(12.0).reshape(1, 3, 4)) / 255
        assert torch.equal(data[k]["x"], expected)
        assert torch.equal(data[k + 4]["x"], expected)
        assert data[k]["label"] == k + 12
    assert len(data) == 4
    assert "label" not in Arrays(digits, "x")[0]
    assert Arrays(digits, "colour")[0]["x"].shape == (3, 3, 4)


def test_every_epoch_visits_every_array_once_with_its_label(digits):
    data = Arrays(digits, "x", "y", seed=4)
    epochs = [[data[6 * epoch + k] for k in range(6)] for epoch in range(4)]
    orders = [[int(e["label"]) - 10 for e in epoch] for epoch in epochs]
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert all(round(float(e["x"][0, 0, 0]) * 255) == 40 * (e["label"] - 10) for epoch in epochs for e in epoch)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("z",), "it has no array z, only x, y, reals, fewer, colour"),
        (("x", "z"), "it has no array z"),
        (("reals",), r"'reals' must be uint8 of shape .* not float64 \(6, 3, 4\)"),
        (("y",), "'y' must be uint8"),
        (("x", "fewer"), r"'fewer' must be one integer per image, of shape \(6,\), not int64 \(5,\)"),
        (("x", "reals"), "'reals' must be one integer per image"),
    ],
)
def test_wrong_arrays_are_refused(digits, arguments, message):
    with pytest.raises(ValueError, match=message):
        Arrays(digits, *arguments)


def test_empty_slice_is_refused(digits):
    with pytest.raises(ValueError, match="'x' has no images"):
        Arrays(digits, "x", keep=slice(6, 9))


@pytest.mark.parametrize("content", ["missing", "garbage", "truncated", "npy", "pickle"])
def test_damaged_npz_is_refused_with_its_path(digits, content):
    path = digits.with_name("other.npz")
    if content == "garbage":
        path.write_bytes(b"garbage")
    elif content == "truncated":
        path.write_bytes(digits.read_bytes()[:300])
    elif content == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif content == "pickle":
        np.savez(path, x=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"other\.npz' is not an \.npz file with arrays x"):
        Arrays(path, "x")


# ---- item numbers ----


@pytest.mark.parametrize(("ranks", "micro_batches"), [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_each_step_covers_the_same_items_however_they_are_shared(ranks, micro_batches):
    shares = [list(item_numbers(3, 7, 12, micro_batches, rank, ranks)) for rank in range(ranks)]
    assert all(len(share) == 4 * micro_batches for share in shares)
    for k in range(4):
        parts = [batch for share in shares for batch in share[k * micro_batches : (k + 1) * micro_batches]]
        assert {len(part) for part in parts} == {12 // (ranks * micro_batches)}
        assert sorted(itertools.chain(*parts)) == list(range(12 * (3 + k), 12 * (4 + k)))

"""Training data: an item is a function of (seed, item number) and of the files; every epoch visits every image once."""

import itertools
import os
import pickle
import struct
import warnings
import zlib
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from genprior.training.data import Arrays, Photos, evenly, first, item_numbers, open_parts
from genprior.training.data import photos as photos_module
from genprior.training.data.folder import Folder


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


def test_small_and_broken_photos_are_left_out_with_one_warning_that_counts_them(photos):
    (photos / "broken.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((9, 9), np.float32)).save(photos / "reals.tif")
    save(photos / "tiny.png", np.zeros((1, 1, 3)))
    (photos / "notes.txt").write_text("no image either, and named apart: its name does not say that it is one")
    with pytest.warns(UserWarning, match="Left out") as told:
        data = Photos(photos, 11, augment=False)
    assert [data.images.name(number) for number in data.numbers] == ["2.png", "3.png", "4.png"]
    assert [source(data[k]) for k in range(3)] == [2, 3, 4]
    assert [str(one.message) for one in told] == [
        f"{photos}: skipped 1 file whose suffix is of no image: notes.txt.",
        f"Left out are 5 of 8 images of {photos}: 0.png is 12 x 9, smaller than crops of 11 x 11; 1.png is 12 x 10, "
        "smaller than crops of 11 x 11; broken.png cannot be read as an image (UnidentifiedImageError); and 2 more.",
    ]


def test_sound_photos_are_taken_without_a_word(photos):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(Photos(photos, 8)) == 5


def test_no_usable_photo_is_an_error_that_says_why(photos):
    with pytest.raises(ValueError, match=r"no usable image among 5 of 5 images of .*0\.png is 12 x 9, smaller"):
        Photos(photos, 100)


def test_left_out_photos_change_nothing_but_the_numbering(photos):
    alone = Photos(photos, 8, seed=2)
    before = [alone[i]["x"] for i in range(10)]
    (photos / "0a.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"Left out are 1 of 6 images of .*0a\.png cannot be read"):
        beside = Photos(photos, 8, seed=2)
    assert all(torch.equal(beside[i]["x"], x) for i, x in enumerate(before))


def truncate(path):
    """Cut a file of noise in the middle of its pixels, so that its header still says its size."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_photo_that_cannot_be_decoded_gives_its_place_to_the_next_of_the_epoch(photos):
    whole = Photos(photos, 8, seed=1, shrink=0.0)
    expected = [whole[i] for i in range(15)]
    orders = [[source(example) for example in expected[5 * epoch : 5 * epoch + 5]] for epoch in range(3)]
    truncate(photos / "3.png")
    data = Photos(photos, 8, seed=1, shrink=0.0)
    with pytest.warns(UserWarning, match="cannot be decoded") as told:
        found = [data[i] for i in range(15)]
    assert len(told) == 1
    assert "3.png of" in str(told[0].message)
    assert "cannot be decoded" in str(told[0].message)
    assert "the image after it takes its place" in str(told[0].message)
    for epoch, order in enumerate(orders):
        wanted = [order[(k + 1) % 5] if order[k] == 3 else order[k] for k in range(5)]
        assert [source(example) for example in found[5 * epoch : 5 * epoch + 5]] == wanted
    assert all(torch.equal(a["x"], b["x"]) for a, b in zip(found, expected) if source(b) != 3)


def test_items_do_not_depend_on_which_broken_photos_a_process_has_met(photos):
    truncate(photos / "1.png")
    truncate(photos / "2.png")
    data = Photos(photos, 8, seed=5)
    with pytest.warns(UserWarning, match="takes its place"):
        in_order = [data[i]["x"] for i in range(20)]
    with pytest.warns(UserWarning, match="takes its place"):
        one_each = [Photos(photos, 8, seed=5)[i]["x"] for i in range(20)]  # as if resumed at every item
    assert all(torch.equal(a, b) for a, b in zip(in_order, one_each))


def test_worker_processes_give_the_same_items(photos):
    truncate(photos / "1.png")
    data = Photos(photos, 8, seed=5)
    loader = DataLoader(data, batch_sampler=item_numbers(0, 4, 4, 0, 1), num_workers=2)
    found = torch.cat([batch["x"] for batch in loader])
    with pytest.warns(UserWarning, match="takes its place"):
        expected = [data[i]["x"] for i in range(16)]
    assert torch.equal(found, torch.stack(expected))


def test_only_broken_photos_end_in_an_error_that_counts_them(photos):
    for k in range(5):
        truncate(photos / f"{k}.png")
    data = Photos(photos, 8)
    with (
        pytest.warns(UserWarning, match="cannot be decoded"),
        pytest.raises(ValueError, match=r"5 images in a row cannot be used: 5 of 5"),
    ):
        data[0]


def test_photo_that_cannot_be_read_now_is_an_error_and_not_taken_for_broken(photos):
    """A disk that is away may be back when training is resumed; to pass over its images would make other items."""
    data = Photos(photos, 8, augment=False)
    (photos / "0.png").rename(photos / "away")
    with pytest.raises(FileNotFoundError, match=r"0\.png"):
        data[0]
    (photos / "away").rename(photos / "0.png")
    assert source(data[0]) == 0


@pytest.mark.parametrize("size", [12000, 20000])
def test_photo_that_claims_too_many_pixels_is_left_out(photos, size):
    header = struct.pack(">4sIIBBBBB", b"IHDR", size, size, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (photos / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I4s", 0, b"IDAT") + bytes(4))
    with pytest.warns(UserWarning, match=r"Left out are 1 of 6 .*bomb\.png cannot be read .*DecompressionBomb"):
        Photos(photos, 8)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("1", "png"), ("L", "png"), ("LA", "png"), ("P", "png"), ("RGB", "jpg"), ("RGBA", "png"), ("CMYK", "jpg"),
     ("CMYK", "tif"), ("I;16", "png"), ("I;16", "tif"), ("RGBA", "webp"), ("P", "bmp")],
)  # fmt: skip
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_of_files_gives_its_grey(tmp_path, mode, suffix, channels):
    """A white image with a grey square: 1-bit files know 0 and 255 only, those with losses are within 2."""
    grey = np.full((12, 12), 255, np.uint8)
    grey[3:9, 3:9] = 0 if mode == "1" else 102
    image = Image.fromarray(grey)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "RGBA":
        image = image.convert(mode)
        image.putalpha(128)
    elif mode != "L":
        image = image.convert("RGB").convert(mode) if mode in ("P", "CMYK") else image.convert(mode)
    best = {"webp": {"lossless": True, "exact": True}, "jpg": {"quality": 100}}.get(suffix, {})
    image.save(tmp_path / f"a.{suffix}", **best)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = Photos(tmp_path, 12, channels=channels, augment=False)[0]["x"] * 255
    assert x.shape == (channels, 12, 12)
    tolerance = 2 if suffix == "jpg" or mode == "CMYK" else 1e-3
    torch.testing.assert_close(x, torch.from_numpy(grey).float().expand_as(x), rtol=0, atol=tolerance)


def test_palette_with_half_transparent_colours_keeps_them_without_a_warning(tmp_path):
    image = Image.fromarray(np.full((8, 8), 1, np.uint8), mode="P")
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.save(tmp_path / "a.png", transparency=b"\x00\x80")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = Photos(tmp_path, 8, augment=False)[0]["x"] * 255
    assert x[:, 0, 0].round().tolist() == [200, 100, 50]


def test_16_bit_values_are_rounded_to_8(tmp_path):
    values = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "a.png")
    x = Photos(tmp_path, 8, channels=1, augment=False)[0]["x"][0] * 255
    assert x.round().int().tolist() == np.rint(values / 257).astype(int).tolist()


def test_values_beyond_16_bits_are_left_out(photos):
    Image.fromarray(np.full((9, 9), 70000, np.int32)).save(photos / "0.tif")
    data = Photos(photos, 8, augment=False)
    with pytest.warns(UserWarning, match=r"0\.tif .* its values go from 70000 to 70000, wanted 16 bits"):
        assert source(data[1]) == 1


def test_photos_are_upright(tmp_path):
    i, j = np.mgrid[:8, :8]
    image = Image.fromarray((10 * i + j).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    image.save(tmp_path / "a.png", exif=exif)
    x = Photos(tmp_path, 8, channels=1, augment=False)[0]["x"][0] * 255
    assert torch.equal(x.round().int(), torch.from_numpy(np.rot90(10 * i + j, -1).copy()).int())


def test_links_that_lead_in_circles_do_no_harm(photos):
    os.symlink(photos, photos / "again")
    os.symlink(photos / "self.png", photos / "self.png")
    os.symlink(photos / "nowhere.png", photos / "dangling.png")
    os.symlink(photos / "0.png", photos / "linked.png")
    assert [path.name for path in Folder(photos).paths] == ["0.png", "1.png", "2.png", "3.png", "4.png", "linked.png"]


@pytest.mark.parametrize(("orientations", "ways"), [(1, {"ab"}), (2, {"ab", "ba"})])
def test_photos_may_be_left_as_they_are_or_mirrored_only(ramp, orientations, ways):
    data = Photos(ramp, 8, shrink=0.0, grey=0.0, orientations=orientations)
    found = set()
    for item in range(40):  # one of two ways stays unseen with probability 2^-39
        rows, columns, _ = (data[item]["x"] * 255).round().int()
        assert bool((rows[1:] == rows[:-1] + 1).all())
        found.add("ab" if columns[0, 0] < columns[0, 7] else "ba")
    assert found == ways


def test_odd_orientations_are_refused(ramp):
    with pytest.raises(ValueError, match=r"orientations is 4: give 8"):
        Photos(ramp, 8, orientations=4)


def count_decodings(monkeypatch):
    """The names of the photographs that are decoded from now on."""
    read, names = Folder.read, []
    monkeypatch.setattr(Folder, "read", lambda self, n, mode: names.append(self.name(n)) or read(self, n, mode))
    return names


def test_decoded_photos_are_kept_within_a_budget_of_bytes(photos, monkeypatch):
    expected = [Photos(photos, 8, augment=False)[k]["x"] for k in range(5)]
    decoded = count_decodings(monkeypatch)
    # Photograph k is 12 x (9 + k) pixels of four bytes: there is room for the first two, and no more.
    monkeypatch.setattr(photos_module, "DECODED_BYTES", 12 * (9 + 10) * 4)
    data = Photos(photos, 8, augment=False)
    for _ in range(3):
        assert all(torch.equal(data[k]["x"], expected[k]) for k in range(5))
    assert Counter(decoded) == {"0.png": 1, "1.png": 1, "2.png": 3, "3.png": 3, "4.png": 3}


def test_data_larger_than_memory_are_never_held(photos, monkeypatch):
    """With no room at all, what a data set holds does not grow, and its items are the same."""
    expected = [Photos(photos, 8, seed=4)[i]["x"] for i in range(20)]
    monkeypatch.setattr(photos_module, "DECODED_BYTES", 0)
    data = Photos(photos, 8, seed=4)
    before = len(pickle.dumps(data))
    assert all(torch.equal(data[i]["x"], x) for i, x in enumerate(expected))
    assert len(pickle.dumps(data)) == before


def test_workers_share_the_budget(photos, monkeypatch):
    monkeypatch.setattr(photos_module, "DECODED_BYTES", 2 * 12 * (9 + 10) * 4)
    data = Photos(photos, 8, augment=False)
    held = list(DataLoader(_Held(data), batch_size=None, num_workers=2))
    assert held == [12 * (9 + 10) * 4] * 2


class _Held(torch.utils.data.Dataset):
    """Item w, asked of worker w: the bytes it holds once it has seen all."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return 2

    def __getitem__(self, item):
        for k in range(len(self.data)):
            self.data[k]
        return self.data._held


# ---- fingerprints ----


def test_fingerprint_tells_other_files_and_other_crops_apart(photos):
    def fingerprint(**options):
        return Photos(photos, **{"size": 8, "seed": 1, **options}).fingerprint

    before = fingerprint()
    assert before["images"] == 5
    assert fingerprint() == before
    assert all(fingerprint(**other) != before for other in ({"size": 9}, {"channels": 1}, {"seed": 2}, {"grey": 0.2}))
    content = (photos / "0.png").read_bytes()
    (photos / "0.png").write_bytes(content + b"longer")
    assert fingerprint() != before
    (photos / "0.png").write_bytes(content)
    assert fingerprint() == before
    (photos / "0.png").rename(photos / "5.png")
    assert fingerprint() != before
    (photos / "5.png").rename(photos / "0.png")
    save(photos / "6.png", np.zeros((9, 9, 3)))
    assert fingerprint() != before


def test_fingerprint_is_of_the_content_of_the_folder_and_not_of_its_place(photos):
    here = Photos(photos, 8).fingerprint
    elsewhere = photos.rename(photos.with_name("elsewhere"))
    assert Photos(elsewhere, 8).fingerprint == here


def test_fingerprint_is_the_same_under_either_form_of_an_accent(tmp_path):
    found = []
    for name in ("caf\u00e9.png", "cafe\u0301.png"):
        (tmp_path / name[:4]).mkdir()
        save(tmp_path / name[:4] / name, np.zeros((9, 9, 3)))
        found.append(Photos(tmp_path / name[:4], 8).fingerprint)
    assert found[0] == found[1]


def test_names_that_are_not_unicode_have_a_fingerprint(tmp_path):
    save(tmp_path / "a.png", np.zeros((9, 9, 3)))
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff.png")
    assert Photos(tmp_path, 8).fingerprint["images"] == 1


def test_first_images_are_stacked_in_order(photos):
    data = Photos(photos, 8, augment=False)
    assert torch.equal(first(data, 2), torch.stack([data[0]["x"], data[1]["x"]]))
    assert len(first(data, 64)) == 5


def test_images_are_spread_evenly_over_a_sorted_file(tmp_path):
    labels = np.arange(300) // 60  # five classes, one after the other
    np.savez(tmp_path / "sorted.npz", train_images=np.broadcast_to(labels[:, None, None], (300, 2, 2)).astype(np.uint8))
    data = Arrays(tmp_path / "sorted.npz", "train_images", seed=None)
    found = 255 * evenly(data, 300)[:, 0, 0, 0]
    assert found.long().bincount().tolist() == [60] * 5
    for k in (5, 16, 64):
        assert torch.equal(evenly(data, k), evenly(data, 300)[:k])
        # of k places, an interval holds its share but for two: the discrepancy of this sequence is that small
        assert all(abs(int(n) - k / 5) <= 2 for n in found[:k].long().bincount(minlength=5))
    assert len(evenly(data, 301)) == 300


def test_folder_without_photos_and_odd_channels_are_refused(tmp_path, ramp):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="No images found in"):
        Photos(tmp_path / "empty")
    with pytest.raises(ValueError, match="channels is 2: give 3 for RGB or 1 for grey"):
        Photos(ramp, 8, channels=2)
    with pytest.raises(ValueError, match="size is 0: give a whole number, at least 1"):
        Photos(ramp, 0)


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
    with pytest.raises(ValueError, match=r"'x' of shape .* has no images in this part"):
        Arrays(digits, "x", keep=slice(6, 9))


def test_arrays_may_be_given_as_they_are_and_kept_by_content(digits):
    with np.load(digits) as file:
        arrays = dict(file)
    assert torch.equal(Arrays(arrays, "x", "y", seed=3)[8]["x"], Arrays(digits, "x", "y", seed=3)[8]["x"])
    kept = Arrays(arrays, "x", "y", keep=lambda content: content[0] >= 120, seed=None)
    assert [kept[k]["label"] for k in range(len(kept))] == [13, 14, 15]


def test_fingerprint_of_arrays_is_of_images_labels_and_order(digits):
    with np.load(digits) as file:
        arrays = dict(file)
    before = Arrays(digits, "x", "y").fingerprint
    assert Arrays(arrays, "x", "y").fingerprint == before
    assert Arrays(arrays, "x").fingerprint != before
    assert Arrays(arrays, "x", "y", seed=1).fingerprint != before
    for name in ("x", "y"):
        changed = {**arrays, name: arrays[name].copy()}
        changed[name].flat[5] += 1
        assert Arrays(changed, "x", "y").fingerprint != before


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


@pytest.mark.parametrize("ranks", [1, 2, 3, 6])
def test_each_step_covers_the_same_items_however_they_are_shared(ranks):
    shares = [list(item_numbers(3, 7, 12, rank, ranks)) for rank in range(ranks)]
    assert all(len(share) == 4 for share in shares)
    for k in range(4):
        parts = [share[k] for share in shares]
        assert {len(part) for part in parts} == {12 // ranks}
        assert sorted(itertools.chain(*parts)) == list(range(12 * (3 + k), 12 * (4 + k)))


@pytest.mark.parametrize(("orientations", "ways"), [(1, 1), (2, 2), (8, 8)])
def test_arrays_are_mirrored_or_turned_as_said(orientations, ways):
    """Of 200 draws none of 8 orientations is missed but with probability 8 (7/8)^200 < 1e-10."""
    square = np.arange(9, dtype=np.uint8).reshape(1, 3, 3)
    data = Arrays({"x": square}, "x", orientations=orientations)
    seen = {tuple((255 * data[item]["x"]).round().int().flatten().tolist()) for item in range(200)}
    mirrored = {tuple(square[0].flatten().tolist()), tuple(square[0, :, ::-1].flatten().tolist())}
    assert len(seen) == ways
    assert seen <= mirrored if ways <= 2 else seen > mirrored
    assert torch.equal(data[7]["x"], Arrays({"x": square}, "x", orientations=orientations)[7]["x"])
    other = Arrays({"x": square}, "x", orientations=1 if ways > 1 else 2)
    assert data.fingerprint != other.fingerprint


def test_orientations_of_arrays_that_cannot_be_are_refused(digits):
    with pytest.raises(ValueError, match="orientations is 3: give 8"):
        Arrays(digits, "x", orientations=3)
    with pytest.raises(ValueError, match="images of 3 x 4 are not square: give 2"):
        Arrays(digits, "x", orientations=8)
    with pytest.raises(ValueError, match="orientations is 2, which a seed decides"):
        Arrays(digits, "x", seed=None, orientations=2)
    mirrored = Arrays(digits, "x", "y", orientations=2)
    assert all(
        float(e["x"][0, 0].min()) * 255 == pytest.approx(40 * (e["label"] - 10))
        for e in map(mirrored.__getitem__, range(12))
    )


def test_parts_of_arrays_are_mirrored_in_training_alone(tmp_path):
    x = np.arange(40, dtype=np.uint8)[:, None, None] + np.array([[[0, 100], [0, 100]]], np.uint8)
    np.savez(tmp_path / "a.npz", train_images=x)
    train, held_out = open_parts(tmp_path / "a.npz", 0.3, orientations=2)
    left = [float(train[item]["x"][0, 0, 0]) < 0.3 for item in range(100)]
    assert 20 < sum(left) < 80
    assert all(float(held_out[k]["x"][0, 0, 0]) < 0.3 for k in range(len(held_out)))
    plain, _ = open_parts(tmp_path / "a.npz", 0.3)
    assert all(float(plain[item]["x"][0, 0, 0]) < 0.3 for item in range(100))

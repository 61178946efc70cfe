"""Where training data come from, and which of them are held out; every source from tiny files made here."""

import hashlib
import io
import json
import os
import subprocess
import sys
import types
import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image

from genprior.cli import main as genprior
from genprior.training.data import Arrays, Photos, held_out, open_data, open_parts, split
from genprior.training.data.folder import Folder


def png(k, side=9):
    """A file of one colour, which tells its number."""
    file = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), k, np.uint8)).save(file, "PNG")
    return file.getvalue()


def number(example):
    return round(float(example["x"].mean()) * 255)


def numbers(data):
    """Of the images of a data set, once through."""
    return sorted(number(data[k]) for k in range(len(data)))


@pytest.fixture
def folder(tmp_path):
    """Two hundred images in two folders; image k is of value k."""
    for k in range(200):
        path = tmp_path / "photos" / f"{k % 2}" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(k))
    return tmp_path / "photos"


# ---- what is given ----


def test_folder_of_images_gives_the_same_as_photos(folder):
    for options in ({}, {"seed": 3, "channels": 1, "orientations": 2}, {"augment": False}):
        ours, expected = open_data(folder, 8, **options), Photos(folder, 8, **options)
        assert all(torch.equal(ours[i]["x"], expected[i]["x"]) for i in range(20))
        assert ours.fingerprint == expected.fingerprint


def test_npz_gives_the_same_as_arrays(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (10, 4, 5), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", train_images=x, other=x[::-1], y=np.arange(10))
    for options in ({"images": None}, {"images": "other", "labels": "y", "seed": 5}):
        names = (options["images"] or "train_images", options.get("labels"))
        ours = open_data(tmp_path / "a.npz", **options)
        expected = Arrays(tmp_path / "a.npz", *names, seed=options.get("seed", 0))
        assert all(torch.equal(ours[i]["x"], expected[i]["x"]) for i in range(20))
    in_order = open_data(str(tmp_path / "a.npz"), labels="y", augment=False)
    assert [int(in_order[i]["label"]) for i in range(10)] == list(range(10))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("phots", "There are no data '{0}phots'; give a folder of images, .* Did you mean '{0}photos'?"),
        ("missing/a.npz", r"missing/a\.npz' is not an \.npz file"),
        ("absent.parquet", "There are no data '{0}absent.parquet'; give a folder"),
    ],
)
def test_path_that_is_not_there_is_refused_with_a_guess(folder, source, message):
    parent = f"{folder.parent}/"
    with pytest.raises(ValueError, match=message.format(parent)):
        open_data(parent + source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("torchvison:MNIST", "There are no data 'torchvison:MNIST'; .* Did you mean 'torchvision:MNIST'?"),
        ("torchvision:MNITS", "Unknown data set of torchvision 'mnits'; .* Did you mean 'mnist'?"),
        ("torchvision:MNIST:validation", 'torchvision:MNIST has no split \'validation\'; choose "train" or "test"'),
        ("zenodo:1", "There are no data 'zenodo:1'; give a folder of images"),
    ],
)
def test_unknown_names_are_refused_with_a_guess(source, message):
    with pytest.raises(ValueError, match=message):
        open_data(source)


def test_labels_that_a_source_does_not_have_are_refused(folder):
    with pytest.raises(ValueError, match="images of a folder have none: leave labels out"):
        open_data(folder, 8, labels="y")
    with pytest.raises(ValueError, match='labels of data sets of torchvision are called "targets"'):
        open_data("torchvision:FakeData", labels="y")


def test_unknown_options_are_refused(folder):
    with pytest.raises(TypeError, match="orientation"):
        open_data(folder, orientation=2)


# ---- torchvision ----


@pytest.fixture
def mnist(tmp_path):
    """Twenty digits for training and four for the test, in the files that torchvision looks for."""
    raw = tmp_path / "root" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 20), ("t10k", 4)):
        x = np.repeat(np.arange(count, dtype=np.uint8), 28 * 28)
        header = np.array([0x803, count, 28, 28], ">i4").tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + x.tobytes())
        header = np.array([0x801, count], ">i4").tobytes()
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + (np.arange(count, dtype=np.uint8) % 10).tobytes())
    return tmp_path / "root"


def test_torchvision_gives_arrays_with_targets(mnist):
    data = open_data("torchvision:MNIST", labels="targets", root=mnist, seed=2)
    assert isinstance(data, Arrays)
    assert data[0]["x"].shape == (1, 28, 28)
    assert numbers(data) == list(range(20))
    assert all(number(data[i]) % 10 == data[i]["label"] for i in range(40))
    assert numbers(open_data("torchvision:MNIST:test", root=mnist)) == [0, 1, 2, 3]
    assert "label" not in open_data("torchvision:MNIST", root=mnist)[0]


def test_torchvision_downloads_nothing_unless_asked(tmp_path, monkeypatch):
    from torchvision import datasets

    asked = []
    monkeypatch.setattr(datasets.MNIST, "download", lambda self: asked.append(self.root))
    with pytest.raises(FileNotFoundError, match=r"torchvision:MNIST:train cannot be read from .*: give the folder"):
        open_data("torchvision:MNIST", root=tmp_path)
    assert asked == []
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="fetched by download"):
        open_data("torchvision:MNIST", root=tmp_path, download=True)
    assert asked == [str(tmp_path)]
    with pytest.raises(ValueError, match="torchvision cannot download ImageNet"):
        open_data("torchvision:ImageNet", root=tmp_path, download=True)


def test_torchvision_rows_are_photos_read_one_at_a_time(tmp_path):
    from torchvision import datasets

    data = open_data("torchvision:FakeData", 32, augment=False, labels=None)
    assert isinstance(data, Photos)
    expected = np.asarray(datasets.FakeData()[7][0])[96:128, 96:128]
    assert torch.equal(data[7]["x"], torch.from_numpy(expected.transpose(2, 0, 1).astype(np.float32) / 255))
    assert len(data) == 1000
    assert open_data("torchvision:FakeData", 32, augment=False).fingerprint == data.fingerprint


def test_broken_rows_of_torchvision_are_passed_over_and_labels_go_with_their_images(tmp_path):
    for k in range(6):
        path = tmp_path / f"class {k // 3}" / f"{k}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(k) if k != 2 else png(k)[:50])
    data = open_data("torchvision:ImageFolder", 8, root=tmp_path, augment=False, labels="targets")
    with pytest.warns(UserWarning, match=r"2 of torchvision:ImageFolder:train cannot be decoded"):
        found = [(number(data[k]), int(data[k]["label"])) for k in range(6)]
    assert found == [(0, 0), (1, 0), (3, 1), (3, 1), (4, 1), (5, 1)]
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_rows_smaller_than_the_crops_are_passed_over(tmp_path):
    for k in range(4):
        path = tmp_path / "a" / f"{k}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(k, side=9 - 4 * (k == 1)))
    data = open_data("torchvision:ImageFolder", 8, root=tmp_path, augment=False)
    with pytest.warns(UserWarning, match=r"1 of torchvision.* is 5 x 5, smaller than crops of 8 x 8"):
        assert [number(data[k]) for k in range(4)] == [0, 2, 2, 3]


def test_names_of_torchvision_may_be_in_any_case_and_those_that_need_more_than_a_name_are_not_offered(mnist):
    assert (
        open_data("torchvision:mnist", root=mnist).fingerprint == open_data("torchvision:MNIST", root=mnist).fingerprint
    )
    with pytest.raises(ValueError, match=r"Unknown data set of torchvision 'cocodetection'"):
        open_data("torchvision:CocoDetection", root=mnist)


def test_missing_torchvision_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ValueError, match="pip install torchvision"):
        open_data("torchvision:MNIST")


# ---- tables ----


class FakeTable:
    """As much of a table of the package `datasets` as is used, so that the code is run where it is not installed."""

    def __init__(self, columns, features):
        self.columns, self.features = columns, features

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key):
        return self.columns[key] if isinstance(key, str) else {name: c[key] for name, c in self.columns.items()}

    def select_columns(self, names):
        return FakeTable({n: self.columns[n] for n in names}, {n: self.features[n] for n in names})

    def cast_column(self, name, feature):
        assert not feature.decode
        return self


@pytest.fixture
def tables(monkeypatch, tmp_path):
    """A package `datasets` whose every table holds 12 images: bytes, but the second by its path, the third empty."""

    class FakeImage:
        def __init__(self, decode=True):
            self.decode = decode

    (tmp_path / "one.png").write_bytes(png(1))
    cells = [{"bytes": png(k), "path": None} for k in range(12)]
    cells[1] = {"bytes": None, "path": str(tmp_path / "one.png")}
    cells[2] = {"bytes": None, "path": None}
    columns = {"picture": cells, "label": [k % 3 for k in range(12)], "text": ["a"] * 12}
    features = {"picture": FakeImage(), "label": "int64", "text": "string"}
    asked = []

    def load_dataset(*words, **options):
        asked.append((words, options))
        if options["split"] != "train":
            raise ValueError(f"Unknown split {options['split']!r}")
        return FakeTable(columns, features)

    fake = types.SimpleNamespace(load_dataset=load_dataset, Image=FakeImage, __spec__=None)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return asked


def test_tables_are_opened_by_the_package_datasets(tables, tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.parquet").touch()
    open_data("hf:owner/name")
    open_data(tmp_path / "shards")
    open_data(tmp_path / "shards" / "a.parquet")
    assert tables == [
        (("owner/name",), {"split": "train"}),
        ((str(tmp_path / "shards"),), {"split": "train"}),
        (("parquet",), {"data_files": str(tmp_path / "shards" / "a.parquet"), "split": "train"}),
    ]
    with pytest.raises(ValueError, match="owner/name, split 'test', cannot be read: Unknown split"):
        open_data("hf:owner/name:test")


def test_rows_of_tables_are_photos_with_labels(tables):
    data = open_data("hf:owner/name", 8, augment=False, labels="label")
    with pytest.warns(UserWarning, match=r"2 of owner/name:train is empty; the image after it takes its place"):
        found = [(number(data[k]), int(data[k]["label"])) for k in range(12)]
    assert found == [(k, k % 3) for k in (0, 1, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": "pictures"}, "has no column 'pictures', only picture, label, text"),
        ({"labels": "class"}, "has no column 'class'"),
        ({"labels": "text"}, "'text' of owner/name must be one whole number per image"),
    ],
)
def test_columns_that_are_not_there_are_refused(tables, options, message):
    with pytest.raises(ValueError, match=message):
        open_data("hf:owner/name", **options)


def test_fingerprint_of_a_table_tells_changed_files(tables, tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"0")
    before = open_data(path).fingerprint
    assert open_data(path).fingerprint == before
    path.write_bytes(b"00")
    assert open_data(path).fingerprint != before


def test_missing_package_datasets_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "a.parquet").touch()
    for source in (tmp_path, tmp_path / "a.parquet", "hf:owner/name"):
        with pytest.raises(ValueError, match=r"pip install datasets, or pip install \"genprior\[hf\]\""):
            open_data(source)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_parquet_is_read_for_real(tmp_path, kind, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed: no parquet files are read")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    table = {"image": [{"bytes": png(k), "path": None} for k in range(12)], "label": [k % 3 for k in range(12)]}
    made = datasets.Dataset.from_dict(table).cast_column("image", datasets.Image())
    (tmp_path / "shards").mkdir()
    made.to_parquet(str(tmp_path / "shards" / "train-00000-of-00001.parquet"))
    source = tmp_path / "shards"
    data = open_data(source if kind == "folder" else next(source.iterdir()), 8, augment=False, labels="label")
    assert [(number(data[k]), int(data[k]["label"])) for k in range(12)] == [(k, k % 3) for k in range(12)]


# ---- what is held out ----


def test_parts_are_disjoint_and_together_all(folder):
    training, validation = open_parts(folder, 0.2, 8)
    assert sorted(numbers(training) + numbers(validation)) == list(range(200))
    assert training.augment
    assert not validation.augment
    # Binomial: 40 of 200, sd 5.7; four of them.
    assert 40 - 23 <= len(validation) <= 40 + 23


def test_parts_do_not_depend_on_seed_or_place(folder):
    before = numbers(open_parts(folder, 0.2, 8, seed=0)[1])
    moved = folder.rename(folder.with_name("moved"))
    assert numbers(open_parts(moved, 0.2, 8, seed=7)[1]) == before


def test_added_images_move_no_other_and_a_larger_share_holds_out_the_same_and_more(folder):
    _, before = open_parts(folder, 0.2, 8)
    for k in range(200, 250):
        (folder / f"{k}.png").write_bytes(png(k))
    training, after = open_parts(folder, 0.2, 8)
    assert [k for k in numbers(after) if k < 200] == numbers(before)
    assert any(k >= 200 for k in numbers(after))
    assert any(k >= 200 for k in numbers(training))
    assert set(numbers(after)) < set(numbers(open_parts(folder, 0.4, 8)[1]))


def test_broken_images_move_no_other(folder):
    _, before = open_parts(folder, 0.2, 8)
    dropped = numbers(before)[0]
    (folder / f"{dropped % 2}" / f"{dropped}.png").write_bytes(b"broken")
    with pytest.warns(UserWarning, match="Left out are 1 of"):
        training, after = open_parts(folder, 0.2, 8)
    assert numbers(after) == numbers(before)[1:]
    assert len(training) == 200 - len(before)


@pytest.mark.parametrize("name", ["a/b.png", "c.jpg", "caf\u00e9.png"])
def test_what_is_held_out_is_decided_by_the_sha256_of_the_name(name):
    place = int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) / 16**16
    assert not held_out(name, place - 1e-9)
    assert held_out(name, place + 1e-9)
    assert not held_out(unicodedata.normalize("NFD", name), place - 1e-9)
    assert held_out(unicodedata.normalize("NFD", name), place + 1e-9)


def test_what_is_held_out_is_the_same_in_every_process():
    code = (
        f"import runpy\nf = runpy.run_path({split.__file__!r})['held_out']\nprint([f(str(k), 0.1) for k in range(99)])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "5"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert run.stdout.strip() == str([held_out(str(k), 0.1) for k in range(99)])


def test_arrays_are_held_out_by_content_so_that_copies_stay_together(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (100, 4, 5), dtype=np.uint8)
    order = np.random.default_rng(1).permutation(300)
    np.savez(tmp_path / "a.npz", train_images=np.concatenate([x, x, x])[order], y=order % 100)
    training, validation = open_parts(tmp_path / "a.npz", 0.3, labels="y", seed=4)
    sides = [{int(data[i]["label"]) for i in range(len(data))} for data in (training, validation)]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == set(range(100))
    assert len(training) + len(validation) == 300
    assert 30 - 19 <= len(sides[1]) <= 30 + 19  # binomial, four standard deviations of 4.6
    assert training.seed == 4
    assert validation.seed is None


def test_rows_are_held_out_by_number(tables):
    training, validation = open_parts("hf:owner/name", 0.3, 8)
    expected = [k for k in range(12) if held_out(str(k), 0.3)]
    assert validation.numbers == expected
    assert training.numbers == [k for k in range(12) if k not in expected]


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_shares_out_of_range_are_refused(folder, share):
    with pytest.raises(ValueError, match=f"The share to be held out is {share}: give a fraction"):
        open_parts(folder, share, 8)


def test_share_that_holds_out_nothing_is_refused(folder):
    with pytest.raises(
        ValueError, match=r"None of the 200 images of .* falls into this part: give more images, or another share"
    ):
        open_parts(folder, 1e-9, 8)


def test_parts_of_a_run_that_is_resumed_are_those_of_the_run_that_was_begun(folder):
    first, second = open_parts(folder, 0.2, 8, seed=1), open_parts(folder, 0.2, 8, seed=1)
    for one, other in zip(first, second):
        assert one.fingerprint == other.fingerprint
        assert all(torch.equal(one[i]["x"], other[i]["x"]) for i in range(250, 260))
    assert first[0].fingerprint != first[1].fingerprint
    assert len(Folder(folder)) == len(first[0]) + len(first[1])


def test_command_line_holds_out_a_share_and_takes_other_sources(folder, mnist, capsys):
    def described(*options):
        words = ["train", "ddpm", "--out", folder.parent / "run", "--dry-run", *options]
        assert genprior([str(word) for word in words]) == 0
        return json.loads(capsys.readouterr().out)

    training, validation = open_parts(folder, 0.2, 8)
    given = described("--data", folder, "--size", 8, "--validation-share", 0.2)
    assert given["data"]["images"] == len(training)
    assert given["validation"]["images"] == len(validation)
    names = ("--data", "torchvision:mnist", "--root", mnist, "--labels", "targets")
    given = described(*names, "--validation", "torchvision:mnist:test")
    assert (given["data"]["images"], given["validation"]["images"]) == (20, 4)
    assert given["prior"]["arguments"]["classes"] == 10
    assert not (folder.parent / "run").exists()

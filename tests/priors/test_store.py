"""Priors on disk: what is written is read, what is damaged is refused, nothing in a folder is run."""

import hashlib
import json
import pickle

import pytest
import torch
from safetensors.torch import load_file

from genprior.priors import store
from genprior.priors.ddpm import DDPM
from genprior.priors.exact import Gaussian
from genprior.priors.store import bundled, find_prior, load_prior, read_card, read_prior, write_prior


def tiny(seed=0, **arguments):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prior = DDPM((1, 5, None), **({"widths": (8, 8), "patch": 1, "steps": 20, "classes": 2} | arguments))
        for parameter in prior.parameters():
            parameter.data.normal_(std=0.3)
    prior.decoder_variance.fill_(1e-5)
    return prior


@pytest.fixture
def prior():
    return tiny()


@pytest.fixture
def folder(tmp_path, prior):
    path = tmp_path / "some prior"
    path.mkdir()
    write_prior(prior, path, {"licence": "CC0"})
    return path


def test_round_trip_is_exact(folder, prior):
    again = read_prior(folder)
    assert again.config == prior.config
    assert (again.image_shape, again.classes, again.sigma_min) == ((1, 5, None), 2, prior.sigma_min)
    assert all(torch.equal(t, again.state_dict()[key]) for key, t in prior.state_dict().items())
    x = torch.linspace(0, 1, 30).reshape(2, 1, 5, 3)
    assert torch.equal(again.denoise(x, 0.2), prior.eval().denoise(x, 0.2))
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())


def test_round_trip_in_half_precision_is_within_its_rounding(tmp_path, prior):
    write_prior(prior, tmp_path, {}, half=True)
    state = read_prior(tmp_path).state_dict()
    rounded = 0
    for key, t in prior.state_dict().items():
        assert state[key].dtype == torch.float32
        # 11 bits: relative error 2^-11, and 2^-25 absolute below the smallest normal number
        torch.testing.assert_close(state[key], t, rtol=2**-11, atol=2**-25)
        rounded += int((state[key] != t).sum())
    assert rounded > 1000
    # 1e-5 is subnormal in half precision: the decoder's variance is a number of its own, and kept.
    assert float(state["decoder_variance"]) == float(prior.decoder_variance)


def test_channels_last_weights_are_stored_in_order(tmp_path, prior):
    write_prior(prior.to(memory_format=torch.channels_last), tmp_path, {})
    assert all(torch.equal(t, read_prior(tmp_path).state_dict()[key]) for key, t in tiny().state_dict().items())


def test_card_has_the_hash_of_the_weights(folder):
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert read_card(folder) == {"licence": "CC0", "sha256": digest}


def test_prior_of_unknown_family_is_not_written(tmp_path):
    gaussian = Gaussian(torch.zeros(1, 2, 2), torch.ones(1, 2, 2))
    with pytest.raises(ValueError, match="A Gaussian cannot be stored; only these can: ddpm"):
        write_prior(gaussian, tmp_path, {})


def test_reading_leaves_the_global_random_state(folder):
    state = torch.get_rng_state()
    read_prior(folder)
    assert torch.equal(torch.get_rng_state(), state)


# ---- damage ----


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def append(path):
    path.write_bytes(path.read_bytes() + b"more")


def rewrite(**changes):
    def change(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def argue(**changes):
    def change(path):
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"arguments": config["arguments"] | changes}))

    return change


DAMAGE = {
    "weights missing": ("model.safetensors", lambda path: path.unlink()),
    "weights empty": ("model.safetensors", lambda path: path.write_bytes(b"")),
    "weights garbage": ("model.safetensors", lambda path: path.write_bytes(b"garbage" * 100)),
    "weights truncated": ("model.safetensors", cut),
    "weights with trailing bytes": ("model.safetensors", append),
    "weights a folder": ("model.safetensors", lambda path: (path.unlink(), path.mkdir())),
    "config missing": ("config.json", lambda path: path.unlink()),
    "config truncated": ("config.json", cut),
    "config binary": ("config.json", lambda path: path.write_bytes(b"\xff\xfe\x00")),
    "config bottomless": ("config.json", lambda path: path.write_text("[" * 100_000)),
    "config a list": ("config.json", lambda path: path.write_text("[1]")),
    "config empty": ("config.json", lambda path: path.write_text("{}")),
    "format newer": ("config.json", rewrite(format=2)),
    "family unknown": ("config.json", rewrite(family="ddmp")),
    "family a list": ("config.json", rewrite(family=["ddpm"])),
    "arguments missing": ("config.json", rewrite(arguments=None)),
    "arguments a list": ("config.json", rewrite(arguments=[1, 2])),
    "argument unknown": ("config.json", argue(colour=3)),
    "architecture of another": ("config.json", argue(widths=[8, 16])),
    "classes of another": ("config.json", argue(classes=0)),
    "widths text": ("config.json", argue(widths="88")),
    "widths a number": ("config.json", argue(widths=8)),
    "widths none": ("config.json", argue(widths=[])),
    "steps none": ("config.json", argue(steps=0)),
    "steps text": ("config.json", argue(steps="20")),
    "betas unknown": ("config.json", argue(betas="__import__('os').abort()")),
    "image_shape short": ("config.json", argue(image_shape=[1])),
    "image_shape empty": ("config.json", argue(image_shape=[])),
    "image_shape text": ("config.json", argue(image_shape=[1, "5", 5])),
    "data_std text": ("config.json", argue(data_std="half")),
    "data_std zero": ("config.json", argue(data_std=0)),
    "data_std not a number": ("config.json", argue(data_std=float("nan"))),
    "patch negative": ("config.json", argue(patch=-1)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_prior_is_one_error_that_names_the_folder(folder, damage):
    name, spoil = DAMAGE[damage]
    spoil(folder / name)
    with pytest.raises(ValueError, match="some prior"):
        read_prior(folder)


def test_messages_say_what_is_wrong(folder):
    rewrite(family="ddmp")(folder / "config.json")
    with pytest.raises(ValueError, match=r"Unknown prior family 'ddmp'.*Did you mean 'ddpm'"):
        read_prior(folder)
    rewrite(family="ddpm", format=7)(folder / "config.json")
    with pytest.raises(ValueError, match=r"not a prior of format 1.*'format': 7"):
        read_prior(folder)
    rewrite(format=1)(folder / "config.json")
    argue(steps="20")(folder / "config.json")
    with pytest.raises(ValueError, match="steps is '20': give a whole number, at least 2"):
        read_prior(folder)


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('code from the folder was run')",)


def test_no_code_in_the_folder_is_run(folder):
    weights = load_file(folder / "model.safetensors")
    for name in ("model.pt", "model.bin", "genprior.py", "ddpm.py", "__init__.py"):
        (folder / name).write_bytes(pickle.dumps(Bomb()) if "model" in name else b"raise SystemExit")
    assert all(torch.equal(t, weights[key]) for key, t in read_prior(folder).state_dict().items())
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="damaged"):
        read_prior(folder)
    with (folder / "model.safetensors").open("wb") as file:
        torch.save({"bomb": Bomb()}, file)
    with pytest.raises(ValueError, match="damaged"):
        read_prior(folder)


# ---- finding ----


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Bundled priors of different seeds, and one folder among them that is none."""
    for seed, name in enumerate(("ddpm-mnist", "ddpm-photo", "flow-mnist")):
        (tmp_path / "bundled" / name).mkdir(parents=True)
        write_prior(tiny(seed), tmp_path / "bundled" / name, {"name": name})
    (tmp_path / "bundled" / "notes").mkdir()
    monkeypatch.setattr(store, "BUNDLED", tmp_path / "bundled")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "bundled"


@pytest.mark.parametrize(
    ("name", "found"),
    [("ddpm-mnist", "ddpm-mnist"), ("ddpm", "ddpm-photo"), ("flow", "flow-mnist"), ("ddpm-photo", "ddpm-photo")],
)
def test_name_or_family_finds_the_bundled_prior(shelf, name, found):
    assert bundled() == ["ddpm-mnist", "ddpm-photo", "flow-mnist"]
    assert find_prior(name) == shelf / found
    stored = load_file(shelf / found / "model.safetensors")
    assert all(torch.equal(t, stored[key]) for key, t in load_prior(name).state_dict().items())


def test_folder_is_found_by_text_or_path(shelf, folder):
    stored = load_file(folder / "model.safetensors")
    for name in (folder, str(folder), "some prior"):
        assert all(torch.equal(t, stored[key]) for key, t in load_prior(name).state_dict().items())


def test_unknown_prior_is_refused_with_a_guess(shelf):
    with pytest.raises(
        ValueError,
        match=r"Unknown prior 'ddpm-foto'; choose among ddpm-mnist, ddpm-photo, flow-mnist or a folder that holds a "
        r"trained prior\. Did you mean 'ddpm-photo'\?",
    ):
        load_prior("ddpm-foto")
    with pytest.raises(ValueError, match=r"notes is not a prior: config\.json cannot be read"):
        load_prior(shelf / "notes")


def test_autocast_of_a_loaded_prior_follows_the_device(shelf, monkeypatch):
    for has, dtype in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(store, "has_bfloat16", lambda device, has=has: has)
        assert load_prior("ddpm").autocast is dtype

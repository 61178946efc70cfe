"""Priors on disk: what is written is read, what is damaged is refused, nothing in a folder is run."""

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import genprior
from genprior.priors import store
from genprior.priors.amortized import LearnedPosterior
from genprior.priors.ddpm import DDPM
from genprior.priors.flow import Flow
from genprior.priors.folder import FAMILIES, read_card, read_prior, write_prior
from genprior.priors.foreign.adm import ADM
from genprior.priors.foreign.diffusers import from_diffusers
from genprior.priors.gan import GAN
from genprior.priors.gaussian.field import GaussianField
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.gaussian.mixture import GaussianMixture
from genprior.priors.latent import LatentDiffusion
from genprior.priors.patches import PatchFlow
from genprior.priors.store import bundled, find_prior, load_prior
from genprior.priors.vae import VAE


def tiny(seed=0, **arguments):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prior = DDPM(
            **({"image_shape": (1, 5, None), "widths": (8, 8), "patch": 1, "steps": 20, "classes": 2} | arguments)
        )
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
    mixture = GaussianMixture(torch.ones(1), torch.zeros(1, 1, 2, 2), torch.ones(1, 2, 2))
    with pytest.raises(ValueError, match="A GaussianMixture cannot be stored; only these can: adm, amortized, ddpm"):
        write_prior(mixture, tmp_path, {})


def test_reading_leaves_the_global_random_state(folder):
    state = torch.get_rng_state()
    read_prior(folder)
    assert torch.equal(torch.get_rng_state(), state)


# ---- every family ----


def crops(*shape):
    return torch.rand(5, *shape, generator=torch.Generator().manual_seed(0))


def adm():
    network = {"channels": 1, "outputs": 2, "base": 32, "widths": [32, 32], "blocks": 1, "attention": [1], "classes": 0}
    prior = ADM({**network, "heads": 2, "scale_shift": True, "resample_blocks": True}, betas="cosine", steps=20)
    prior.net.to_empty(device="cpu")
    for parameter in prior.parameters():
        parameter.data.normal_(std=0.1)
    return prior


TINY = {
    "adm": adm,
    "amortized": lambda: LearnedPosterior(
        (1, None, None), operator={"name": "Denoise"}, noise=(0.0, 0.1), widths=(8, 8), steps=20
    ),
    "ddpm": lambda: tiny(),
    "ddpm, velocity": lambda: tiny(prediction="velocity"),
    "gan": lambda: GAN((1, 4, 8), latent=3, widths=(4, 4), hidden=8, spread=0.4),
    "gaussian": lambda: Gaussian.fit(crops(2, 3, 4)),
    "gaussian, diagonal": lambda: Gaussian.fit(crops(2, 3, 4), "diagonal"),
    "gaussian, stationary": lambda: Gaussian.fit(crops(2, 3, 4), "stationary"),
    "gaussian-field": lambda: GaussianField.fit(crops(3, 6, 6)),
    "ldm": lambda: LatentDiffusion(
        VAE((3, None, None), latent=2, widths=(4, 4), blocks=(0, 1)),
        DDPM((2, None, None), data_std=1.0, widths=(8, 8), patch=1, steps=20),
    ),
    "nf": lambda: Flow((1, 4, 8), widths=(4, 4), steps=(1, 1), spread=0.4),
    "nf, ink": lambda: Flow((1, 4, 8), widths=(4, 4), steps=(1, 1), pixels="ink"),
    "nf-patch": lambda: PatchFlow(patch=2, width=4, steps=1, spread=0.4),
    "vae": lambda: VAE((1, 8, 8), latent=3, widths=(4, 4), blocks=(0, 1), spread=0.4),
    "vae, any size": lambda: VAE((3, None, None), latent=3, widths=(4, 4), blocks=(0, 1)),
}


def test_every_family_is_among_those_below():
    assert {name.split(",")[0] for name in TINY} == set(FAMILIES)


@pytest.mark.parametrize("name", TINY)
def test_prior_of_every_family_comes_back_as_it_was(name, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = TINY[name]().eval()
        for parameter in prior.parameters():  # nothing that a new prior would have by itself
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    write_prior(prior, tmp_path, {})
    again = read_prior(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["family"] == name.split(",")[0]
    assert type(again) is type(prior)
    assert again.config == prior.config
    assert again.state_dict().keys() == prior.state_dict().keys()
    assert all(torch.equal(t, again.state_dict()[key]) for key, t in prior.state_dict().items())
    prior, again = (p.sized(*(a or 8 for a in p.image_shape[1:])) for p in (prior, again))
    for attribute in ("image_shape", "latent_shape", "spread", "capabilities"):
        assert getattr(again, attribute) == getattr(prior, attribute)
    assert torch.equal(torch.as_tensor(again.centre), torch.as_tensor(prior.centre))
    if "denoise" in prior.capabilities:
        assert (again.sigma_min, again.sigma_max) == (prior.sigma_min, prior.sigma_max)
        assert again.sigma_max > 10 * again.sigma_min
    calls = {
        "decode": lambda p: p.decode(crops(*p.latent_shape)),
        "denoise": lambda p: p.denoise(crops(1, 5, 8), 0.2),
        "energy": lambda p: p.energy(crops(3, 8, 8)),
        "render": lambda p: p.render(crops(*p.latent_shape)),
    }
    call = calls.get(next((method for method in calls if method in prior.capabilities), None))
    if isinstance(prior, LearnedPosterior):
        call = lambda p: p.denoise_given(crops(1, 8, 8), 0.2, crops(3, 8, 8))  # noqa: E731
    assert torch.equal(call(again), call(prior))


# ---- damage ----


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def replaced(path, without=0, **more):
    """The weights without the first of them, or with others too."""
    save_file(dict(list(load_file(path).items())[without:]) | more, path)


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
    "weights elsewhere": ("model.safetensors", lambda path: path.write_text("version https://git-lfs.github.com/spec")),
    "weight missing": ("model.safetensors", lambda path: replaced(path, without=1)),
    "weight too many": ("model.safetensors", lambda path: replaced(path, more=torch.zeros(2))),
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
    "prediction unknown": ("config.json", argue(prediction="noise")),
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
    argue(steps=20)(folder / "config.json")
    weights = load_file(folder / "model.safetensors")
    name = next(iter(weights))
    for spoilt, told in (
        ({key: t for key, t in weights.items() if key != name}, f"it lacks {name}"),
        (weights | {"more": torch.zeros(2)}, "it has more besides"),
        (weights | {name: torch.zeros(1, 2)}, rf"{name} has shape \(1, 2\) and should have"),
    ):
        save_file(spoilt, folder / "model.safetensors")
        with pytest.raises(ValueError, match=rf"some prior is damaged or incomplete: {told}"):
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


SHELF = {
    "ddpm-mnist": lambda: tiny(0, image_shape=(1, 28, 28)),
    "ddpm-photo": lambda: tiny(1, image_shape=(3, None, None)),
    "flow-faces": lambda: tiny(2, image_shape=(3, 8, 8)),
    "flow-mnist": lambda: tiny(3, image_shape=(1, 28, 28)),
}


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Bundled priors of different seeds and sizes, and one folder among them that is none."""
    for name, make in SHELF.items():
        (tmp_path / "bundled" / name).mkdir(parents=True)
        write_prior(make(), tmp_path / "bundled" / name, {"name": name})
    (tmp_path / "bundled" / "notes").mkdir()
    monkeypatch.setattr(store, "BUNDLED", tmp_path / "bundled")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "bundled"


def test_prior_of_one_kind_of_images_goes_by_its_name_only(shelf):
    """An image of 28 x 28 need not be a digit, and this one says so."""
    config = shelf / "ddpm-mnist" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"by_name_only": True}))
    assert find_prior("ddpm", (1, 28, 28)) == shelf / "ddpm-photo"
    assert find_prior("ddpm-mnist", (1, 28, 28)) == shelf / "ddpm-mnist"
    assert read_prior(shelf / "ddpm-mnist").image_shape == (1, 28, 28)


@pytest.mark.parametrize(
    ("name", "image_shape", "found"),
    [
        ("ddpm-mnist", None, "ddpm-mnist"),
        ("ddpm-mnist", (3, 64, 64), "ddpm-mnist"),  # a name is a name: `restore` says that it does not fit
        ("ddpm", None, "ddpm-photo"),
        ("ddpm", (1, 28, 28), "ddpm-mnist"),
        ("ddpm", (1, 28, 29), "ddpm-photo"),
        ("ddpm", (3, 28, 28), "ddpm-photo"),
        ("ddpm", (3, 300, 200), "ddpm-photo"),
        ("flow", None, "flow-faces"),
        ("flow", (1, 28, 28), "flow-mnist"),
        ("flow", (3, 8, 8), "flow-faces"),
        ("flow", (1, 8, 8), "flow-faces"),
    ],
)
def test_name_or_family_finds_the_bundled_prior_that_fits(shelf, name, image_shape, found):
    assert bundled() == sorted(SHELF)
    assert find_prior(name, image_shape) == shelf / found
    stored = load_file(shelf / found / "model.safetensors")
    loaded = load_prior(name, "cpu", image_shape)
    assert all(torch.equal(t, stored[key]) for key, t in loaded.state_dict().items())


@pytest.mark.parametrize(("family", "image_shape"), [("flow", (3, 64, 64)), ("flow", (1, 28, 27)), ("ddpm", (2, 9, 9))])
def test_family_that_does_not_fit_the_image_is_refused_with_what_there_is(shelf, family, image_shape):
    there = {"flow": "flow-faces of (3, 8, 8), flow-mnist of (1, 28, 28)", "ddpm": "ddpm-photo of (3, None, None)"}
    with pytest.raises(ValueError, match=f"No bundled {family} prior fits images of shape") as caught:
        load_prior(family, image_shape=image_shape)
    assert str(image_shape) in str(caught.value)
    assert there[family] in str(caught.value)


def test_family_is_no_folder(shelf, folder):
    """A path is a path, even if a family has its name."""
    folder.rename(shelf.parent / "ddpm")
    assert find_prior(Path("ddpm")) == Path("ddpm")
    assert find_prior("ddpm") == shelf / "ddpm-photo"


def test_folder_is_found_by_text_or_path(shelf, folder):
    stored = load_file(folder / "model.safetensors")
    for name in (folder, str(folder), "some prior"):
        assert all(torch.equal(t, stored[key]) for key, t in load_prior(name).state_dict().items())


def test_unknown_prior_is_refused_with_a_guess(shelf):
    with pytest.raises(
        ValueError,
        match=r"Unknown prior 'ddpm-foto'; choose among ddpm-mnist, ddpm-photo, flow-faces, flow-mnist or a folder "
        r"that holds a trained prior, a checkpoint of ADM's network, or owner/name on the Hugging Face Hub\. Did you "
        r"mean 'ddpm-photo'\?",
    ):
        load_prior("ddpm-foto")
    with pytest.raises(ValueError, match=r"notes is not a prior: config\.json cannot be read"):
        load_prior(shelf / "notes")


def test_autocast_of_a_loaded_prior_follows_the_device(shelf, monkeypatch):
    for has, dtype in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(store, "has_bfloat16", lambda device, has=has: has)
        assert load_prior("ddpm").autocast is dtype


# ---- files of weights ----


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".ckpt", ".bin", ".safetensors", ".PT"])
def test_file_of_weights_says_what_can_be_read_and_how_to_convert_it(suffix, tmp_path):
    def restore(file):
        return genprior.restore(torch.rand(1, 8, 8), "denoise", prior=file, noise=0.1)

    file, convert = tmp_path / f"ema{suffix}", "To convert: .*from_diffusers.*from_denoiser"
    for take in (genprior.load_prior, restore):
        with pytest.raises(ValueError, match=f"would be a file of weights, which is not there.*{convert}"):
            take(str(file))
    file.write_bytes(b"no weights")
    with pytest.raises(ValueError, match=f"is a file of weights.*{convert}"):
        from_diffusers(file)
    for take in (genprior.load_prior, restore):
        with pytest.raises(ValueError, match=r"is no (file that torch\.save wrote|whole \.safetensors file)"):
            take(file)


def test_name_of_a_file_of_weights_is_not_looked_for_on_the_hub(monkeypatch):
    monkeypatch.setattr(store, "fetch", lambda name: pytest.fail("asked the Hub"))
    with pytest.raises(ValueError, match="To convert"):
        genprior.load_prior("runs/model.ckpt")


def test_weights_inside_a_prior_say_to_give_its_folder(tmp_path):
    genprior.save_prior(genprior.Gaussian(torch.zeros(1, 4, 4), torch.ones(1, 4, 4)), tmp_path / "mine")
    with pytest.raises(ValueError, match=r"are the weights of a prior: give its folder, .*mine"):
        genprior.load_prior(tmp_path / "mine" / "model.safetensors")


def test_folder_of_weights_alone_says_how_to_convert_them(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"never read")
    with pytest.raises(ValueError, match=r"has model\.ckpt, but no config\.json.*To convert"):
        genprior.load_prior(tmp_path)


def test_weights_themselves_say_how_to_make_a_prior_of_them():
    state = torch.nn.Linear(2, 2).state_dict()
    with pytest.raises(TypeError, match=r"not collections\.OrderedDict\..*To convert"):
        genprior.restore(torch.rand(1, 8, 8), "denoise", prior=state, noise=0.1)

"""Priors go to the Hugging Face Hub and come back the same; without a network here, through its local cache."""

import json
import shutil

import huggingface_hub
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, LDMPipeline, UNet2DModel, VQModel
from huggingface_hub import constants
from safetensors.torch import save_file

import genprior
from genprior.nets.adm import ADMUNet
from genprior.priors import hub, store
from genprior.priors.card import PICTURE
from genprior.priors.folder import read_card, write_prior
from genprior.priors.foreign import adm_published
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.store import find_prior, load_prior, resolved_name


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "prior").mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = Gaussian(torch.rand(1, 4, 4), torch.rand(1, 4, 4) + 0.1)
    write_prior(prior, tmp_path / "prior", {"licence": "CC0-1.0", "data": "noise", "steps": 3})
    (tmp_path / "prior" / "notes.txt").write_text("mine")
    return tmp_path / "prior"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The Hub's cache, offline; what is uploaded appears in it, laid out as a download would leave it."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    created = {}

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        kept = tmp_path / "cache" / f"models--{repo_id.replace('/', '--')}"
        (kept / "refs").mkdir(parents=True)
        (kept / "refs" / "main").write_text("1" * 40)
        shutil.copytree(folder_path, kept / "snapshots" / ("1" * 40))

    monkeypatch.setattr(
        huggingface_hub.HfApi, "create_repo", lambda self, name, **options: created.update({name: options})
    )
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    return created


def test_prior_comes_back_from_the_hub_as_it_went(folder, cache):
    assert hub.push_to_hub(folder, "someone/noise", private=True) == "https://huggingface.co/someone/noise"
    assert cache == {"someone/noise": {"private": True, "exist_ok": True}}
    fetched = find_prior("someone/noise")
    assert {path.name for path in fetched.iterdir()} == {"README.md", *hub.FILES} - {"covariance.safetensors"}
    assert read_card(fetched) == read_card(folder)
    ours, theirs = load_prior(folder), load_prior("someone/noise")
    assert all(torch.equal(t, theirs.state_dict()[key]) for key, t in ours.state_dict().items())
    readme = (fetched / "README.md").read_text()
    assert huggingface_hub.ModelCard(readme).data.license_name == "CC0-1.0"
    assert 'prior="someone/noise"' in readme
    assert "## someone/noise\n" in readme
    assert "- Steps: 3" in readme
    assert "![" not in readme


def test_picture_of_a_prior_goes_with_its_card(folder, cache):
    (folder / PICTURE).write_bytes(b"jpeg")
    hub.push_to_hub(folder, "someone/noise")
    pushed = hub.fetch("someone/noise")
    assert (pushed / PICTURE).read_bytes() == b"jpeg"
    assert f"]({PICTURE})" in (pushed / "README.md").read_text()


COMMIT = "1" * 40


def test_commit_is_known_and_may_be_asked_for(folder, cache, tmp_path):
    """In the prior, in the record of what was restored with it, and as a name to get the same again."""
    hub.push_to_hub(folder, "someone/noise")
    assert load_prior(folder).revision is None
    for name in ("someone/noise", f"someone/noise@{COMMIT}", "someone/noise@main"):
        assert load_prior(name).revision == COMMIT
        result = genprior.restore(torch.rand(1, 4, 4), "denoise", prior=name, noise=0.1, n=1, seed=0, progress=False)
        assert (result.prior_name, result.prior.revision) == (name, COMMIT)
        result.save(tmp_path / "result.npz", overwrite=True)
        run = json.loads(str(np.load(tmp_path / "result.npz")["run"]))
        assert (run["prior"]["name"], run["prior"]["revision"]) == (name, COMMIT)
    with pytest.raises(ValueError, match="no prior of that name could be had from the Hugging Face Hub"):
        load_prior(f"someone/noise@{'2' * 40}")


def latent():
    sizes = {"block_out_channels": (8,), "layers_per_block": 1, "norm_num_groups": 4}
    unet = UNet2DModel(
        8, 3, 3, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), add_attention=False, **sizes
    )
    return LDMPipeline(VQModel(latent_channels=3, **sizes), unet, DDIMScheduler())


def test_pipeline_of_diffusers_goes_to_the_hub_with_what_was_measured_of_it(cache, tmp_path):
    prior = genprior.from_diffusers(latent())
    prior.fit_decoder(torch.rand(2, 3, 8, 8))
    genprior.save_prior(prior, tmp_path / "measured")
    hub.push_to_hub(tmp_path / "measured", "someone/measured")
    fetched = load_prior("someone/measured")
    assert torch.equal(fetched.decoder_variance, prior.decoder_variance)
    x = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(fetched.encode(x), prior.encode(x), rtol=1e-4, atol=1e-5)


def test_pipeline_of_diffusers_is_had_offline_from_the_cache(cache, tmp_path):
    """A latent one: all of its parts, from the snapshot that a download left."""
    pipeline = latent()
    kept = tmp_path / "cache" / "models--someone--latent"
    pipeline.save_pretrained(kept / "snapshots" / COMMIT)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(COMMIT)
    prior = load_prior("someone/latent")
    assert (type(prior).__name__, prior.revision) == ("DiffusersLatentPrior", COMMIT)
    (kept / "snapshots" / COMMIT / "vqvae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"vqvae has no diffusion_pytorch_model\.safetensors"):
        load_prior("someone/latent")


def test_damaged_prior_is_not_published(folder, cache):
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="damaged or incomplete"):
        hub.push_to_hub(folder, "someone/noise")
    assert cache == {}


def test_prior_that_the_hub_does_not_have_is_one_clear_error(cache):
    with pytest.raises(ValueError, match=r"There is no folder someone/nothing, and no prior of that name could be had"):
        load_prior("someone/nothing")


def test_hub_is_asked_only_for_what_cannot_be_a_folder(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(store, "fetch", lambda name: asked.append(name) or tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "prior").mkdir(parents=True)
    assert find_prior("runs/prior").name == "prior"
    for name in ("runs/prio", "ddpm-foto", "a/b/c", "../prior", "./prior", "/prior", "prior/", tmp_path / "x" / "y"):
        with pytest.raises(ValueError, match="Unknown prior"):
            find_prior(name)
    assert asked == []
    find_prior("someone/prior")
    assert asked == ["someone/prior"]


def test_name_of_a_repository_has_an_owner(folder, cache):
    for name in ("noise", "someone/noise@main"):
        with pytest.raises(ValueError, match="give owner/name"):
            hub.push_to_hub(folder, name)


# ---- checkpoints ----


def kept(tmp_path, name, commit="2" * 40, **files):
    """Those files of a repository in the cache, as a download leaves them: links to files named by what they hold."""
    home = tmp_path / "cache" / f"models--{name.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "blobs").mkdir()
    (home / "refs" / "main").write_text(commit)
    for file, state in files.items():
        place = home / "snapshots" / commit / file.replace("_", ".")
        place.parent.mkdir(parents=True, exist_ok=True)
        blob = home / "blobs" / f"{len(list((home / 'blobs').iterdir())):064x}"
        save_file(state, blob) if file.endswith("safetensors") else torch.save(state, blob)
        place.symlink_to(blob)


def checkpoint(shift=0.0):
    """Of the smallest network that the tables know once `listed` has put it there."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {key: t + shift for key, t in ADMUNet(**SMALL, heads=1).state_dict().items()}


SMALL = {
    "channels": 1,
    "outputs": 2,
    "base": 32,
    "widths": [32],
    "blocks": 1,
    "attention": [],
    "classes": 0,
    "scale_shift": True,
    "resample_blocks": True,
}


@pytest.fixture
def listed(monkeypatch):
    setup = {"head_channels": None, "heads": 1, "order": "new", "betas": "linear", "steps": 1000, "time_scale": 1.0}
    known = adm_published.Published(("small.pt",), "nothing", SMALL, setup)
    monkeypatch.setattr(adm_published, "PUBLISHED", (known,))


def test_checkpoint_on_the_hub_is_found_offline(tmp_path, cache, listed):
    kept(tmp_path, "someone/adm", small_pt=checkpoint())
    kept(tmp_path, "someone/both", small_pt=checkpoint(1.0), small_safetensors=checkpoint())
    kept(tmp_path, "someone/several", one_pt=checkpoint(1.0), two_pt=checkpoint())
    for name in ("someone/adm", "someone/adm/small.pt", "someone/both", "someone/several/two.pt"):
        state = load_prior(name).state_dict()
        assert all(torch.equal(t, state[f"net.{key}"]) for key, t in checkpoint().items()), name
        assert resolved_name(name) == name
        assert load_prior(name.replace("someone/adm", "someone/adm@main")).revision == "2" * 40
    # `restore`, which keeps what it loaded, finds the file by its link
    y = genprior.degrade(torch.rand(1, 8, 8), "denoise", noise=0.1, seed=0)
    restored = genprior.restore(y, prior="someone/adm", sampler="diffpir", steps=1, n=1, seed=0, progress=False)
    assert restored.prior_name == "someone/adm"
    with pytest.raises(ValueError, match=r"weights several, one\.pt, two\.pt: give one, someone/several/one\.pt"):
        load_prior("someone/several")
    with pytest.raises(ValueError, match=r"someone/adm on the Hugging Face Hub has no other\.pt"):
        load_prior("someone/adm/other.pt")
    with pytest.raises(ValueError, match="no prior of that name could be had"):
        load_prior("someone/nothing/small.pt")


def test_what_a_repository_lists_decides_and_not_what_was_downloaded(tmp_path, cache, listed, monkeypatch):
    kept(tmp_path, "someone/several", one_pt=checkpoint(1.0), two_pt=checkpoint())
    asked = []

    def list_repo_files(self, name, *, revision):
        asked.append((name, revision))
        return ["README.md", "two.pt"]

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", list_repo_files)
    state = load_prior("someone/several@main").state_dict()
    assert all(torch.equal(t, state[f"net.{key}"]) for key, t in checkpoint().items())
    assert asked == [("someone/several", "main")]


def test_repository_without_a_prior_is_told(tmp_path, cache):
    kept(tmp_path, "someone/words", readme_md={})
    with pytest.raises(ValueError, match="holds no prior of ours or of diffusers, and of weights none"):
        load_prior("someone/words")

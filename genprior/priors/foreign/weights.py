"""Files of weights: how to read them, which to refuse and why, and how to fill a network with them."""

import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from genprior.ambient import HALF

SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".safetensors", ".onnx", ".h5", ".msgpack")
# Of those, the ones that torch.save and safetensors write.
READ = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".safetensors")
ADVICE = (
    "Weights do not say what network they are of, so that files are read only of ADM's (guided-diffusion, such as "
    "ffhq_10m.pt), and folders of a prior, as `genprior train` and genprior.save_prior write them (config.json, "
    "model.safetensors), or of a diffusers model. To convert: build the network, network.load_state_dict(torch.load("
    "file, weights_only=True)), and give genprior.from_diffusers(network, scheduler) for a UNet2DModel of diffusers, "
    "or for any other the function E[x | x_t], genprior.from_denoiser(f)."
)
EDM = (
    "is a pickle of EDM or EDM2 (torch_utils.persistence), which holds the network's own source code and runs it when "
    "it is opened: it is not read here. If you trust it, open it in the repository that it comes from and give the "
    "network, `network = pickle.load(file)['ema'].eval()`, as a denoiser: genprior.from_denoiser(lambda x_t, sigma: "
    "(network(2 * x_t - 1, 2 * sigma) + 1) / 2, image_shape, sigma_min=0.001, sigma_max=40); or take the weights that "
    "deepinv converted: genprior.from_denoiser(deepinv.models.NCSNpp(pretrained='edm-ffhq-64x64-uncond-ve'), "
    "(3, 64, 64), sigma_min=0.001, sigma_max=40)."
)
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # first bytes of files of torch.save until 1.6
POINTER = b"version https://git-lfs"
BEGINNING = 2**20  # bytes within which a pickle of EDM names its module
# Keys under which trainers store a state dict among other things, averages first.
CONTAINERS = (
    "params_ema", "ema_state_dict", "model_ema", "ema_model", "ema", "state_dict", "model_state_dict", "model",
    "params", "network", "net", "unet",
)  # fmt: skip


def is_weights(path: Path) -> bool:
    """Whether a path names a file of weights, existing or not."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def refuse_weights(path: Path) -> None:
    """Refuse a file of weights; the message says what to do.

    Raises:
        ValueError: the path names one.
    """
    if not is_weights(path):
        return
    refuse_weights_of_folder(path)
    there = "is a file of weights" if path.exists() else "would be a file of weights, which is not there"
    raise ValueError(f"{path} {there}. {ADVICE}")


def refuse_weights_of_folder(path: Path) -> None:
    """Refuse the weights inside the folder of a prior.

    Raises:
        ValueError: the path is such a file.
    """
    if is_weights(path) and path.exists() and (path.parent / "config.json").exists():
        raise ValueError(f"{path} are the weights of a prior: give its folder, {path.parent}.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors in a file, by name, on the CPU: .safetensors, or a pickle that holds nothing but tensors.

    Nothing in the file is run. From a checkpoint that stores a state dict among other things, return that one, averages
    before others. Memory holds the size of the file once.

    Raises:
        ValueError: the file is missing, of another kind, damaged, cut short, holds anything that would have to run, or
            has no state dict; the message says what to do.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder, and a file of weights was wanted: genprior.load_prior reads folders.")
    if not path.exists():
        raise ValueError(f"{path} would be a file of weights, which is not there.")
    if path.suffix.lower() not in READ:
        raise ValueError(f"{path}: of files of weights {', '.join(READ)} are read. {ADVICE}")
    beginning, safe = _beginning(path), path.suffix.lower() == ".safetensors"
    if safe and beginning.startswith((b"PK", b"\x80\x02")):
        raise ValueError(f"{path} is a file of torch.save by another name: call it {path.stem}.pt.")
    if not safe and beginning[8:10] == b'{"':
        raise ValueError(f"{path} is a .safetensors file by another name: call it {path.stem}.safetensors.")
    return _read_safetensors(path) if safe else _state_in(_unpickled(path, beginning), path)


def tensors_in(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and a copy of each tensor in a .safetensors file, one after the other.

    Mapping the whole file would use memory beside the copies, and tensors not copied would change with the file.

    Raises:
        SafetensorError, OSError: it is not such a file, or is cut short.
        ValueError: it is a git-lfs pointer, not the file itself.
    """
    _beginning(path)
    with safe_open(path, "pt") as file:
        names = list(file.keys())
    for name in names:
        with safe_open(path, "pt") as file:
            tensor = file.get_tensor(name).clone()
        yield name, tensor


class Misfit(NamedTuple):
    """The names of weights that do not fit a network; all lists are empty if they fit."""

    missing: list[str]
    others: list[str]
    unlike: list[str]
    broken: list[str]


def misfit(state: Mapping[str, Tensor], network: nn.Module) -> Misfit:
    """Return names that weights lack, that the network lacks, of other shapes, and of values not finite and real."""
    wanted = network.state_dict()
    return Misfit(
        [name for name in wanted if name not in state],
        [name for name in state if name not in wanted],
        [name for name, t in state.items() if name in wanted and t.shape != wanted[name].shape],
        [name for name, t in state.items() if not _finite(t)],
    )


def fill(module: nn.Module, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Make tensors the module's parameters and buffers, by name, one after the other, so that memory holds each once.

    They take the precision of what they replace. On torch's meta device, where there was nothing yet, half precision
    stays, unless parameters differ in precision. Either way the network computes in float32, see `nets.kept`.

    Raises:
        ValueError: a tensor is missing, has another shape, or has no place in the module.
    """
    places = module.state_dict()
    for name, tensor in tensors:
        if name not in places:
            raise ValueError(f"it has {name} besides")
        place = places.pop(name)
        if tensor.shape != place.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)} and should have {tuple(place.shape)}")
        if not (place.is_meta and tensor.dtype in HALF):
            tensor = tensor.to(place.dtype)
        home, _, last = name.rpartition(".")
        owner = module.get_submodule(home)
        setattr(owner, last, nn.Parameter(tensor, requires_grad=False) if last in owner._parameters else tensor)
    if places:
        raise ValueError(f"it lacks {listed(list(places))}")
    kept = {p.dtype for p in module.parameters()}
    if len(kept) > 1 and kept & {*HALF}:
        module.float()


def taken_from(state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield each name and tensor of the state dict, removing it there."""
    for name in list(state):
        yield name, state.pop(name)


def listed(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _finite(t: Tensor) -> bool:
    """Whether all values are finite real numbers, judged by the extremes, which needs no memory."""
    if not t.is_floating_point() or not t.numel():
        return t.is_floating_point()
    extremes = (t if t.element_size() > 1 else t.float()).aminmax()  # torch has no aminmax for 8-bit floats
    return all(bool(a.isfinite()) for a in extremes)


def _beginning(path: Path) -> bytes:
    """Read the first bytes of a file; refuse a git-lfs pointer."""
    with path.open("rb") as file:
        beginning = file.read(BEGINNING)
    if beginning.startswith(POINTER):
        raise ValueError(
            f"{path} only says where its weights are, as repositories do that keep large files elsewhere (git-lfs): "
            "get them by `git lfs pull`, or download the file."
        )
    return beginning


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(tensors_in(path))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no whole .safetensors file, cut short or of another kind: {error}") from error


def _unpickled(path: Path, beginning: bytes) -> Any:
    if b"torch_utils.persistence" in beginning:
        raise ValueError(f"{path} {EDM}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about foreign pickle protocols before it raises
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        _refuse_pickle(path, beginning, error)


def _refuse_pickle(path: Path, beginning: bytes, error: Exception) -> NoReturn:
    """Raise an error that explains one of torch.load, whatever its class."""
    archive, pickled = beginning[:2] == b"PK", beginning[:1] == b"\x80"
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if named or (pickled and not beginning.startswith(LEGACY)):
        what = f"holds {named[1]}, which is no tensor" if named else "is a pickle of more than tensors"
        raise ValueError(
            f"{path} {what}: opening it would run code, so it is not read. If you trust it, load it where it comes "
            "from and save its tensors alone: torch.save(network.state_dict(), file)."
        ) from error
    if archive and not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is cut short: it begins as a file of torch.save does and has no end. Get it again."
        ) from error
    if archive:
        raise ValueError(f"{path} is damaged, or no file that torch.save wrote: {_first_line(error)}") from error
    raise ValueError(f"{path} is no file that torch.save wrote, or cut short: get it again.") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _state_in(loaded: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict that a file is, or the first that it holds under one of `CONTAINERS`."""
    if isinstance(loaded, Tensor):
        raise ValueError(f"{path} holds one tensor of shape {tuple(loaded.shape)}, not the weights of a network.")
    if isinstance(loaded, dict):
        for found in (loaded, *(loaded.get(name) for name in CONTAINERS)):
            if isinstance(found, dict) and found and all(isinstance(a, Tensor) for a in found.values()):
                return dict(found)
    told = ", ".join(map(str, list(loaded)[:8])) if isinstance(loaded, dict) else f"a {type(loaded).__name__}"
    raise ValueError(
        f"{path} has no state dict where checkpoints keep one ({', '.join(CONTAINERS)}), but {told or 'nothing'}. Give "
        "genprior.from_adm the part of it that is the network's."
    )

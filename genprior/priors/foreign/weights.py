"""Files of weights, which are no priors: what to do with them."""

from pathlib import Path

SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".safetensors", ".onnx", ".h5", ".msgpack")
ADVICE = (
    "Weights do not say what network they are of, and pickled ones may run code, so that only folders are read: of a "
    "prior, as `genprior train` and genprior.save_prior write them (config.json, model.safetensors), or of a diffusers "
    "model. To convert: build the network, network.load_state_dict(torch.load(file, weights_only=True)), and give "
    "genprior.from_diffusers(network, scheduler) for a UNet2DModel of diffusers, or for any other the function "
    "E[x | x_t], genprior.from_denoiser(f)."
)


def is_weights(path: Path) -> bool:
    """Whether a path is, by its name, a file of weights, be it there or not."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def refuse_weights(path: Path) -> None:
    """Refuse a file of weights, with what to do.

    Raises:
        ValueError: it is one.
    """
    if not is_weights(path):
        return
    if path.exists() and (path.parent / "config.json").exists():
        raise ValueError(f"{path} are the weights of a prior: give its folder, {path.parent}.")
    there = "is a file of weights" if path.exists() else "would be a file of weights, which is not there"
    raise ValueError(f"{path} {there}. {ADVICE}")

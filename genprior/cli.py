"""The command line: genprior restore | degrade | sample | train | priors."""

from __future__ import annotations

import argparse
import inspect
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

OPERATORS = "inpaint, super-resolution, gaussian-deblur, motion-deblur, deblur, colorize, denoise"
FAMILIES = ("ddpm", "vae", "nf", "gan")  # what can be trained, see genprior.training.families
PARAMETERS = ("mask", "scale", "antialias", "width", "length", "angle", "kernel", "boundary")
SIMULATION = ("fraction", "size")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit code is 0, 1 if something failed, 2 if the command line was wrong."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        print("genprior: stopped", file=sys.stderr)
        return 130
    except _expected_errors() as error:
        print(f"genprior: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="genprior", description="Generative priors for imaging inverse problems.")
    commands = parser.add_subparsers(dest="command", required=True)

    restore = commands.add_parser("restore", help="restore images from their measurements")
    _add_images(restore)
    _add_operator(restore)
    restore.add_argument(
        "--prior", default="ddpm", help="name, folder, or family: the prior of it that fits each image (default: ddpm)"
    )
    restore.add_argument(
        "--sampler", default="auto", help="auto, or a name such as diffpir; a wrong one lists them (default: auto)"
    )
    restore.add_argument("--n", type=int, default=1, help="samples of each image; their mean is written (default: 1)")
    restore.add_argument("--samples", action="store_true", help="write every sample too, as NAME_sample-K.png")
    restore.add_argument(
        "--std", action="store_true", help="write the standard deviation too, its maximum white, as NAME_std.png"
    )
    restore.add_argument("--noise", type=float, help="standard deviation of the noise on [0, 1]; estimated if left out")
    restore.add_argument("--steps", type=int, help="steps of the sampler")
    restore.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: %(default)s)")
    restore.set_defaults(run=_restore)

    degrade = commands.add_parser("degrade", help="measure images: make blurred, holed, small, noisy ones")
    _add_images(degrade)
    _add_operator(degrade)
    degrade.add_argument("--fraction", type=float, help="of the pixels, for --mask random or stroke")
    degrade.add_argument("--size", type=int, nargs="+", help="of the hole, for --mask box: one number, or height width")
    degrade.add_argument("--noise", type=float, default=0.0, help="standard deviation on [0, 1] (default: 0)")
    degrade.set_defaults(run=_degrade)

    sample = commands.add_parser("sample", help="draw images from a prior")
    sample.add_argument("--prior", default="ddpm", help="name, folder, or family (default: %(default)s)")
    sample.add_argument("--n", type=int, default=16, help="how many (default: %(default)s)")
    sample.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="for priors of any size")
    sample.add_argument("--steps", type=int, help="of the prior's chain (default: all)")
    sample.add_argument("--label", type=int, help="class label, for priors that have classes")
    sample.add_argument("--guidance", type=float, help="of the label: 1 for its images, more for typical ones")
    sample.add_argument("--device", default="auto")
    _add_output(sample, "the sheet of samples, such as samples.png")
    sample.set_defaults(run=_sample)

    train = commands.add_parser("train", help="train a prior on your images; call again to resume")
    train.add_argument("family", choices=FAMILIES, help="what to train; gan: images of one size only")
    train.add_argument("--data", required=True, help="folder of images, or an .npz file")
    train.add_argument("--validation", help="folder of other images, or an .npz file")
    train.add_argument("--images", default="train_images", help="array of the .npz file (default: %(default)s)")
    train.add_argument("--labels", help="array of class labels in the .npz file")
    train.add_argument("--size", type=int, default=64, help="side of the crops of a folder's images (default: 64)")
    train.add_argument("--channels", type=int, choices=[1, 3], default=3, help="of a folder's images: 1 grey, 3 RGB")
    train.add_argument("--out", required=True, help="folder of the run; OUT/prior is the result")
    train.add_argument("--steps", type=int, default=20000)
    train.add_argument("--batch", type=int, default=16)
    train.add_argument("--accumulate", type=int, default=1, help="micro-batches per step")
    train.add_argument("--lr", type=float, help="learning rate (default: the family's)")
    train.add_argument("--precision", default="no", choices=["no", "bf16"])
    train.add_argument("--patience", type=int, help="validations without improvement after which to stop")
    train.add_argument("--workers", type=int, default=0, help="processes that load data")
    train.add_argument("--licence", default="unknown", help="of the data, for the card")
    train.add_argument("--seed", type=int, default=0)
    train.set_defaults(run=_train)

    priors = commands.add_parser("priors", help="list the priors that come with the package, or show a card")
    priors.add_argument("prior", nargs="?", help="name, family or folder, to show its card")
    priors.set_defaults(run=_priors)
    return parser


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", type=Path, help="image files, .npy arrays, or folders of them")
    seed = "of all randomness, with the file's name: a file's result is the same alone and in a folder (default: 0)"
    _add_output(parser, "file for one input, or folder (made if needed)", seed)


def _add_output(parser: argparse.ArgumentParser, text: str, seed: str = "of all randomness (default: 0)") -> None:
    parser.add_argument("-o", "--out", type=Path, required=True, help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.add_argument("--seed", type=int, default=0, help=seed)


def _add_operator(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--op", default="inpaint", help=f"{OPERATORS} (default: %(default)s)")
    parser.add_argument("--mask", help="image whose white marks the holes, or a folder of NAME_mask.png")
    parser.add_argument("--scale", type=int, help="super-resolution: whole factor")
    parser.add_argument("--antialias", help="super-resolution: bicubic, gaussian or average")
    parser.add_argument("--width", type=float, help="gaussian-deblur: standard deviation of the blur in pixels")
    parser.add_argument("--length", type=int, help="motion-deblur: in pixels")
    parser.add_argument("--angle", type=float, help="motion-deblur: degrees, counter-clockwise from the x axis")
    parser.add_argument("--kernel", type=Path, help="deblur: image or .npy of the kernel (images are scaled to sum 1)")
    parser.add_argument("--boundary", help="blurs: valid (the scene goes on past the frame) or circular")


def _restore(options: argparse.Namespace) -> int:
    import genprior
    from genprior import images
    from genprior.priors.store import find_prior
    from genprior.restoration import pick_device

    find_prior(options.prior)
    device = pick_device(options.device)

    def one(path: Path, target: Path) -> None:
        extra = [target.with_name(f"{target.stem}_sample-{k}.png") for k in range(options.n if options.samples else 0)]
        deviation = [target.with_name(f"{target.stem}_std.png")] if options.std else []
        _refuse_existing([target, *extra, *deviation], options.overwrite)
        result = genprior.restore(
            _load(path),
            options.op,
            options.prior,
            sampler=options.sampler,
            n=options.n,
            noise=options.noise,
            steps=options.steps,
            seed=_seed(options, path),
            device=device,
            **_parameters(options, path),
        )
        if target.suffix == ".npy":
            _save_array(result.mean, target)
        else:
            result.save(target, overwrite=options.overwrite)
        print(f"{path} -> {target}: {result}")
        for file, sample in zip(extra, result.samples):
            images.save(sample, file)
        for file in deviation:
            images.save(result.std / result.std.max().clamp_min(1e-12), file)

    return _each(options, one)


def _degrade(options: argparse.Namespace) -> int:
    import genprior
    from genprior import images

    def one(path: Path, target: Path) -> None:
        mask = target.with_name(f"{target.stem}_mask.png") if options.op == "inpaint" else None
        _refuse_existing([target] + [mask] * (mask is not None), options.overwrite)
        parameters = _parameters(options, path)
        parameters |= {name: getattr(options, name) for name in SIMULATION if getattr(options, name) is not None}
        if "size" in parameters:
            size = parameters["size"]
            parameters["size"] = size[0] if len(size) == 1 else tuple(size)
        seed = _seed(options, path)
        measurement = genprior.degrade(_load(path), options.op, noise=options.noise, seed=seed, **parameters)
        y = measurement.y[0]
        if mask is not None:
            # The noise under the holes means nothing; black says so.
            holes = measurement.operator.mask[0]
            y = y.masked_fill(holes, 0)
            images.save(holes[:1].float(), mask)
        if target.suffix == ".npy":
            _save_array(y, target)
        else:
            clipped = float(((y < 0) | (y > 1)).float().mean())
            images.save(y, target)
            if clipped > 0:
                print(f"{target}: {clipped:.1%} of the values were clipped to [0, 1]; a .npy file would keep them.")
        print(f"{path} -> {target}" + (f", holes in {mask}" if mask else ""))

    return _each(options, one)


def _sample(options: argparse.Namespace) -> int:
    import genprior
    from genprior import images
    from genprior.restoration import pick_device

    if options.out.suffix.lower() not in images.IMAGE_SUFFIXES:
        raise ValueError(f"--out {options.out} is no image; end it with one of {' '.join(images.IMAGE_SUFFIXES)}.")
    _refuse_existing([options.out], options.overwrite)
    prior = genprior.load_prior(options.prior, pick_device(options.device))
    choices = {
        "size": options.size and tuple(options.size),
        "steps": options.steps,
        "label": options.label,
        "guidance": options.guidance,
    }
    chosen = {name: value for name, value in choices.items() if value is not None}
    if not genprior.supports(prior, "sample"):
        prior.sample(options.n)  # says so, and what the prior has
    if unknown := chosen.keys() - inspect.signature(prior.sample).parameters.keys():
        raise ValueError(
            f"Samples of {options.prior}, a {type(prior).__name__}, take no {' or '.join(sorted(unknown))}; leave "
            f"{', '.join(f'--{name}' for name in sorted(unknown))} out."
        )
    if options.guidance is not None and options.label is None:
        raise ValueError("--guidance is towards a label; say which, as --label 5.")
    images.save(images.grid(prior.sample(options.n, seed=options.seed, **chosen).cpu()), options.out)
    print(f"{options.n} samples of {options.prior} -> {options.out}")
    return 0


def _train(options: argparse.Namespace) -> int:
    from genprior.training.data import Arrays, Photos, first
    from genprior.training.families import plan
    from genprior.training.loop import Settings, train

    def dataset(path: str, augment: bool):
        if path.endswith(".npz"):
            return Arrays(path, options.images, options.labels, seed=options.seed if augment else None)
        return Photos(path, options.size, channels=options.channels, seed=options.seed, augment=augment)

    data = dataset(options.data, True)
    held_out = dataset(options.validation or options.data, False)
    examples = first(data, 256)
    size = tuple(examples.shape[2:])
    shape = tuple(examples.shape[1:]) if isinstance(data, Arrays) else (options.channels, None, None)
    classes = int(data.labels.max()) + 1 if isinstance(data, Arrays) and options.labels else 0
    chosen = plan(options.family, shape, classes, examples, options.seed)
    names = ("steps", "batch", "accumulate", "lr", "precision", "patience", "workers", "seed")
    stated = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    train(
        chosen.prior,
        chosen.objectives,
        data,
        Settings(**{**chosen.settings, **stated}),
        options.out,
        validation=held_out if options.validation else None,
        preview=lambda prior: chosen.preview(prior, 16, size),
        finish=chosen.finish and (lambda prior: chosen.finish(prior, first(held_out, 64))),
        card={"data": Path(options.data).name, "licence": options.licence},
    )
    print(f"{Path(options.out) / 'prior'} is ready: genprior restore … --prior {Path(options.out) / 'prior'}")
    return 0


def _priors(options: argparse.Namespace) -> int:
    import json

    from genprior.priors.store import BUNDLED, bundled, find_prior, read_card

    if options.prior:
        print(json.dumps(read_card(find_prior(options.prior)), indent=2, ensure_ascii=False))
        return 0
    for name in bundled():
        card = read_card(BUNDLED / name)
        print(f"{name:16} {card.get('summary', '')} Licence: {card.get('licence', 'unknown')}")
    return 0


def _each(options: argparse.Namespace, run: Callable[[Path, Path], None]) -> int:
    """Run on every input; report the ones that fail, go on with the rest."""
    pairs = _targets(options.inputs, options.out)
    failures = 0
    for path, target in pairs:
        try:
            run(path, target)
        # RuntimeError: torch is out of memory, which the next file may not need
        except (*_expected_errors(), RuntimeError, MemoryError) as error:
            print(f"genprior: {path}: {str(error) or type(error).__name__}", file=sys.stderr)
            failures += 1
    if failures and len(pairs) > 1:
        print(f"genprior: {failures} of {len(pairs)} failed", file=sys.stderr)
    return 1 if failures else 0


def _targets(inputs: list[Path], out: Path) -> list[tuple[Path, Path]]:
    """Where each image goes: OUT itself for one file and an OUT with an image's suffix, else OUT/…/NAME.png."""
    from genprior.images import IMAGE_SUFFIXES, list_images

    if len(inputs) == 1 and not inputs[0].is_dir() and out.suffix.lower() in (*IMAGE_SUFFIXES, ".npy"):
        return [(inputs[0], out)]
    if out.is_file():
        raise ValueError(
            f"--out {out} is a file; give a folder, or for one image a name that ends in .png or the like."
        )
    pairs = []
    for given in inputs:
        if given.is_dir():
            listed = list_images(given, (*IMAGE_SUFFIXES, ".npy"))
            found = _without_masks(listed)
            if not found:
                raise ValueError(f"There are no images in {given}.")
            if masks := len(listed) - len(found):
                print(f"genprior: {given}: skipped {masks} masks, NAME_mask beside NAME", file=sys.stderr)
            pairs += [(path, out / path.relative_to(given).with_suffix(".png")) for path in found]
        else:
            pairs.append((given, out / f"{given.stem}.png"))
    seen: dict[Path, Path] = {}
    for path, target in pairs:
        if target in seen:
            raise ValueError(f"{seen[target]} and {path} would both be written to {target}; restore them separately.")
        seen[target] = path
    return pairs


def _without_masks(paths: list[Path]) -> list[Path]:
    """The images but for NAME_mask beside NAME, which `degrade` writes."""
    names = {path.with_suffix("") for path in paths}
    masks = {path.with_name(f"{path.name}_mask") for path in names}
    return [path for path in paths if path.with_suffix("") not in masks]


def _seed(options: argparse.Namespace, path: Path) -> int:
    return zlib.crc32(f"{options.seed} {path.name}".encode())


def _parameters(options: argparse.Namespace, path: Path) -> dict[str, Any]:
    chosen = {name: getattr(options, name) for name in PARAMETERS if getattr(options, name) is not None}
    if "mask" in chosen and Path(chosen["mask"]).is_dir():
        chosen["mask"] = _mask_of(path, Path(chosen["mask"]))
    if "kernel" in chosen:
        chosen["kernel"] = _kernel(chosen["kernel"])
    return chosen


def _mask_of(path: Path, folder: Path) -> Path:
    from genprior.images import IMAGE_SUFFIXES

    # A folder that holds the image too, as `degrade` writes one, has its mask beside it.
    place = path.parent if folder in path.parents else folder
    for stem in (f"{path.stem}_mask", path.stem):
        for suffix in IMAGE_SUFFIXES:
            mask = place / f"{stem}{suffix}"
            if mask.exists() and mask != path:
                return mask
    raise ValueError(f"{place} has no mask for {path.name}; call it {path.stem}_mask.png or {path.stem}.png.")


def _kernel(path: Path) -> Any:
    from genprior import images

    if path.suffix == ".npy":
        return _load_array(path)
    kernel = images.read(path).x[0].mean(0)
    if not kernel.sum() > 0:
        raise ValueError(f"The kernel {path} is black; a kernel's brightness is its weight.")
    return kernel / kernel.sum()


def _load(path: Path) -> Any:
    if path.suffix != ".npy":
        return path
    array = _load_array(path)
    if array.ndim == 4:
        raise ValueError(f"it holds {len(array)} images, in the shape {array.shape}; give one file for each.")
    return array


def _load_array(path: Path) -> Any:
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as an array of numbers: {error}") from error


def _save_array(x: Any, path: Path) -> None:
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, x.movedim(0, -1).numpy())


def _refuse_existing(targets: list[Path], overwrite: bool) -> None:
    there = [str(target) for target in targets if target.exists()]
    if there and not overwrite:
        raise FileExistsError(f"{', '.join(there)} exists; choose another --out, or pass --overwrite")


def _expected_errors() -> tuple[type[Exception], ...]:
    from genprior.priors.base import UnsupportedError

    return (ValueError, TypeError, OSError, ArithmeticError, UnsupportedError)


if __name__ == "__main__":
    sys.exit(main())

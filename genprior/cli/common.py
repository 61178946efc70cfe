"""What commands on images share: arguments, files, going on after a failure."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genprior.cli.names import OPERATORS

PARAMETERS = ("mask", "scale", "antialias", "width", "length", "angle", "kernel", "boundary", "oversample")

IDENTIFIED = {
    "width": "gaussian-deblur: standard deviation of the blur in pixels",
    "length": "motion-deblur: in pixels",
    "angle": "motion-deblur: degrees, counter-clockwise from the x axis",
}

STDOUT = Path("-")


NOISE = (
    "standard deviation of the noise on [0, 1], or another law of y: poisson:GAIN, poisson-gaussian:GAIN,SD, "
    "quantised:STEP, clipped:LOW,HIGH,SD"
)


def noise_of(text: str) -> Any:
    """Parse a known --noise: a number, or a likelihood."""
    from genprior.likelihoods.named import named

    try:
        return float(text)
    except ValueError:
        pass
    try:
        return named(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def noise_to_estimate(text: str) -> Any:
    """Parse --noise as `noise_of` does, or "poisson", for noise to be estimated."""
    return text if text == "poisson" else noise_of(text)


def add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", type=Path, help="image files, .npy arrays, or folders of them")
    seed = (
        "of all randomness, with the file's name, or its path below the folder given: a file of a folder has the same "
        "result alone, and files of one name in subfolders have noise and masks of their own (default: 0)"
    )
    add_output(parser, "file for one input, folder (made if needed), or - for one PNG to stdout", seed)


def add_output(parser: argparse.ArgumentParser, text: str, seed: str = "of all randomness (default: 0)") -> None:
    parser.add_argument("-o", "--out", type=Path, required=True, help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.add_argument("--seed", type=int, default=0, help=seed)


def number_or_law(text: str) -> Any:
    """Parse a number that may be unknown: its value, its range LOW:HIGH, or its law, normal:MEAN,SD."""
    name, _, numbers = text.rpartition(":")
    try:
        if name == "normal":
            mean, sd = map(float, numbers.split(","))
            return _normal(mean, sd)
        return (float(name), float(numbers)) if name else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number, no range LOW:HIGH and no law normal:MEAN,SD"
        ) from None


def _normal(mean: float, sd: float) -> Any:
    from torch.distributions import Normal

    return Normal(mean, sd, validate_args=True)  # whatever the default of the process is


def add_operator(parser: argparse.ArgumentParser, number: Callable[[str], Any] = float) -> None:
    """Add the operator and its parameters, with `number` parsing those that can be identified."""
    known = (
        ", a number, LOW:HIGH or normal:MEAN,SD (--angle=-9:9: an = before a minus)" if number is number_or_law else ""
    )
    parser.add_argument("--op", default="inpaint", help=f"{', '.join(OPERATORS)} (default: %(default)s)")
    folder = "a folder of NAME_mask.png, in subfolders as the images are"
    parser.add_argument("--mask", help=f"image (or .npy) whose white marks the holes, or {folder}")
    parser.add_argument("--scale", type=int, help="super-resolution: whole factor")
    parser.add_argument("--antialias", help="super-resolution: bicubic, gaussian or average")
    for name, what in IDENTIFIED.items():
        parser.add_argument(f"--{name}", type=number, help=f"{what}{known}; left out, restore identifies it")
    parser.add_argument("--kernel", type=Path, help="deblur: image or .npy of the kernel (images are scaled to sum 1)")
    parser.add_argument("--boundary", help="blurs: valid (the scene goes on past the frame) or circular")
    parser.add_argument("--oversample", type=int, help="phase-retrieval: sides of y over those of x (default: 2)")


def add_simulation(parser: argparse.ArgumentParser) -> None:
    """Add what `simulated` reads besides the operator."""
    parser.add_argument("--fraction", type=float, help="of the pixels, for --mask random or stroke")
    parser.add_argument("--size", type=int, nargs="+", help="of the hole, for --mask box: one number, or height width")
    parser.add_argument("--quality", type=int, help="jpeg: of the encoder, 1 to 100 (default: 75)")
    parser.add_argument("--subsampling", help="jpeg: of chroma, 4:4:4, 4:2:2 or 4:2:0 (default: 4:2:0)")


def label_of(text: str) -> int | str:
    """Parse a class, by its number or name."""
    return int(text) if text.strip().lstrip("-").isdecimal() else text


@dataclass(frozen=True)
class Item:
    """One of the images given.

    Attributes:
        path: where it is.
        target: where its result goes.
        key: what tells it from the others: its path below the folder given, or else its name.
    """

    path: Path
    target: Path
    key: Path


def each(
    options: argparse.Namespace,
    run: Callable[[Item], str],
    ranks: Any,
    suffix: str = ".png",
    ends: Sequence[str] = (),
) -> int:
    """Run on this process's share of the inputs, print results, report failures and go on.

    Arguments:
        suffix: of the targets, if `options.out` is a folder.
        ends: of the names of what `run` writes beside each target, see `beside`.
    """
    items, skipped = _items(options.inputs, options.out, suffix, ends)
    if ranks.process_index == 0:
        for text in skipped:
            print(f"genprior: {text}", file=sys.stderr)
    ranks.wait_for_everyone()  # all look at the folders before any writes to them
    items = items[ranks.process_index :: ranks.num_processes]
    failures = 0
    for item in items:
        try:
            with written(item.target) as place:
                # a message about stdout must not name the temporary file, which is gone
                told = run(replace(item, target=place)).replace(str(place), str(item.target))
        except BrokenPipeError:
            raise
        # RuntimeError: torch ran out of memory, which the next file may not
        except (*expected_errors(), RuntimeError, MemoryError) as error:
            why = str(error) or type(error).__name__
            print(f"genprior: {item.path}: {why}", file=sys.stderr)
            if getattr(options, "json", False):
                print(json.dumps({"input": str(item.path), "error": why}), flush=True)
            failures += 1
        else:  # out here, where a failure to print is not one of the file
            print(told, file=sys.stderr if item.target == STDOUT else sys.stdout)
    if failures and len(items) > 1:
        print(f"genprior: {failures} of {len(items)} failed", file=sys.stderr)
    ranks.wait_for_everyone()  # else the failure of one ends the others mid-work
    return 1 if failures else 0


@contextlib.contextmanager
def written(target: Path) -> Iterator[Path]:
    """Yield where to write a file for `target`: there, or if that is -, a temporary file that then goes to stdout.

    For -, what is printed meanwhile goes to stderr.

    Raises:
        ValueError: more than one file was written for stdout.
    """
    if target != STDOUT:
        yield target
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stdout.png"
        with contextlib.redirect_stdout(sys.stderr):
            yield file
        if others := sorted(path.name.removeprefix("stdout") for path in Path(folder).iterdir() if path != file):
            raise ValueError(
                f"-o - writes one image, and there are {', '.join(others)} besides: give a file or folder."
            )
        sys.stdout.buffer.write(file.read_bytes())
        sys.stdout.flush()


def beside(target: Path, ends: Sequence[str]) -> list[Path]:
    """The files NAME_std.png and the like, for the ends "_std" and so on, beside the target NAME.png."""
    return [target.with_name(f"{target.stem}{end}.png") for end in ends]


def _items(inputs: list[Path], out: Path, suffix: str, ends: Sequence[str]) -> tuple[list[Item], list[str]]:
    """The images with their targets, and messages about files that are skipped."""
    from genprior.images.files import IMAGE_SUFFIXES, named, part_files, readable_suffixes

    # The target is OUT itself for one file and an OUT with a suffix, else OUT/…/NAME with `suffix`.
    if out == STDOUT and (len(inputs) > 1 or inputs[0].is_dir()):
        raise ValueError("-o - writes one image: give one file, or a folder as --out.")
    if out == STDOUT:
        return [Item(inputs[0], out, Path(inputs[0].name))], []
    if len(inputs) == 1 and not inputs[0].is_dir():
        if out.suffix.lower() in (*IMAGE_SUFFIXES, ".npy", ".npz"):
            return [Item(inputs[0], out, Path(inputs[0].name))], []
        if out.suffix.lower() in readable_suffixes() and not out.is_dir():
            raise ValueError(f"--out {out}: such files are read only; end it with one of {' '.join(IMAGE_SUFFIXES)}.")
    if out.is_file():
        raise ValueError(
            f"--out {out} is a file; give a folder, or for one image a name that ends in .png or the like."
        )
    items, skipped = [], []
    for given in inputs:
        if given.is_dir():
            listed, others = (_outside(out, given, part) for part in part_files(given, readable_suffixes() | {".npy"}))
            found = _without_masks(listed)
            if not found:
                why = f": {named(others, given)}" if others else ""
                raise ValueError(f"There are no images in {given}{why}.")
            if masks := len(listed) - len(found):
                skipped.append(f"{given}: skipped {masks} masks, NAME_mask beside NAME")
            if others:
                skipped.append(f"{given}: {named(others, given)}")
            below = [path.relative_to(given) for path in found]
            items += [Item(path, out / key.with_suffix(suffix), key) for path, key in zip(found, below)]
        else:
            items.append(Item(given, out / f"{given.stem}{suffix}", Path(given.name)))
    seen: dict[Path, Path] = {}
    for item in items:
        for target in (item.target, *beside(item.target, ends)):
            if target in seen:
                raise ValueError(
                    f"{seen[target]} and {item.path} would both be written to {target}; restore them separately."
                )
            seen[target] = item.path
    return items, skipped


def _outside(out: Path, given: Path, paths: list[Path]) -> list[Path]:
    """The files of the folder given that do not lie in a folder `out` inside it, with the results of an earlier run."""
    out = out.resolve()
    if given.resolve() not in out.parents:
        return paths
    return [path for path in paths if out not in path.resolve().parents]


def _without_masks(paths: list[Path]) -> list[Path]:
    """The images except NAME_mask beside NAME, which `degrade` writes."""
    names = {path.with_suffix("") for path in paths}
    masks = {path.with_name(f"{path.name}_mask") for path in names}
    return [path for path in paths if path.with_suffix("") not in masks]


def seed_of(options: argparse.Namespace, key: Path) -> int:
    return zlib.crc32(os.fsencode(f"{options.seed} {key.as_posix()}"))


def parameters_of(options: argparse.Namespace, item: Item | None = None) -> dict[str, Any]:
    chosen = {name: getattr(options, name) for name in PARAMETERS if getattr(options, name) is not None}
    if item and "mask" in chosen and Path(chosen["mask"]).is_dir():
        chosen["mask"] = _mask_of(item, Path(chosen["mask"]))
    if "mask" in chosen and Path(chosen["mask"]).suffix.lower() == ".npy":
        chosen["mask"] = load_array(Path(chosen["mask"]))
    if "kernel" in chosen:
        chosen["kernel"] = _kernel(chosen["kernel"])
    return chosen


def simulated(options: argparse.Namespace, item: Item | None = None) -> dict[str, Any]:
    """`parameters_of`, plus those of simulated masks and of compression."""
    chosen = parameters_of(options, item)
    chosen |= {k: v for k in ("quality", "subsampling") if (v := getattr(options, k)) is not None}
    if options.fraction is not None:
        chosen["fraction"] = options.fraction
    if options.size is not None:
        chosen["size"] = options.size[0] if len(options.size) == 1 else tuple(options.size)
    return chosen


def _mask_of(item: Item, folder: Path) -> Path:
    from genprior.images.files import readable_suffixes

    path = item.path
    # If the folder holds the image too, as `degrade` writes it, the mask lies beside the image; otherwise, where the
    # image lies below the folder given.
    place = path.parent if folder in path.parents else folder / item.key.parent
    suffixes = readable_suffixes() | {".npy"}
    beside = sorted(place.iterdir()) if place.is_dir() else []
    masks = [mask for mask in beside if mask.suffix.lower() in suffixes and mask != path]
    for stem in (f"{path.stem}_mask", path.stem):
        for mask in masks:
            if mask.stem == stem:
                return mask
    raise ValueError(f"{place} has no mask for {path.name}; call it {path.stem}_mask.png or {path.stem}.png.")


def _kernel(path: Path) -> Any:
    from genprior import images

    if path.suffix.lower() == ".npy":
        return load_array(path)
    picture = images.read(path)
    if picture.alpha is not None and picture.alpha.min() < 1:
        raise ValueError(f"The kernel {path} is partly transparent; save it without alpha, black where it is 0.")
    kernel = picture.x[0].mean(0)
    if not kernel.sum() > 0:
        raise ValueError(f"The kernel {path} is black; a kernel's brightness is its weight.")
    return kernel / kernel.sum()


def load(path: Path) -> Any:
    if path.suffix.lower() != ".npy":
        return path
    array = load_array(path)
    if array.ndim == 4:
        raise ValueError(f"it holds {len(array)} images, in the shape {array.shape}; give one file for each.")
    return array


def load_array(path: Path) -> Any:
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as an array of numbers: {error}") from error


def save_array(array: Any, path: Path) -> None:
    import numpy as np

    from genprior.files import replacing

    with replacing(path) as file:  # given a path, numpy would add .npy to a suffix in another case
        np.save(file, array)


def refuse_existing(targets: list[Path], overwrite: bool) -> None:
    from genprior import files

    files.refuse_existing(targets, overwrite, "choose another --out, or pass --overwrite")


def expected_errors() -> tuple[type[Exception], ...]:
    from genprior.checks import UnsupportedError

    return (ValueError, TypeError, OSError, ArithmeticError, UnsupportedError)

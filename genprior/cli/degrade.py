"""genprior degrade: simulated measurements of images."""

from __future__ import annotations

import argparse
from typing import Any

from genprior.cli.common import (
    NOISE,
    Item,
    add_images,
    add_operator,
    add_simulation,
    each,
    load,
    noise_of,
    refuse_existing,
    save_array,
    seed_of,
    simulated,
)


def add(parser: argparse.ArgumentParser) -> None:
    """`genprior degrade`."""
    add_images(parser)
    add_operator(parser)
    add_simulation(parser)
    parser.add_argument("--noise", type=noise_of, default=0.0, help=f"{NOISE} (default: 0)")


def _compress(options: argparse.Namespace, ranks: Any) -> int:
    """Write JPEG files, with Pillow's encoder."""
    from genprior import compression, images

    if options.noise:
        raise ValueError("jpeg rounds its coefficients and adds no other noise: leave --noise out.")
    if options.out.suffix and options.out.suffix.lower() not in (".jpg", ".jpeg") and not options.out.is_dir():
        raise ValueError(f"--out {options.out}: --op jpeg writes JPEG files: end it with .jpg, or give a folder.")

    def one(item: Item) -> str:
        refuse_existing([item.target], options.overwrite)
        picture = images.to_pil(images.read(load(item.path)).seen[0])
        compression.save(picture, item.target, **simulated(options, item))
        return f"{item.path} -> {item.target}"

    return each(options, one, ranks, suffix=".jpg")


def run(options: argparse.Namespace) -> int:
    from einops import rearrange

    import genprior
    from genprior import images
    from genprior.devices import processes
    from genprior.operators.build import canonical

    if canonical(options.op) == "jpeg":
        return _compress(options, processes("cpu"))

    def one(item: Item) -> str:
        path, target = item.path, item.target
        mask = target.with_name(f"{target.stem}_mask.png") if options.op == "inpaint" else None
        refuse_existing([target, *([] if mask is None else [mask])], options.overwrite)
        seed = seed_of(options, item.key)
        given = load(path)
        measurement = genprior.degrade(given, options.op, noise=options.noise, seed=seed, **simulated(options, item))
        y = measurement.y[0]
        if mask is not None:
            # The noise in the holes means nothing; black says so.
            holes = measurement.operator.mask[0]  # pyright: ignore[reportAttributeAccessIssue]
            y = y.masked_fill(holes, 0)
            images.save(holes[:1].float(), mask)
        told = f"{path} -> {target}" + (f", holes in {mask}" if mask else "")
        if target.suffix.lower() == ".npy":
            save_array(rearrange(y, "c h w -> h w c").numpy(), target)
            return told
        images.save(images.writable(images.read(given).like(y[None], alpha=False), y), target)
        clipped = float(((y < 0) | (y > 1)).float().mean())
        if clipped > 0:
            told = f"{target}: {clipped:.1%} of the values were clipped to [0, 1]; a .npy file would keep them.\n{told}"
        return told

    return each(options, one, processes("cpu"))

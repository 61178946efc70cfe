"""genprior sample: images drawn from a prior."""

from __future__ import annotations

import argparse
import inspect

from genprior.cli.common import STDOUT, add_output, label_of, refuse_existing, written


def add(parser: argparse.ArgumentParser) -> None:
    """`genprior sample`."""
    parser.add_argument("--prior", default="ddpm", help="name, folder, or family (default: %(default)s)")
    parser.add_argument("-n", "--n", type=int, default=16, help="how many (default: %(default)s)")
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="for priors of any size")
    parser.add_argument("--steps", type=int, help="of the prior's chain (default: all)")
    parser.add_argument("--label", type=label_of, help="class, a number or name, for priors with classes")
    parser.add_argument("--guidance", type=float, help="of the label: 1 for its images, more for typical ones")
    parser.add_argument("--device", default="auto")
    add_output(parser, "the sheet of samples, such as samples.png")


def run(options: argparse.Namespace) -> int:
    import genprior
    from genprior import images
    from genprior.checks import as_integer
    from genprior.devices import alone, pick_device

    alone("genprior sample")
    as_integer("-n, the number of samples,", options.n, 1, 2**32 - 1)
    if options.out != STDOUT and options.out.suffix.lower() not in images.IMAGE_SUFFIXES:
        raise ValueError(f"--out {options.out} is no image; end it with one of {' '.join(images.IMAGE_SUFFIXES)}.")
    refuse_existing([options.out], options.overwrite)
    prior = genprior.load_prior(options.prior, pick_device(options.device))
    choices = {
        "size": options.size and tuple(options.size),
        "steps": options.steps,
        "label": options.label,
        "guidance": options.guidance,
    }
    chosen = {name: value for name, value in choices.items() if value is not None}
    if not genprior.supports(prior, "sample") and options.label is None:
        prior.sample(options.n)  # raises, and names what the prior has
    takes = inspect.signature(prior.sample).parameters.keys()
    if unknown := chosen.keys() - takes:
        raise ValueError(
            f"Samples of {options.prior}, a {type(prior).__name__}, take no {' or '.join(sorted(unknown))}; leave "
            f"{', '.join(f'--{name}' for name in sorted(unknown))} out."
        )
    if options.guidance is not None and options.label is None:
        raise ValueError("--guidance is towards a label; say which, as --label 5.")
    if "progress" in takes:
        chosen["progress"] = True
    with written(options.out) as target:
        images.save(images.drawn(prior.sample(options.n, seed=options.seed, **chosen).cpu()), target)
        print(f"{options.n} samples of {options.prior} -> {options.out}")
    return 0

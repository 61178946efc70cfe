"""genprior identify: the blur and the noise of photographs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from genprior.cli.common import add_operator, expected_errors, load, number_or_law, parameters_of, refuse_existing

# The operator whose parameters are identified by default.
DEFAULT = "motion-deblur"


def add(parser: argparse.ArgumentParser) -> None:
    """`genprior identify`."""
    parser.add_argument("inputs", nargs="+", type=Path, help="image files or .npy arrays")
    add_operator(parser, number_or_law)
    parser.set_defaults(op=DEFAULT)
    parser.add_argument(
        "--noise",
        type=number_or_law,
        help="standard deviation of the noise on [0, 1], or its range LOW:HIGH; identified if left out",
    )
    parser.add_argument("--figure", type=Path, help="of one photograph, write the posterior densities to this file")
    parser.add_argument("--overwrite", action="store_true", help="replace a figure that exists")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object per file in place of text: means, deviations, intervals",
    )


def run(options: argparse.Namespace) -> int:
    if options.figure is not None:
        if len(options.inputs) > 1:
            raise ValueError("--figure is of one photograph: give one file.")
        refuse_existing([options.figure], options.overwrite)
    failures = 0
    for path in options.inputs:
        try:
            print(_told(path, options), flush=True)
        except BrokenPipeError:
            raise
        except expected_errors() as error:
            print(f"genprior: {path}: {error}", file=sys.stderr)
            if options.json:
                print(json.dumps({"input": str(path), "error": str(error)}), flush=True)
            failures += 1
    return 1 if failures else 0


def _told(path: Path, options: argparse.Namespace) -> str:
    import genprior

    parameters: dict[str, Any] = parameters_of(options)
    found = genprior.identify(load(path), options.op, noise=options.noise, **parameters)
    if options.figure is not None:
        found.plot().savefig(options.figure, dpi=80)
    if options.json:
        return json.dumps({"input": str(path), **found.summary})
    return f"{path}: {found}"

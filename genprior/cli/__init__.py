"""The command line: genprior restore | degrade | sample | train | evaluate | evaluate truth | priors | demo | …"""

from __future__ import annotations

import argparse
import sys

from genprior.cli import completion, degrade, demo, evaluate, info, priors, restore, sample, train, truth
from genprior.cli.common import expected_errors

COMMANDS = (restore, degrade, sample, train, evaluate, truth, priors, info, completion, demo)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit code is 0, 1 if something failed, 2 if the command line was wrong."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:2] == ["evaluate", "truth"]:
        arguments = ["evaluate truth", *arguments[2:]]
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        print("genprior: stopped", file=sys.stderr)
        return 130
    except expected_errors() as error:
        print(f"genprior: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="genprior", description="Generative priors for imaging inverse problems.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        command.add(commands)
    return parser

"""The command line: genprior restore | degrade | sample | train | evaluate | evaluate truth | priors | demo | …"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Iterator

import genprior
from genprior.cli import completion, degrade, demo, evaluate, identify, info, priors, restore, sample, train, truth
from genprior.cli.common import expected_errors

# Each command is a module: `add` gives the parser its arguments, `run` does what they say.
COMMANDS = {
    "restore": (restore, "restore images from their measurements"),
    "identify": (identify, "find the blur and the noise of photographs, with their uncertainty"),
    "degrade": (degrade, "measure images: make blurred, holed, small, noisy ones"),
    "sample": (sample, "draw images from a prior"),
    "train": (train, "train a prior on your images; call again to resume"),
    "evaluate": (evaluate, "degrade images, restore them by several methods, compare; call again to go on"),
    "evaluate truth": (truth, "judge samplers by posteriors that are known"),  # one word to argparse
    "priors": (priors, "list the priors that come with the package, or show a card"),
    "info": (info, "show versions, devices, memory and folders"),
    "completion": (completion, "print what makes a shell complete genprior's options"),
    "demo": (demo, "open a page to try it in a browser, on this computer only"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit code is 0, 1 if something failed, 2 if the command line was wrong.

    A reader that closes the pipe, such as `head`, ends it quietly, with the exit code that shells use for that.
    """
    try:
        try:
            return _run(arguments)
        finally:
            if sys.stdout is not None:  # None if the shell closed it, by >&-
                sys.stdout.flush()
    except BrokenPipeError:
        # Python would flush again on exit, and complain.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # pyright: ignore[reportOptionalMemberAccess]
        return 128 + 13  # SIGPIPE


def _run(arguments: list[str] | None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:2] == ["evaluate", "truth"]:
        arguments = ["evaluate truth", *arguments[2:]]
    options = _parser().parse_args(arguments)
    try:
        with _any_terminal():
            return options.run(options)
    except KeyboardInterrupt:
        print("genprior: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except expected_errors() as error:
        print(f"genprior: {error}", file=sys.stderr)
        return 1


@contextlib.contextmanager
def _any_terminal() -> Iterator[None]:
    """Escape what stdout cannot encode: the name of a file must not decide whether a command succeeds."""
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper):
        yield
        return
    errors = stream.errors
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        stream.reconfigure(errors=errors)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="genprior", description="Generative priors for imaging inverse problems.")
    parser.add_argument("--version", action="version", version=f"genprior {genprior.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    parser.set_defaults(commands=commands.choices)
    for name, (module, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text)
        command.set_defaults(run=module.run)
        module.add(command)
    return parser

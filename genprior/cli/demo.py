"""genprior demo: the page to try the package in a browser."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """`genprior demo`."""
    parser.add_argument("--port", type=int, default=7860, help="of 127.0.0.1 (default: %(default)s)")
    parser.add_argument(
        "--open", action=argparse.BooleanOptionalAction, default=True, help="open the browser (default: yes)"
    )


def run(options: argparse.Namespace) -> int:
    from genprior.demo.page import serve
    from genprior.devices import alone

    alone("genprior demo")
    serve(options.port, browser=options.open)
    return 0

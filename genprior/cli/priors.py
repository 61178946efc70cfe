"""genprior priors: what comes with the package."""

from __future__ import annotations

import argparse


def add(commands) -> None:
    """`genprior priors`."""
    priors = commands.add_parser("priors", help="list the priors that come with the package, or show a card")
    priors.add_argument("prior", nargs="?", help="name, family or folder, to show its card")
    priors.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import json

    from genprior.priors.store import BUNDLED, bundled, find_prior, read_card

    if options.prior:
        print(json.dumps(read_card(find_prior(options.prior)), indent=2, ensure_ascii=False))
        return 0
    for name in bundled():
        card = read_card(BUNDLED / name)
        print(f"{name:16} {card.get('summary', '')} Licence: {card.get('licence', 'unknown')}")
    return 0

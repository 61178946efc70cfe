"""genprior priors: what comes with the package."""

from __future__ import annotations

import argparse
from typing import Any


def add(parser: argparse.ArgumentParser) -> None:
    """`genprior priors`."""
    parser.add_argument(
        "prior", nargs="?", help="name, family, folder, checkpoint or owner/name, to show its whole card as JSON"
    )


def run(options: argparse.Namespace) -> int:
    import json

    from genprior.priors.folder import read_card, read_config
    from genprior.priors.store import BUNDLED, bundled, find_prior

    if options.prior:
        print(json.dumps(read_card(find_prior(options.prior)), indent=2, ensure_ascii=False))
        return 0
    for name in bundled():
        classes = read_config(BUNDLED / name)["arguments"].get("classes", 0)
        print(_told(name, read_card(BUNDLED / name), classes))
    return 0


def _told(name: str, card: dict[str, Any], classes: int) -> str:
    """What to choose a prior by; what a card does not say is left out."""
    metrics = "; ".join(f"{figure}, {value}" for figure, value in card.get("metrics", {}).items())
    lines = {"data": card.get("data"), "licence": card.get("licence", "unknown"), "steps": card.get("steps")}
    lines["labels"] = f"{classes} classes: --label" if classes else None
    lines["metrics"] = metrics
    told = (f"  {key:8} {value}" for key, value in lines.items() if value)
    return "\n".join([f"{name}: {card.get('summary', '')}", *told])

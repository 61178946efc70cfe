"""genprior priors: what comes with the package."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(parser: argparse.ArgumentParser) -> None:
    """`genprior priors`."""
    parser.add_argument(
        "prior", nargs="?", help="name, family, folder, checkpoint or owner/name, to show its whole card as JSON"
    )
    parser.add_argument(
        "--card",
        action="store_true",
        help="show the card as text, with the path of its picture: draws, restorations, calibration, limits of use; "
        "without a prior, the cards of all bundled ones",
    )


def run(options: argparse.Namespace) -> int:
    import json

    from genprior.priors.folder import read_card
    from genprior.priors.store import BUNDLED, bundled, find_prior

    chosen = [find_prior(options.prior)] if options.prior else [BUNDLED / name for name in bundled()]
    if options.card:
        print("\n\n".join(map(_card, chosen)))
    elif options.prior:
        print(json.dumps(read_card(*chosen), indent=2, ensure_ascii=False))
    else:
        print("\n".join(map(_told, chosen)))
    return 0


def _card(folder: Path) -> str:
    from genprior.priors.card import card_text, picture_of
    from genprior.priors.folder import read_card

    picture = picture_of(folder)
    return card_text(folder.name, read_card(folder), picture and str(picture))


def _told(folder: Path) -> str:
    """What helps to choose a prior; what its card does not say is left out."""
    from genprior.priors.folder import read_card, read_config

    card: dict[str, Any] = read_card(folder)
    classes = read_config(folder)["arguments"].get("classes", 0)
    metrics = "; ".join(f"{figure}, {value}" for figure, value in card.get("metrics", {}).items())
    lines = {"data": card.get("data"), "licence": card.get("licence", "unknown"), "steps": card.get("steps")}
    lines["labels"] = f"{classes} classes: --label" if classes else None
    lines["metrics"] = metrics
    told = (f"  {key:8} {value}" for key, value in lines.items() if value)
    return "\n".join([f"{folder.name}: {card.get('summary', '')}", *told])

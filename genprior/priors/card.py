"""The card of a prior in words: its use and misuse, how well calibrated its draws are, how it was made; its picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

PICTURE = "card.jpg"  # beside the weights: draws, and one restoration per task
LARGEST = 100_000  # bytes of it
QUALITIES = (60, 45, 30, 20, 10)  # of JPEG
SAID = {
    "use": "Use it for",
    "not for": "Do not use it for",
    "data": "Trained on",
    "licence": "Licence of the weights",
    "metrics": "Measured",
    "calibration": "Calibration",
    "covariance": "Posterior covariance",
    "classes": "Classes",
    "recipe": "Made by",
    "device": "On",
    "steps": "Steps",
    "seconds": "Seconds",
    "sha256": "SHA-256 of the weights",
}


def card_text(name: str, card: dict[str, Any], picture: str | None = None) -> str:
    """Return the card in Markdown: its entries among `SAID`, without training settings.

    Arguments:
        name: of the prior, the heading.
        card: as `read_card` reads it.
        picture: path or address of its picture.
    """
    said = [f"- {title}: {_in_words(card[key])}" for key, title in SAID.items() if card.get(key)]
    shown = [f"![draws of {name}, and what it restores]({picture})"] if picture else []
    return "\n\n".join([f"## {name}", card.get("summary", "A prior without a summary."), *shown, "\n".join(said)])


def picture_of(folder: Path) -> Path | None:
    """Return the picture beside a prior, if there is one."""
    path = folder / PICTURE
    return path if path.is_file() else None


def save_picture(page: Image.Image, folder: Path) -> None:
    """Save the picture of the prior in a folder, with as few details lost as its size allows."""
    for quality in QUALITIES:
        page.save(folder / PICTURE, quality=quality)
        if (folder / PICTURE).stat().st_size < LARGEST:
            break


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {told}" for key, told in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

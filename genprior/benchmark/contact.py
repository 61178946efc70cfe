"""A contact sheet: one row for each image, one column for each of its versions."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from genprior import images

SMALLEST = 96  # pixels a side; smaller images are enlarged by whole factors
PAD = 4
FONT = 11


def sheet(columns: dict[str, list[Tensor | None]]) -> Image.Image:
    """Columns of images, each under its name; None, or an image that cannot be shown, stays white.

    Arguments:
        columns: name -> one image (C, H, W) for each row, values clipped to [0, 1]; sizes may differ.
    """
    shown = [x for column in columns.values() for x in column if x is not None]
    H, W = (max(x.shape[axis] for x in shown) for axis in (-2, -1))
    factor = max(1, -(-SMALLEST // min(H, W)))
    rows = len(next(iter(columns.values())))
    cells = shown[0].new_ones(rows, len(columns), 3, factor * H, factor * W)
    for j, column in enumerate(columns.values()):
        for i, x in enumerate(column):
            if x is not None and x.shape[0] in (1, 3):
                x = F.interpolate(x[None].float(), scale_factor=factor, mode="nearest")[0]
                cells[i, j, :, : x.shape[1], : x.shape[2]] = x
    grid = images.to_pil(images.grid(cells.flatten(0, 1), columns=len(columns), pad=PAD))
    return _headed(grid, list(columns), factor * W + PAD)


def _headed(grid: Image.Image, names: list[str], step: int) -> Image.Image:
    """The grid with each column's name above it, cut to the column's width."""
    font = ImageFont.load_default(FONT)
    head = 2 * FONT
    page = Image.new("RGB", (grid.width, grid.height + head), "white")
    page.paste(grid, (0, head))
    draw = ImageDraw.Draw(page)
    for j, name in enumerate(names):
        while draw.textlength(name, font) > step - PAD:
            name = name[:-1]
        draw.text((j * step, FONT // 2), name, fill="black", font=font)
    return page

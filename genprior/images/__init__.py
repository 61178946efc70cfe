"""The one place that converts paths, PIL images, numpy arrays and torch tensors to an image x, and x back.

Notation: x is a (B, C, H, W) float32 tensor, an image when its values lie in [0, 1]; alpha is a (B, 1, H, W) opacity in
[0, 1], kept apart from x; a mask is True in the holes to fill.
"""

from genprior.images.checks import kind_of
from genprior.images.files import IMAGE_SUFFIXES, list_images, save, writable
from genprior.images.masks import read_mask
from genprior.images.picture import Picture
from genprior.images.pil import to_pil
from genprior.images.reading import ImageLike, read
from genprior.images.sheet import drawn, grid

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageLike",
    "Picture",
    "drawn",
    "grid",
    "kind_of",
    "list_images",
    "read",
    "read_mask",
    "save",
    "to_pil",
    "writable",
]

"""Training data: every item is a function of (seed, item number), so a run resumes from its step number alone.

Item numbers count through the whole run: item i belongs to epoch i // N of a data set of N images, in an order
shuffled by (seed, epoch), and its augmentation is drawn from (seed, i). `open_data` turns any source into a data set;
`Photos` crops images that are read one at a time, and `Arrays` holds images of one size in memory.
"""

from genprior.training.data.arrays import Arrays, read_names
from genprior.training.data.folder import Folder
from genprior.training.data.order import Data, evenly, first, item_numbers, shuffled
from genprior.training.data.photos import Photos
from genprior.training.data.sources import open_data, open_parts
from genprior.training.data.split import held_out

__all__ = [
    "Arrays",
    "Data",
    "Folder",
    "Photos",
    "evenly",
    "first",
    "held_out",
    "item_numbers",
    "open_data",
    "open_parts",
    "read_names",
    "shuffled",
]

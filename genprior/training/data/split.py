"""Which images are held out for validation: a hash of their content or name decides, not their place or chance."""

import unicodedata

from genprior.files import sha256


def held_out(identity: str | bytes, share: float) -> bool:
    """Whether the image with that name or content belongs to the held-out fraction `share`.

    A function of its arguments alone: the same in every run, with every seed, on every machine; images that are added
    or removed move no other image from one side to the other; and what a share holds out, a larger one holds out too.

    Arguments:
        identity: a name, taken in its composed Unicode form, since file systems differ in that; or the image's bytes.
        share: in [0, 1].
    """
    if isinstance(identity, str):
        identity = unicodedata.normalize("NFC", identity)
    return int(sha256(identity)[:16], 16) < share * 2**64

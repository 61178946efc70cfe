"""The choice of images held out for validation: by a hash of content or name, not by position or chance."""

import unicodedata

from genprior.files import sha256


def held_out(identity: str | bytes, share: float) -> bool:
    """Return whether the image with that name or content belongs to the held-out fraction `share`.

    The result depends on the arguments alone: it is the same in every run, with every seed, on every machine. Adding or
    removing images moves no other image between the parts, and a larger share holds out all that a smaller one does.

    Arguments:
        identity: a name, which is normalised to composed Unicode because file systems differ; or the image's bytes.
        share: in [0, 1].
    """
    if isinstance(identity, str):
        identity = unicodedata.normalize("NFC", identity)
    return int(sha256(identity)[:16], 16) < share * 2**64

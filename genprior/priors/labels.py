"""Class labels of priors: p(x) = sum_k w_k p(x | k), with w_k the share of class k."""

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor

from genprior.checks import UnsupportedError
from genprior.noise import Noise
from genprior.priors.base import Prior

EMBEDDING = 8  # channels that encode a label beside the other inputs of a network


def number_of(prior: Prior, label: int | str) -> int:
    """Return the number of a label, given as a number or as the name of its class, in upper or lower case.

    Raises:
        ValueError: the prior has no such class, or no classes; the message names those it has.
    """
    if not prior.classes:
        raise ValueError(
            f"This {type(prior).__name__} was trained without labels, so there is no label {label!r}: take one with "
            "labels, such as ddpm-mnist (`genprior priors` lists them), or train one: genprior train FAMILY --labels "
            "NAME."
        )
    names = prior.class_names
    told = f"{prior.classes} classes, counted from 0" + (f": {', '.join(names)}" if names else "")
    if isinstance(label, str):
        folded = [name.casefold() for name in names]
        wanted = label.strip().casefold()
        if wanted in folded:
            return folded.index(wanted)
        close = difflib.get_close_matches(wanted, folded, n=1)
        guess = f" Did you mean {names[folded.index(close[0])]!r}?" if close else ""
        if not names:
            told += ", without names: give a number"
        raise ValueError(f"There is no label {label!r}: this prior has {told}.{guess}")
    if isinstance(label, bool) or label not in range(prior.classes):
        raise ValueError(f"There is no label {label!r}: this prior has {told}.")
    return int(label)


def check_names(names: Sequence[str], classes: int) -> tuple[str, ...]:
    """Return the names of the classes, in order, checked; none for classes without names.

    Raises:
        ValueError: they are not one string per class, or two of them are the same but for case.
    """
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"The names of the classes are {names!r}: give a list of texts.")
    if names and len(names) != classes:
        raise ValueError(f"The names of the classes are {names!r}: give one for each of {classes}, or none.")
    if len({name.strip().casefold() for name in names}) < len(names):
        raise ValueError(f"The names of the classes are {names!r}, of which two are alike: give each its own.")
    return tuple(names)


def check_labels(prior: Prior, labels: Tensor | None) -> None:
    """Refuse labels (B,) for a prior without classes, and missing labels where only p(x | label) is defined.

    Raises:
        ValueError: the prior has no classes, but there are labels.
        UnsupportedError: the prior has classes, but there are no labels.
    """
    if labels is not None and not prior.classes:
        raise ValueError("This prior has no classes: leave the label out, or train a prior with classes.")
    if labels is None and prior.classes:
        raise UnsupportedError(
            f"This {type(prior).__name__} has {prior.classes} classes, and this of one of them only: take "
            "prior.given(label), or restore(..., label=...)."
        )


def labels_of(prior: Prior, label: int | str | None, noise: Noise) -> Tensor | None:
    """Return the labels of draws, one per row of the noise: the given one, or drawn with the class weights."""
    if label is not None:
        number = number_of(prior, label)
        return torch.full((len(noise.image),), number, device=prior.class_weights.device)
    if not prior.classes:
        return None
    u = noise.uniform(prior.class_weights.new_empty(len(noise.image), 1)).flatten()
    return torch.searchsorted(prior.class_weights.cumsum(0), u).clamp_max(prior.classes - 1)


def even(classes: int) -> Tensor:
    """Return equal weights for that many classes."""
    return torch.full((classes,), 1 / max(classes, 1))


def shares(labels: Tensor, classes: int) -> Tensor:
    """Return the share of each class among these labels."""
    return torch.bincount(labels, minlength=classes).float() / len(labels)


def beside(h: Tensor, embedding: Tensor | None) -> Tensor:
    """Append the embedding (B, E) to h, (B, C, …), as E further channels that are constant over the image."""
    if embedding is None:
        return h
    planes = embedding.reshape(*embedding.shape, *[1] * (h.ndim - 2)).expand(-1, -1, *h.shape[2:])
    return torch.cat([h, planes.to(h.dtype)], dim=1)


def mixed(log_probs: Tensor, weights: Tensor) -> Tensor:
    """ln sum_k w_k p_k from ln p_k, (B, K) -> (B,); classes of weight 0 do not count."""
    return (log_probs + weights.log()).logsumexp(1)

"""Training of the small classifiers that judge draws, in one run without checkpoints."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import default_collate

from genprior.noise import Noise
from genprior.training.data import Data, item_numbers

LEARNING_RATE = 2e-3


def train_classifier(
    classifier: nn.Module,
    data: Data,
    steps: int,
    *,
    batch: int = 100,
    weight_decay: float = 0.01,
    augment: Callable[[Tensor, Noise], Tensor] | None = None,
) -> None:
    """Minimise the cross-entropy of the labels by AdamW, with a learning rate that falls linearly to zero.

    Arguments:
        classifier: images (B, C, H, W) -> logits (B, classes); trained in place.
        data: item number -> dict with "x" and "label".
        steps: optimiser steps.
        batch: images per step.
        weight_decay: AdamW's.
        augment: changes the images the classifier sees, see `augmentation`; None for no change.
    """
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=LEARNING_RATE, weight_decay=weight_decay)
    for step, items in enumerate(item_numbers(0, steps, batch, 0, 1)):
        examples = default_collate([data[item] for item in items])
        x = examples["x"] if augment is None else augment(examples["x"], Noise(0, examples["item"]))
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / steps)
        F.cross_entropy(classifier(x), examples["label"]).backward()
        optimizer.step()
        optimizer.zero_grad()

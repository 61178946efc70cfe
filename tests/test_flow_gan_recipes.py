"""The recipes of Flow-GAN run and do what they say, at toy size."""

import json
import math
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from genprior.nets.classifier import Classifier
from genprior.priors.flow import Flow
from genprior.priors.folder import read_card, read_prior

TRAININGS = {"likelihood": ("--weight", "inf"), "hybrid": (), "adversarial": ("--adversarial",)}


@pytest.fixture
def digits(tmp_path):
    """Strokes of random grey values, as many as the recipes hold out and a few."""
    grey = np.random.default_rng(0).integers(100, 256, (55040, 8), dtype=np.uint8)
    x = np.zeros((55040, 28, 28), np.uint8)
    x[:, 10:18, 12] = grey
    np.savez(tmp_path / "digits.npz", train_images=x)
    return tmp_path / "digits.npz"


def test_the_same_flow_is_trained_in_three_ways_and_compared(run, digits, tmp_path):
    for name, weight in TRAININGS.items():
        options = ("--steps", 1, "--batch", 4, "--precision", "no", "--log-every", 1)
        run("train_flow_gan_mnist", "--data", digits, "--out", tmp_path / name, *weight, *options)
    flows = [read_prior(tmp_path / name / "prior") for name in TRAININGS]
    assert all(type(flow) is Flow and flow.config == flows[0].config for flow in flows)
    weights = [torch.cat([p.flatten() for p in flow.parameters()]) for flow in flows]
    # From the same weights: a step of AdamW moves none by more than the rate, 1e-3, but all three differ.
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert 0 < float((weights[a] - weights[b]).abs().max()) < 2.1e-3
    assert [read_card(tmp_path / name / "prior")["weight"] for name in TRAININGS] == [math.inf, 10, 0]
    logs = [json.loads(line) for line in (tmp_path / "adversarial" / "log.jsonl").read_text().splitlines()]
    assert any("bits per value" in line for line in logs)

    save_file(Classifier().state_dict(), tmp_path / "classifier.safetensors")
    given = ["--data", digits, "--runs", tmp_path, "--classifier", tmp_path / "classifier.safetensors", "--n", 8]
    out = run("flow_gan_table", *given, "--out", tmp_path / "strip.png")
    rows = re.findall(r"^\| (\w+) \| (\S+).*\|$", out, re.MULTILINE)
    assert [name for name, _ in rows] == ["training", *TRAININGS, "digits"]
    assert all(math.isfinite(float(bits)) for _, bits in rows[1:-1])
    assert (tmp_path / "strip.png").stat().st_size > 5_000

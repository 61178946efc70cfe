"""The recipes that choose by evidence run and do what they say, on the smallest input that lets them."""

import re
from pathlib import Path

import numpy as np

RECIPES = Path(__file__).parent.parent / "recipes"


def test_a_digit_is_better_explained_by_digits_than_by_photographs(run, tmp_path):
    """A stroke down the middle, blurred and noisy: beyond doubt, a Bayes factor of more than e^20."""
    digits = np.zeros((1, 28, 28), np.uint8)
    digits[0, 5:23, 13:16] = 250
    np.savez(tmp_path / "digits.npz", test_images=digits)
    priors = ("gaussian-mnist", "gaussian-photo", "gan-mnist")
    few = ("--steps", 4, "--particles", 4, "--clouds", 2)
    out = run("choose_prior", "--data", tmp_path / "digits.npz", "--digits", 1, "--priors", *priors, *few)
    found = dict(re.findall(r"\| ([a-z-]+) \| (-?[\d.]+)(?: ± [\d.]+)? \|", out))
    assert set(found) == set(priors)
    assert float(found["gaussian-mnist"]) > float(found["gaussian-photo"]) + 20

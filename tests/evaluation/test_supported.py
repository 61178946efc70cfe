"""What is said to go together does, and what is said not to is refused, cell by cell."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from examples import SHAPE, examples

from genprior.checks import UnsupportedError
from genprior.noise import Noise
from genprior.operators import Inpaint, Measurement
from genprior.samplers import SAMPLERS
from genprior.samplers.base import Sampler
from genprior.truth.supported import kinds, laws, table

PRIORS = examples()
OPERATORS = kinds(SHAPE)
# Of the parameters that cost time, the least that each may be; "steps" is the first that the sampler takes.
LEAST = {"particles": 2} | dict.fromkeys(
    (
        *("iterations", "ode_steps", "prior_steps", "jump", "resamplings", "restarts"),
        *("burn_in", "refreshes", "descend", "probes", "leapfrog", "anneal"),
    ),
    1,
)
STEPS = (1, 4, 8)


def least(name: str) -> Sampler:
    """The sampler of that name at the least cost."""
    sampler = SAMPLERS[name]()
    known = {field.name for field in dataclasses.fields(sampler)}
    for steps in STEPS:
        try:
            return dataclasses.replace(sampler, **{k: v for k, v in (LEAST | {"steps": steps}).items() if k in known})
        except ValueError:
            continue
    raise AssertionError(f"{name} has parameters that this test does not know")


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("family", PRIORS)
def test_what_is_said_to_go_together_does(family, name):
    """A cell that is said to work gives finite draws, one that is not raises."""
    prior, sampler = PRIORS[family], least(name)
    for operator in OPERATORS.values():
        y = operator(0.5 + 0.1 * Noise(0, [0, 1])(torch.empty(2, *SHAPE)))
        measurement = Measurement(y, operator, 0.1)
        with torch.no_grad():
            if sampler.lacks(prior, operator) is None:
                draws = sampler(prior, measurement, Noise(0, [0, 1]))
                assert draws.shape == (2, *SHAPE)
                assert torch.isfinite(draws).all()
            else:
                with pytest.raises((UnsupportedError, ValueError)):
                    sampler(prior, measurement, Noise(0, [0, 1]))


def test_reasons_name_what_is_missing():
    def reason(family, name, kind):
        return SAMPLERS[name]().lacks(PRIORS[family], OPERATORS[kind])

    assert reason("gaussian", "exact", "inpaint") is None
    assert reason("gan", "mmps", "inpaint").startswith("MMPS needs a prior that has denoise; GAN has decode, sample.")
    assert reason("gaussian", "ddrm", "valid blur").startswith("Blur has no SVD")
    assert reason("gaussian", "exact", "phase retrieval") == (
        "Exact needs a linear operator, and PhaseRetrieval is not linear: take DAPSHMC, DPS or TDS, which do not."
    )
    assert reason("gan", "latent", "phase retrieval") is None
    assert reason("vae", "latent", "phase retrieval").endswith("take CSGM, which does not.")
    assert reason("ddpm", "daps-hmc", "phase retrieval") is None
    assert "singular values 0 and 1" in reason("gaussian", "repaint", "super-resolution")
    assert reason("nf", "ula", "inpaint").startswith("ULA needs an energy that is finite everywhere; that of Flow is")
    assert reason("amortized", "amortized", "valid blur").startswith("This posterior was learned for Inpaint()")
    grey = Inpaint(torch.zeros(8, 8), (1, 8, 8))
    assert (
        SAMPLERS["latent"]()
        .lacks(PRIORS["gan"], grey)
        .startswith("The operator acts on images of shape (1, 8, 8), the prior is one of (3, 8, 8)")
    )


def test_table_says_the_same():
    """Every cell, read back: "all", "none", "all but …" or a list of the operators."""
    rows = {row["sampler"]: row for row in table(PRIORS).rows}
    assert list(rows) == list(SAMPLERS)
    for name, row in rows.items():
        for family, prior in PRIORS.items():
            named = {kind for kind in OPERATORS if re.search(rf"\b{kind}(,|$)", row[family])}
            said = set(OPERATORS) - named if row[family].startswith("all") else named
            works = {kind for kind, A in OPERATORS.items() if SAMPLERS[name]().lacks(prior, A) is None}
            assert said == works, (name, family)


def test_the_documented_noise_is_that_of_the_registry():
    """The table of docs/samplers.md, row by row; samplers that it leaves out take Gaussian noise alone."""
    page = (Path(__file__).parents[2] / "docs" / "samplers.md").read_text(encoding="utf-8")
    rows = page.split("| name | noise |\n|---|---|\n")[1].split("\n\n")[0].splitlines()
    cells = [row.strip("| ").split(" | ") for row in rows]
    said = {name: noise for names, noise in cells for name in re.findall(r"`(.+?)`", names)}
    assert said == {name: laws(kind) for name, kind in SAMPLERS.items() if laws(kind) != "gaussian"}
    told = {row["sampler"]: row["noise"] for row in table(PRIORS).rows}
    assert told == {name: said.get(name, "gaussian") for name in SAMPLERS}


def test_every_family_has_an_example():
    """Those that can be stored, and no prior of the table that none of them is."""
    from genprior.priors.folder import FAMILIES

    assert {type(prior) for prior in PRIORS.values()} >= set(FAMILIES.values())
    assert set(FAMILIES) <= set(PRIORS)


def test_examples_leave_the_global_random_state_alone():
    before = torch.get_rng_state()
    examples()
    assert torch.equal(torch.get_rng_state(), before)

"""How far samplers for diffusion priors are from the exact posterior of Gaussian priors, pinned from both sides.

The figures, and their standard errors, are those of `genprior.truth.gaussian`.
"""

import pytest

from genprior.samplers.annealing.daps import DAPS, DAPSHMC, DAPSLangevin
from genprior.samplers.annealing.ddnm import DDNM
from genprior.samplers.annealing.ddrm import DDRM
from genprior.samplers.annealing.gibbs import SplitGibbs
from genprior.samplers.annealing.reddiff import REDDiff
from genprior.samplers.annealing.repaint import RePaint
from genprior.samplers.annealing.sitcom import SITCOM
from genprior.samplers.guidance.pigdm import PiGDM
from genprior.samplers.guidance.tmpd import TMPD
from genprior.truth.gaussian import PRIORS, judge, operators

OPERATORS = operators()
KINDS = ("inpaint", "super-resolution", "circular blur")
# Draws of a test. The figures of the table are those of the first 8 N draws, of which the tests take the first N: they
# differ from the table by less than their own standard deviation.
N = 60


def judged(sampler, prior, operator, n=N):
    operator = OPERATORS[operator]
    return judge(sampler, PRIORS[prior](operator.image_shape), operator, n)


# Sampler, prior, operator, then (error, ratio) of the seen and of the unseen part.
KNOWN_ERRORS = [
    (PiGDM(), "independent", "inpaint", (0.11, 0.93), (0.00, 0.93)),
    (PiGDM(), "independent", "super-resolution", (0.01, 0.92), (0.00, 0.92)),
    (PiGDM(), "independent", "circular blur", (0.04, 0.93), None),
    (PiGDM(), "correlated", "inpaint", (0.23, 0.97), (0.21, 0.93)),
    (PiGDM(), "correlated", "super-resolution", (0.16, 0.84), (0.00, 0.90)),
    (PiGDM(), "correlated", "circular blur", (0.07, 0.89), None),
    (TMPD(), "independent", "inpaint", (0.00, 1.01), (0.00, 1.01)),
    (TMPD(), "independent", "super-resolution", (0.13, 1.00), (0.00, 1.01)),
    (TMPD(), "independent", "circular blur", (0.18, 1.00), None),
    (TMPD(), "correlated", "inpaint", (0.13, 0.96), (0.15, 0.97)),
    (TMPD(), "correlated", "super-resolution", (0.15, 0.93), (0.02, 1.02)),
    (TMPD(), "correlated", "circular blur", (0.12, 0.99), None),
    (DDRM(), "independent", "inpaint", (0.09, 0.24), (0.00, 0.63)),
    (DDRM(), "independent", "super-resolution", (0.32, 0.22), (0.02, 0.63)),
    (DDRM(), "independent", "circular blur", (0.76, 0.26), None),
    (DDRM(), "correlated", "inpaint", (0.28, 0.30), (0.69, 0.80)),
    (DDRM(), "correlated", "super-resolution", (0.37, 0.24), (0.03, 0.60)),
    (DDRM(), "correlated", "circular blur", (0.76, 0.27), None),
    (DDRM(steps=100), "independent", "inpaint", (0.45, 0.07), (0.00, 0.73)),
    (DDNM(), "independent", "inpaint", (0.45, 0.07), (0.00, 0.73)),
    (DDNM(), "independent", "super-resolution", (0.97, 0.08), (0.00, 0.74)),
    (DDNM(), "independent", "circular blur", (1.78, 0.22), None),
    (DDNM(), "correlated", "inpaint", (0.50, 0.09), (0.09, 0.75)),
    (DDNM(), "correlated", "super-resolution", (1.06, 0.09), (0.04, 0.73)),
    (DDNM(), "correlated", "circular blur", (1.81, 0.24), None),
    (RePaint(steps=100, resamplings=1), "independent", "inpaint", (0.00, 0.97), (0.00, 0.92)),
    (RePaint(steps=100, resamplings=1), "correlated", "inpaint", (0.30, 1.09), (0.55, 1.11)),
    (RePaint(resamplings=4), "correlated", "inpaint", (0.07, 0.97), (0.18, 1.06)),
    (REDDiff(steps=100), "independent", "inpaint", (0.67, 0.03), (0.00, 0.32)),
    (REDDiff(steps=100), "independent", "super-resolution", (1.58, 0.02), (0.05, 0.26)),
    (REDDiff(steps=100), "independent", "circular blur", (0.62, 0.21), None),
    (REDDiff(steps=100), "correlated", "inpaint", (0.86, 0.03), (0.16, 0.36)),
    (REDDiff(steps=100), "correlated", "super-resolution", (2.10, 0.02), (0.12, 0.13)),
    (REDDiff(steps=100), "correlated", "circular blur", (0.53, 0.14), None),
    (DAPS(), "independent", "inpaint", (0.02, 1.00), (0.02, 0.99)),
    (DAPS(), "independent", "super-resolution", (0.04, 1.00), (0.01, 0.99)),
    (DAPS(), "independent", "circular blur", (0.02, 0.99), None),
    (DAPS(), "correlated", "inpaint", (0.08, 1.01), (0.14, 1.02)),
    (DAPS(), "correlated", "super-resolution", (0.14, 1.01), (0.04, 1.00)),
    (DAPS(), "correlated", "circular blur", (0.07, 1.00), None),
    (DAPS(steps=50, ode_steps=5), "independent", "inpaint", (0.19, 1.07), (0.00, 1.45)),
    (DAPS(steps=50, ode_steps=5), "correlated", "inpaint", (0.18, 1.13), (0.27, 1.51)),
    (DAPSLangevin(steps=20, iterations=20), "independent", "super-resolution", (0.11, 1.10), (0.01, 1.02)),
    (DAPSLangevin(steps=20, iterations=20), "correlated", "inpaint", (0.35, 1.12), (0.65, 1.22)),
    (DAPSLangevin(steps=20, iterations=20), "correlated", "circular blur", (0.18, 1.10), None),
    (DAPSHMC(steps=20, iterations=15), "independent", "super-resolution", (0.29, 0.94), (0.04, 0.88)),
    (DAPSHMC(steps=20, iterations=15), "correlated", "inpaint", (0.34, 0.94), (0.65, 1.06)),
    (DAPSHMC(steps=20, iterations=15), "correlated", "circular blur", (0.33, 1.02), None),
    (SplitGibbs(steps=40, prior_steps=8, decay=0.85), "independent", "inpaint", (0.12, 0.79), (0.02, 0.68)),
    (SplitGibbs(steps=40, prior_steps=8, decay=0.85), "independent", "super-resolution", (0.11, 0.71), (0.02, 0.69)),
    (SplitGibbs(steps=40, prior_steps=8, decay=0.85), "independent", "circular blur", (0.08, 0.69), None),
    (SplitGibbs(steps=40, prior_steps=8, decay=0.85), "correlated", "inpaint", (0.16, 0.76), (0.18, 0.72)),
    (SplitGibbs(steps=40, prior_steps=8, decay=0.85), "correlated", "super-resolution", (0.10, 0.71), (0.03, 0.69)),
    (SplitGibbs(steps=40, prior_steps=8, decay=0.85), "correlated", "circular blur", (0.06, 0.70), None),
    (
        SplitGibbs(steps=40, prior_steps=8, rho_min=0.6, decay=0.85),
        "independent",
        "inpaint",
        (0.80, 1.21),
        (0.01, 0.66),
    ),
    (SplitGibbs(steps=40, prior_steps=8, rho_min=0.6, decay=0.85), "correlated", "inpaint", (0.76, 1.14), (0.25, 0.75)),
    (SITCOM(iterations=10), "independent", "inpaint", (1.94, 1.31), (0.00, 0.41)),
    (SITCOM(iterations=10), "independent", "super-resolution", (0.72, 0.34), (0.12, 0.42)),
    (SITCOM(iterations=10), "independent", "circular blur", (0.33, 0.44), None),
    (SITCOM(iterations=10), "correlated", "inpaint", (1.85, 1.37), (0.78, 0.63)),
    (SITCOM(iterations=10), "correlated", "super-resolution", (1.18, 0.79), (0.16, 0.36)),
    (SITCOM(iterations=10), "correlated", "circular blur", (0.83, 0.80), None),
]


def strays(part, known):
    """Whether (error, ratio) of a part are not those known: by over 3.3 standard errors and half a unit of the last
    digit, which chance exceeds about once in a thousand.
    """
    lowest, highest = max(known[0] - 0.005, 0) ** 2, (known[0] + 0.005) ** 2
    square, ratio = part.square, part.ratio
    as_known = lowest - 3.3 * square.error < square.value < highest + 3.3 * square.error
    return not (as_known and abs(ratio.value - known[1]) < 0.005 + 3.3 * ratio.error)


@pytest.mark.parametrize(("sampler", "prior", "operator", "seen", "unseen"), KNOWN_ERRORS)
def test_sampler_errs_as_known(sampler, prior, operator, seen, unseen):
    found = judged(sampler, prior, operator)
    for part, known in ((found.seen, seen), (found.unseen, unseen)):
        assert (part is None) == (known is None)
        assert part is None or not strays(part, known)


def table(samplers):
    """Print the rows of `KNOWN_ERRORS` of those samplers, of 8 N draws."""
    for sampler in samplers:
        for prior in PRIORS:
            for kind in ("inpaint",) if isinstance(sampler, RePaint) else KINDS:
                found = judged(sampler, prior, kind, 8 * N)
                parts = [
                    part and f"({part.error.value:.2f}, {part.ratio.value:.2f})" for part in (found.seen, found.unseen)
                ]
                print(f'    ({sampler}, "{prior}", "{kind}", {parts[0]}, {parts[1]}),', flush=True)


if __name__ == "__main__":
    table(
        [
            PiGDM(),
            TMPD(),
            DDRM(),
            DDRM(steps=100),
            DDNM(),
            RePaint(),
            RePaint(steps=100, resamplings=1),
            RePaint(steps=250, resamplings=4),
            REDDiff(),
            REDDiff(steps=100),
            DAPS(),
            DAPS(steps=50, ode_steps=5),
            DAPSLangevin(steps=20, iterations=20),
            DAPSHMC(steps=20, iterations=15),
            SplitGibbs(),
            SplitGibbs(rho_min=0.6),
            SplitGibbs(steps=40, prior_steps=8, decay=0.85),
            SplitGibbs(steps=40, prior_steps=8, decay=0.85, rho_min=0.6),
            SITCOM(),
            SITCOM(iterations=10),
        ]
    )

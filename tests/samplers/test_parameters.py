"""Every number that a sampler takes is checked when it is given."""

import dataclasses
import math
from typing import Annotated

import pytest

from genprior.checks import Count, Fraction, Positive, Range, check_fields
from genprior.samplers import SAMPLERS

# Where the range depends on the prior, `draw` looks.
LATER = {"start"}
NUMBERS = [
    (name, field.name)
    for name, sampler in SAMPLERS.items()
    for field in dataclasses.fields(sampler)
    if isinstance(field.default, int | float) and not isinstance(field.default, bool) and field.name not in LATER
]


@pytest.mark.parametrize("wrong", [math.nan, -1, "2", True], ids=str)
@pytest.mark.parametrize(("name", "parameter"), NUMBERS)
def test_a_number_that_means_nothing_is_refused_by_its_name(name, parameter, wrong):
    with pytest.raises(ValueError, match=rf"^{parameter} is a (whole )?number from .*; got {wrong!r}\.$"):
        SAMPLERS[name](**{parameter: wrong})


@dataclasses.dataclass(frozen=True)
class Own:
    steps: Count = 3
    share: Fraction | None = 0.5
    rate: Annotated[float, Range(1, 2)] = 1.5
    free: float = 0.0

    def __post_init__(self):
        check_fields(self)


@dataclasses.dataclass(frozen=True)
class Narrower(Own):
    share: Positive = 2.0


def test_ranges_hold_to_their_ends_and_none_where_the_type_has_it():
    Own(steps=1, share=0, rate=1)
    Own(share=1, rate=2, free=math.nan)
    Own(share=None)
    for wrong in ({"steps": 0}, {"steps": 1.5}, {"steps": None}, {"share": 1.1}, {"rate": 2.01}, {"rate": None}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))} is"):
            Own(**wrong)


def test_a_subclass_has_ranges_of_its_own():
    assert Narrower().share == 2.0
    for wrong in (0, None):
        with pytest.raises(ValueError, match=r"^share is"):
            Narrower(share=wrong)

"""Everything public is in the reference, and everything with a name on the page that is to explain it."""

import pkgutil
import re
from pathlib import Path

import genprior
from genprior import samplers
from genprior.operators.build import FOR_IMAGE, FOR_MEASUREMENT
from genprior.priors.store import bundled
from genprior.samplers import SAMPLERS, Sampler

DOCS = Path(__file__).parents[2] / "docs"
API = (DOCS / "api.rst").read_text(encoding="utf-8")
ENTRIES = set(re.findall(r"^   (genprior\.[\w.]+)$", API, re.MULTILINE))


def words(page):
    return set(re.findall(r"`([\w-]+)`", (DOCS / page).read_text(encoding="utf-8")))


def test_every_promised_name_is_in_the_reference():
    """Samplers by the table that docs/conf.py makes of their registry."""
    assert "\n|samplers by name|\n" in API
    listed = {entry.removeprefix("genprior.") for entry in ENTRIES} | {one.__name__ for one in SAMPLERS.values()}
    assert set(genprior.__all__) <= listed


def test_every_module_is_in_the_reference_but_for_the_page_of_the_demo():
    modules = {module.name for module in pkgutil.iter_modules(genprior.__path__) if not module.name.startswith("_")}
    assert {f"genprior.{name}" for name in modules - {"demo"}} <= ENTRIES


def test_every_operator_of_the_package_is_in_the_reference():
    import genprior.operators

    names = set(genprior.operators.__all__)
    assert {f"genprior.operators.{name}" for name in names - {"Measurement"}} <= ENTRIES


def test_every_name_is_explained():
    assert set(SAMPLERS) <= words("samplers.md")
    assert set(FOR_IMAGE) | set(FOR_MEASUREMENT) <= words("operators.md")
    families = (DOCS / "families.md").read_text(encoding="utf-8")
    assert [name for name in bundled() if name not in families] == []


def test_the_documented_cost_of_samplers_is_that_of_the_code():
    """The table of docs/samplers.md: every sampler, each with its evaluations of the network for a draw."""
    page = (DOCS / "samplers.md").read_text(encoding="utf-8")
    table = page.split("| name | use it when | limitations | evaluations |\n")[1].split("\n\n")[0]
    cells = [row.strip("| ").split(" | ") for row in table.splitlines()[1:]]
    said = {name.strip("`"): int(cost.split()[0]) for name, _, _, cost in cells}
    assert said == {name: kind().evaluations for name, kind in SAMPLERS.items()}


def test_every_bundled_prior_has_its_use_and_limitations():
    page = (DOCS / "choosing.md").read_text(encoding="utf-8")
    table = page.split("| prior | use it when | limitations |\n")[1].split("\n\n")[0]
    assert set(bundled()) <= set(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE))


def test_the_room_of_samplers_offers_each_of_them():
    assert {Sampler.__name__, *(kind.__name__ for kind in SAMPLERS.values())} <= set(samplers.__all__)
    assert all(hasattr(samplers, name) for name in samplers.__all__)

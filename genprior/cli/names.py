"""The names that the command line offers, read from the registries' source, because importing them loads torch."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent


def _keys(module: str, table: str) -> tuple[str, ...]:
    """The keys of the dictionary of that name, annotated with its type, in a file of the package."""
    made = ast.parse((PACKAGE / module).read_text(encoding="utf-8")).body
    (value,) = (node.value for node in made if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == table)
    assert isinstance(value, ast.Dict)
    return tuple(map(ast.literal_eval, filter(None, value.keys)))


OPERATORS = _keys("operators/build.py", "FOR_MEASUREMENT")
SAMPLERS = _keys("samplers/__init__.py", "SAMPLERS")
FAMILIES = _keys("training/families.py", "FAMILIES")  # that can be trained
OBJECTIVES = _keys("training/families.py", "OBJECTIVES")  # of a ddpm
SUITES = _keys("truth/report.py", "SUITES")
PRIORS = tuple(sorted(path.parent.name for path in PACKAGE.glob("priors/bundled/*/config.json")))

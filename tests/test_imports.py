"""What `import genprior` costs, and that imports point one way."""

import ast
import functools
import importlib
import importlib.util
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import genprior

PACKAGE = Path(genprior.__file__).parent
HEAVY = {"deepinv", "diffusers", "gradio", "torchvision", "kornia", "accelerate", "matplotlib", "scipy", "skimage"}
# Who may import whom: each line by the lines above it only, or by its own. Longest names count first.
LAYERS = [
    ["ambient"],
    ["checks", "registry", "linalg", "devices", "files", "noise", "images", "noise_level", "bits", "table", "nets"],
    ["photon_noise"],
    ["priors.base"],
    ["priors"],
    ["likelihoods"],
    ["operators"],
    ["posteriors"],
    ["samplers"],
    ["scale"],
    ["cells", "compression", "measuring", "record", "known", "plausible", "drawing"],
    ["marginal"],
    ["blind"],
    ["result"],
    ["restoration", "training", "scores", "benchmark", "truth", "divergences"],
    ["demo"],
    ["cli", "__main__"],
]
# Of what stands above them, these may import only some; operators and priors stand side by side.
NARROWER = {
    "likelihoods": {"ambient", "checks", "linalg", "noise", "registry"},
    "operators": {"ambient", "checks", "linalg", "likelihoods", "registry"},
    "priors.base": {"ambient", "checks"},
    "samplers": {
        *("ambient", "checks", "linalg", "devices", "likelihoods", "noise", "registry"),
        *("priors.base", "priors.gaussian.covariance", "posteriors"),
        *("operators.base", "operators.linear", "operators.masking", "operators.measurement", "operators.sight"),
    },
    "posteriors": {
        *("ambient", "checks", "linalg", "operators.base", "operators.linear", "operators.measurement"),
        *("priors.base", "priors.amortized", "priors.gaussian"),
    },
    "training": {
        *("ambient", "checks", "priors", "nets", "images", "devices", "files", "noise", "bits", "registry"),
        *("posteriors", "operators.base", "operators.linear", "operators.measurement"),
    },
}


def name_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def imports(path):
    """(module, names, whether in a function) of the imports in a file, but for those for type checkers."""

    def of(node, inside):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return
        if isinstance(node, ast.Import):
            yield from ((alias.name, (), inside) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module, tuple(alias.name for alias in node.names), inside
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):  # imports stand nowhere else
                yield from of(child, inside)

    return tuple(of(ast.parse(path.read_text(encoding="utf-8")), inside=False))


def own_imports(path):
    """The modules of this package that a file imports, functions included, without the leading `genprior.`."""
    for module, names, _ in imports(path):
        if module == "genprior":
            yield from names
        elif module.startswith("genprior."):
            yield module.removeprefix("genprior.")


def within(module, group):
    return module == group or module.startswith(f"{group}.")


def group_of(module):
    groups = [group for layer in LAYERS for group in layer if within(module, group)]
    return max(groups, key=len) if groups else None


def layer_of(module):
    return next(k for k, layer in enumerate(LAYERS) if group_of(module) in layer)


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if name_of(path))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path):
    me = name_of(path)
    assert group_of(me), f"{me} has no place in LAYERS"
    for module in own_imports(path):
        if module in genprior.__all__:  # `import genprior` for restore, degrade, load_prior
            assert within(me, "cli")
            continue
        assert layer_of(module) <= layer_of(me), f"{me} imports {module}, which stands above it"
        allowed = NARROWER.get(group_of(me))
        if allowed is not None and group_of(module) != group_of(me):
            assert any(within(module, a) for a in allowed), f"{me} imports {module}; it may import {sorted(allowed)}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_what_is_imported_is_there(path):
    """In functions too, which nothing else may ever call."""
    for module, names, _ in imports(path):
        if module.split(".")[0] == "genprior":
            found = importlib.import_module(module)
            for name in names:
                assert hasattr(found, name) or importlib.util.find_spec(f"{module}.{name}"), f"{module} has no {name}"


def test_no_module_reaches_itself_by_its_imports():
    """Those in functions count; those for type checkers do not."""
    names = {name_of(path): path for path in MODULES}
    reached = {}
    for name, path in names.items():
        whole = {name for module, ones, _ in imports(path) for name in (module, *(f"{module}.{one}" for one in ones))}
        reached[name] = {module.removeprefix("genprior.") for module in whole} & set(names) - {name}
    order = TopologicalSorter(reached)
    try:
        order.prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_slow_packages_are_imported_where_they_are_used(path):
    slow = {module.split(".")[0] for module, _, inside in imports(path) if not inside} & HEAVY
    assert slow <= ({"accelerate"} if name_of(path) == "training.loop" else set())


# Seconds of the bare import, the least of three, as a busy machine can only make it slower; then the slow packages that
# it loads, and those that everything in `genprior.__all__` does.
MEASURE = """
import sys, time
before, seconds = set(sys.modules), []
for _ in range(3):
    for name in set(sys.modules) - before:
        del sys.modules[name]
    begin = time.perf_counter()
    import genprior
    seconds.append(time.perf_counter() - begin)
bare = set(sys.modules)
for name in genprior.__all__:
    getattr(genprior, name)
slow = {slow!r}
print(min(seconds), *sorted(bare & slow), "|", *sorted(set(sys.modules) & slow))
"""


def test_import_is_quick_and_loads_nothing_slow():
    """Not even torch, until something is asked for."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURE.format(slow=HEAVY | {"torch"})],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    first, everything = run.stdout.split("|")
    seconds, *loaded = first.split()
    assert loaded == []
    assert everything.split() == ["torch"]
    assert float(seconds) < 0.2


def test_everything_promised_is_there():
    for name in genprior.__all__:
        assert getattr(genprior, name) is not None
    assert set(genprior.__all__) <= set(dir(genprior))
    with pytest.raises(AttributeError, match="restoer"):
        _ = genprior.restoer

"""docs/course.md: each system of the course has code, a test, a recipe and a figure, and they are where it says."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "course.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}
SYSTEMS = [title for title in SECTIONS if "(*" in title]


def test_every_system_of_the_course_has_a_section():
    words = ("Divergences", "flow", "Flow-GAN", "Variational", "Denoising", "Latent", "Adversarial", "Conditional")
    for word in (*words, "inverse problems"):
        assert any(word in title for title in SYSTEMS), word


@pytest.mark.parametrize("title", SYSTEMS)
def test_a_system_has_code_tests_a_recipe_and_an_equation(title):
    section = SECTIONS[title]
    assert re.search(r"\{py:\w+\}`", section)
    assert re.search(r"`tests/[\w/]+\.py::test_\w+`", section)
    assert re.search(r"recipes/\w+\.py", section)
    assert re.search(r"^    \S.*=", section, re.M)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\{py:\w+\}`([\w.]+)`", PAGE))))
def test_code_that_is_named_exists(name):
    parts = name.split(".")
    for k in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:k]))
        except ModuleNotFoundError:
            continue
        for part in parts[k:]:
            found = getattr(found, part)
        return
    pytest.fail(f"{name} is no module of ours")


@pytest.mark.parametrize(("path", "test"), sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE))))
def test_tests_that_are_named_exist(path, test):
    tests = [node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.FunctionDef)]
    assert not test or test in tests


@pytest.mark.parametrize("path", sorted(set(re.findall(r"recipes/\w+\.py|images/[\w-]+\.png|\(([\w-]+\.md)", PAGE))))
def test_pages_that_are_linked_exist(path):
    assert not path or (ROOT / "docs" / path).exists()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(recipes/\w+\.py|images/[\w-]+\.png)", PAGE))))
def test_recipes_and_figures_exist(path):
    assert ((ROOT if path.startswith("recipes") else ROOT / "docs") / path).exists()


@pytest.mark.parametrize("recipe", sorted(set(re.findall(r"recipes/(\w+)\.py", PAGE))))
def test_recipes_are_smoke_tested(recipe):
    named = {recipe, re.sub(r"_(nf|vae|ddpm|gan|ldm)_", "_{family}_", recipe)}
    tests = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path.name != "test_course.py"]
    assert any(f'"{name}"' in text for name in named for text in tests), recipe

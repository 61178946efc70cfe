"""Docstrings reach the reader of the site as they were written: equations, |x|, A* and code."""

import importlib.util
from pathlib import Path

import docutils.core
import docutils.nodes
import pytest

PATH = Path(__file__).parents[2] / "docs" / "docstrings.py"


@pytest.fixture(scope="module")
def docstrings():
    spec = importlib.util.spec_from_file_location("docstrings", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed(lines):
    """The document, made without a warning."""
    return docutils.core.publish_doctree("\n".join(lines), settings_overrides={"halt_level": 2, "report_level": 5})


def test_an_indented_equation_is_a_literal_block_even_without_blank_lines(docstrings):
    lines = ["Along each side", "    x* = argmin |y - A x|^2", "      + |x|_1", "which is *never* `x`."]
    document = parsed(docstrings.to_rst(lines))
    (block,) = document.findall(docutils.nodes.literal_block)
    assert block.astext() == "x* = argmin |y - A x|^2\n  + |x|_1"
    before, after = document.findall(docutils.nodes.paragraph)
    assert before.astext() == "Along each side"
    assert after.astext() == "which is *never* x."
    assert [code.astext() for code in after.findall(docutils.nodes.literal)] == ["x"]


def test_what_looks_like_markup_is_text(docstrings):
    text = r"|x| and x_ and x_t, A*, (B, *image_shape), **k, a \ b, x_{t-1}, __all__"
    assert parsed(docstrings.to_rst([text])).astext() == text


def test_sections_are_left_to_napoleon_and_references_are_one_item_each(docstrings):
    lines = ["Arguments:", "    x: (B, C, H, W),", "        as is.", "", "References:"]
    lines += ["    One title, of", "    two lines. A. Author, 1999.", "    Another. B. Author, 2000."]
    rst = docstrings.to_rst(lines)
    assert rst[:4] == lines[:4]
    assert rst[5:] == ["    - One title, of", "      two lines. A. Author, 1999.", "    - Another. B. Author, 2000."]


def test_code_that_names_something_of_ours_leads_there(docstrings):
    scope = "genprior.samplers.guidance.pigdm.PiGDM"
    assert docstrings.full_name("begin", scope) == "genprior.samplers.base.begin"
    assert docstrings.full_name("PiGDM(steps=100)", scope) == scope
    assert docstrings.full_name("Prior.given", scope) == "genprior.priors.base.Prior.given"
    assert docstrings.full_name("sample", scope) == f"{scope}.sample"
    assert docstrings.full_name("genprior.DPS") == "genprior.samplers.guidance.dps.DPS"
    # letters, fields, modules of the same name, and what is torch's
    for code in ("x", "steps", "noise", "torch.Tensor", "Tensor", "x_t + 1"):
        assert docstrings.full_name(code, scope) is None, code

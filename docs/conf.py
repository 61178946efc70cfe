"""The configuration with which Sphinx builds the documentation: `make docs`."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import docstrings

import genprior
from genprior.priors.card import card_text, picture_of
from genprior.priors.folder import read_card
from genprior.priors.store import BUNDLED, bundled
from genprior.samplers import SAMPLERS

project = "genprior"
author = "The genprior authors"
copyright = author
version = release = genprior.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "gallery"]
suppress_warnings = ["config.cache"]
# Quotes stay as written: "inpaint" is often code.
smartquotes = False

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_title = f"genprior {version}"
html_theme_options = {"navigation_with_keys": True}
html_show_copyright = False

# Headings that other pages may link to.
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]

autodoc_default_options = {"undoc-members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
# There are none, and looking for them takes most of the time, because each member has its whole module parsed.
autodoc_use_type_comments = False
napoleon_use_rtype = False
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Attributes", "params_style"), ("Methods", "params_style")]

# The build uses no network, so types of other packages have no page to link to.
nitpick_ignore_regex = [("py:.*", r"(?!genprior\.).*")]

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "examples",
    "filename_pattern": "plot_",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "abort_on_example_error": True,
}


def skip_data(app, what, name, obj, skip, options):
    """Leave out values, such as the fields that `Attributes` describes, and what networks inherit from torch."""
    method = callable(obj) or isinstance(obj, property | classmethod | staticmethod)
    return skip or not method or (name == "forward" and not obj.__doc__)


def find_where_defined(app, env, node, contnode):
    """Lead links such as `genprior.DPS` or `genprior.DPS.steps` to where these are defined or described."""
    name = node.get("reftarget", "")
    while node.get("refdomain") == "py" and name.startswith("genprior."):
        target = docstrings.full_name(name)
        domain = env.get_domain("py")
        found = target and domain.resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, contnode)
        if found:
            return found
        name = name.rpartition(".")[0]
    return None


def list_samplers(app, docname, source):
    """Insert the registry of samplers, each name with its class, where the page asks for it."""
    rows = [
        f"   * - ``{name}``\n     - :py:obj:`~{one.__module__}.{one.__qualname__}`" for name, one in SAMPLERS.items()
    ]
    table = "\n".join([".. list-table::", "   :header-rows: 1", "", "   * - name", "     - class", *rows])
    source[0] = source[0].replace("|samplers by name|", table)


def show_cards(app, docname, source):
    """Insert the card of every bundled prior with its picture."""
    if docname == "cards":
        cards = []
        for folder in (BUNDLED / name for name in bundled()):
            picture = picture_of(folder)
            place = picture and os.path.relpath(picture, Path(__file__).parent)
            cards.append(card_text(folder.name, read_card(folder), place))
        source[0] = source[0].replace("|cards|", "\n\n".join(cards))


def setup(app):
    app.connect("source-read", list_samplers)
    app.connect("source-read", show_cards)
    app.connect("autodoc-process-docstring", docstrings.process, priority=100)
    app.connect("autodoc-skip-member", skip_data)
    app.connect("missing-reference", find_where_defined)

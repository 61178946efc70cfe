"""Turn the docstrings of this package, plain text with Google's sections, into the reStructuredText that Sphinx reads.

Indented lines outside of a section are equations: literal blocks. Text in backticks is code, with a link where it
names something of ours. What reStructuredText would take for markup, as in |x| or A*, stays text.
"""

import functools
import inspect
import pydoc
import re

SECTION = re.compile(r"(Args|Arguments|Attributes|Methods|Raises|References|Returns):")
MARKUP = re.compile(r"[\\*|]|_(?!\w)")


def process(app, what, name, obj, options, lines):
    """Handle the event autodoc-process-docstring, before napoleon reads the sections."""
    lines[:] = to_rst(lines, functools.partial(full_name, scope=name))


def to_rst(lines, full_name=lambda code: None):
    """Return the lines of a docstring as reStructuredText; full_name("DPS") is where a link leads, None for no link."""
    rst, section = [], None
    for line, before in zip(lines, ["", *lines]):
        if line and not line.startswith(" "):
            match = SECTION.fullmatch(line)
            section = match and match[1]
        equation = line.startswith(" ") and not section
        if equation and not before.startswith(" "):
            rst += ["", ".. code-block:: text", ""]
        if before.startswith(" ") and line and not line.startswith(" ") and not section:
            rst += [""]
        if section == "References" and line.startswith("    ") and before.endswith((":", ".")):
            line = "    - " + line.strip()
        elif section == "References" and line:
            line = line.replace("    ", "      ", 1)
        rst.append(line if equation else _text(line, full_name))
    return rst


def _text(line, full_name):
    parts = re.split(r"`([^`]+)`", line)
    parts[::2] = [MARKUP.sub(r"\\\g<0>", text) for text in parts[::2]]
    parts[1::2] = [_code(code, full_name(code)) for code in parts[1::2]]
    return "".join(parts)


def _code(code, name):
    return rf"\ :py:obj:`{code} <{name}>`\ " if name else rf"\ ``{code}``\ "


@functools.cache
def full_name(code, scope=""):
    """Return where `code`, a name or a call of one, is defined in this package, looked up from `scope` outwards."""
    name = code.split("(")[0]
    while re.fullmatch(r"[A-Za-z][\w.]*", name):
        thing = pydoc.locate(f"{scope}.{name}" if scope else name)
        if inspect.ismodule(thing) and "." in name and thing.__name__.startswith("genprior"):
            return thing.__name__
        thing = getattr(thing, "fget", None) or getattr(thing, "__func__", thing)
        found = f"{getattr(thing, '__module__', None)}.{getattr(thing, '__qualname__', '_')}"
        if re.fullmatch(r"genprior(\.[A-Za-z]\w*)+", found):
            return found
        if not scope:
            break
        scope = scope.rpartition(".")[0]
    return None

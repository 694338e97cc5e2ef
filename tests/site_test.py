"""The site, as far as it can be tested without building it, which `make docs` does.

Not here: whether links and anchors lead somewhere. mkdocs warns, and a warning is an error.
"""

import ast
import importlib
import re
from pathlib import Path

import pytest
import yaml

import droppath
from website import depth_plan
from website.diagram import diagram
from website.docstrings import to_markdown
from website.formulas import TEX
from website.names import FILES, public_names

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
OUTSIDE = {"spec.md", "contributing.md", "changelog.md"}  # website/hooks.py makes these pages


def pages_of(nav):
    """Every path in the nav of mkdocs.yml, however deep."""
    for entry in nav:
        for value in entry.values():
            yield from [value] if isinstance(value, str) else pages_of(value)


def test_the_nav_names_each_page_once_and_no_other():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = list(pages_of(config["nav"]))
    written = {file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.md")}
    assert len(written) > 15
    assert sorted(pages) == sorted(written | OUTSIDE)


def test_the_pages_from_outside_exist():
    hooks = (ROOT / "website/hooks.py").read_text(encoding="utf-8")
    pages = ast.literal_eval(re.search(r"^PAGES = (\{.*?^\})", hooks, re.MULTILINE | re.DOTALL)[1])
    assert set(pages.values()) == OUTSIDE
    assert all((ROOT / source).is_file() for source in pages)


def test_timm_is_one_click_from_the_start_and_its_page_has_all_three_steps():
    assert "](from_timm.md)" in (DOCS / "index.md").read_text(encoding="utf-8")
    after = (DOCS / "from_timm.md").read_text(encoding="utf-8").split("## After")[1]
    block = re.search(r"```python\n(.*?)```", after, re.DOTALL)[1]
    assert all(f"{step}(model" in block for step in ("convert", "skip_dropped", "keyed"))


@pytest.mark.parametrize("package", FILES)
def test_each_public_name_is_on_its_page_of_the_api_once(package):
    module = importlib.import_module(package)
    names = getattr(module, "__all__", None) or ["DropPath", "DropPathResidual"]
    assert sorted(public_names(package)) == sorted(names)
    page = DOCS / f"api/{package.split('.')[0]}.md"
    shown = re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    ours = [path for path in shown if path.rpartition(".")[0] == package]
    assert sorted(ours) == sorted(f"{package}.{name}" for name in names if name != "__version__")


def docstrings():
    """The docstrings of all that is public, and of the methods that are shown."""
    for package in FILES:
        module = importlib.import_module(package)
        for name in public_names(package):
            yield getattr(module, name).__doc__


def test_each_formula_of_a_docstring_has_its_tex_and_no_tex_is_left_over():
    texts = [" ".join(text.split()) for text in docstrings()]
    assert [formula for formula in TEX if not any(formula in text for text in texts)] == []
    lines = [line.strip() for text in docstrings() for line in text.splitlines()]
    formulas = [line for line in lines if re.match(r"d?\w(\[i\]) = ", line)]
    assert len(formulas) > 5
    assert [line for line in formulas if not line.startswith(tuple(TEX))] == []


DOCSTRING = """Return x * s, as `key` and `other` say: KEY-1, [0, 1].

y[i] = x[i] * s if keep[i] else +0

Args:
  x, y: floating,
    over two lines.
  Others as in `key`.

Returns: T / 2**23 of
  them.
Raises: never.

>>> f(
...     1)
'y'
"""

MARKDOWN = rf"""Return x \* s, as [`key`][droppath.key] and `other` say: [KEY-1][KEY-1], \[0, 1\].

```math
{TEX["y[i] = x[i] * s if keep[i] else +0"]}
```

**Args**

`x`, `y`
:   floating,
    over two lines.

Others as in [`key`][droppath.key].

**Returns**
:   `#!math {TEX["T / 2**23"]}` of
    them.

**Raises**
:   never.

```pycon
>>> f(
...     1)
'y'
```
"""


def test_a_docstring_becomes_markdown():
    assert to_markdown(DOCSTRING, {"key": "droppath.key"}) == MARKDOWN


def test_a_diagram_becomes_a_table():
    made = diagram('flowchart TD\n    a["A: first"]\n    b["B: 1 < 2"] --> a\n')
    assert "<td><code>B</code></td><td>1 &lt; 2</td><td>→ <code>A</code></td>" in made
    assert "<td><code>A</code></td><td>first</td><td></td>" in made


def test_nothing_of_the_site_is_loaded_from_elsewhere():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert config["theme"]["font"] is False
    assert config["strict"] is True
    sheets = config["extra_css"] + config.get("extra_javascript", [])
    assert [sheet for sheet in sheets if not (DOCS / sheet).is_file()] == []
    assert "url(" not in "".join((DOCS / sheet).read_text(encoding="utf-8") for sheet in sheets)


def test_the_picture_of_a_plan_shows_as_many_layers_in_every_step(tmp_path):
    steps = droppath.split(droppath.key(0), depth_plan.STEPS)
    assert {int(droppath.layer_plan(key, depth_plan.RATES).sum()) for key in steps} == {9}
    assert {int(depth_plan.coins(key).sum()) for key in steps} >= {7, 8, 9, 10, 11}
    depth_plan.draw(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")

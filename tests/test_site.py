"""The documentation's site: its pages are whole before they are built, and its faults are found.

`make docs` builds it, in an environment of its own, and fails where anything leads nowhere.
"""

import importlib
import json
import re
import tomllib

import pytest
from places import ROOT

import dit_jax
from docs.site import check, pages

API = ROOT / "docs/api.md"


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    out = tmp_path_factory.mktemp("pages")
    pages.stage(ROOT, out)
    return out


def entries(nav):
    for place in nav:
        while isinstance(place, dict):
            (place,) = place.values()
        yield from entries(place) if isinstance(place, list) else [place]


def test_every_link_of_a_page_leads_to_a_page(staged):
    found = {path: pages.LINK.findall(path.read_text()) for path in staged.rglob("*.md")}
    assert len(found) > 50 and sum(map(len, found.values())) > 200
    for path, links in found.items():
        if path.name.endswith((".py.md", ".ipynb.md")):
            continue  # programs
        for _, place in links:
            assert pages.OUTSIDE.match(place) or (path.parent / place).is_file(), (path, place)


def test_the_menu_has_every_page_of_the_documentation_once(staged):
    config = tomllib.loads((ROOT / "docs/site/zensical.toml").read_text())["project"]
    menu = list(entries(config["nav"]))
    assert len(menu) == len(set(menu))
    assert all((staged / place).is_file() for place in menu)
    own = {path.relative_to(staged).as_posix() for path in staged.glob("docs/*.md")}
    assert own <= set(menu)
    assert config["theme"]["font"] is False  # no other host's


def test_the_api_page_has_every_public_name():
    directives = re.findall(r"^<!-- ::: (\S+)", API.read_text(), re.MULTILINE)
    named = []
    for place in directives:
        module, _, name = place.rpartition(".")
        named.append(getattr(importlib.import_module(module), name))
        assert named[-1].__doc__, place
    assert len(pages.DIRECTIVE.findall(API.read_text())) == len(directives)
    for name in set(dit_jax.__all__) - {"__version__"}:
        assert f"`dit_jax.{name}`" in API.read_text()
        assert getattr(dit_jax, name) in named


def test_members_of_the_api_page_exist():
    text = API.read_text()
    for place, members in re.findall(r"::: (\S+)\n    options:\n      members: \[(.*)\]", text):
        module, _, name = place.rpartition(".")
        one = getattr(importlib.import_module(module), name)
        assert all(hasattr(one, member) for member in members.split(", ")), place


def test_a_link_out_of_the_repository_is_refused(tmp_path):
    for link, error in (("../../x.md", ValueError), ("none.py", FileNotFoundError)):
        (tmp_path / "README.md").write_text(f"[a]({link})")
        with pytest.raises(error, match=re.escape(link)):
            pages.stage(tmp_path, tmp_path / "out")


def test_programs_folders_and_notebooks_become_pages(tmp_path):
    root, out = tmp_path / "root", tmp_path / "out"
    (root / "docs").mkdir(parents=True)
    (root / "code").mkdir()
    (root / "README.md").write_text("[code](code) [page](docs/a.md#b)")
    (root / "docs/b.md").write_text("1. one\n\n   more\n   - in it\n\n        code\n- a\n\n  b\n")
    (root / "docs/a.md").write_text("# b\n\n[up](../code/run.py) [web](https://a.b/c.py)")
    (root / "code/run.py").write_text("x[0](y)\n")
    output = {"output_type": "display_data", "data": {"image/png": "aGk="}}
    cells = [
        {"cell_type": "markdown", "source": ["# T\n", "[m](../README.md)"]},
        {"cell_type": "code", "source": ["draw()"], "outputs": [output]},
    ]
    (root / "examples").mkdir()
    (root / "examples/n.ipynb").write_text(json.dumps({"cells": cells}))
    pages.stage(root, out)
    listed = "1. one\n\n    more\n    - in it\n\n        code\n- a\n\n    b\n"
    assert (out / "docs/b.md").read_text() == listed
    assert "[code](code.md)" in (out / "README.md").read_text()
    assert "[run.py](code/run.py.md)" in (out / "code.md").read_text()
    assert (
        (out / "docs/a.md").read_text().endswith("[up](../code/run.py.md) [web](https://a.b/c.py)")
    )
    assert "~~~~python\nx[0](y)\n~~~~" in (out / "code/run.py.md").read_text()
    page = (out / "examples/n.ipynb.md").read_text()
    assert "# T\n[m](../README.md)\n\n~~~~python\ndraw()\n~~~~\n\n" in page
    assert page.endswith('<img alt="output" src="n_1.png">\n')
    assert (out / "examples/n_1.png").read_bytes() == b"hi"


def test_faults_of_a_built_site_are_found(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/b.html").write_text("<h1 id='here'></h1><a href='https://a.b'>kept</a>")
    (tmp_path / "a.html").write_text(
        "<a href='in/b.html#here'></a><a href='in/b.html#there'></a><a href='c.html'></a>"
        "<img src='x.png'><script src='https://cdn/x.js'></script><a href='#nowhere'></a>"
        "<h2 id='own'></h2><link rel='canonical' href='https://a.b/'>"
    )
    assert list(check.faults(tmp_path)) == [
        "a.html fetches https://cdn/x.js",
        "a.html leads to x.png, which is not there",
        "a.html leads to in/b.html#there, which has no such place",
        "a.html leads to c.html, which is not there",
        "a.html leads to #nowhere, which has no such place",
    ]

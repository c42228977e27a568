"""docs/label.md: its ontology, its command, and its labeling interface, as they stand."""

import re
import shlex
import textwrap

from command_line import launched
from PIL import Image
from places import ROOT
from quickly import compiled_quickly
from small_models import write_model

from dit_jax.data import shapes
from dit_jax.predict.label import studio


def test_the_page(tmp_path, monkeypatch, programs):
    text = (ROOT / "docs/label.md").read_text(encoding="utf-8")
    found = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    ontology, command, *_, interface = (textwrap.dedent(block).strip() for block in found)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.fromarray(shapes.scene("val", 1, size=64).image()).save("photos/1.png")
    (tmp_path / "ontology.json").write_text(ontology)
    write_model(tmp_path / "mini")
    with compiled_quickly(programs):
        done = launched(*shlex.split(command.replace("\\\n", " "))[2:])
    assert done.stdout.endswith("in 1 picture are in out/labels.\n"), done.stderr
    assert {path.name for path in (tmp_path / "out/labels").iterdir()} == {
        *("annotations.json", "labels.ndjson", "review"),
    }
    project = studio.Project.of(interface)
    assert project.labels == {"star": "the red star", "square": "square"}

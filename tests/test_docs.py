"""Each page of documentation: commands parse, links and paths lead somewhere, programs run.

docs/predict.md, docs/label.md, docs/serve.md, docs/deploy.md and docs/model-card.md are run as they
stand by the test_docs.py of tests/predict, tests/predict/label, tests/serve and tests/export.
"""

import json
import re
import shlex
import sys
import textwrap
from unittest import mock

import cv2
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from closeness import assert_close
from photos import encoded, photo
from places import ROOT
from quickly import compiled_quickly
from small_models import write_model

from dit_jax import cli
from dit_jax.convert import __main__ as convert
from dit_jax.data import prepare
from dit_jax.data.annotations import datasets
from dit_jax.eval import score
from dit_jax.figures import __main__ as figures
from dit_jax.strict import flatten
from dit_jax.train.workdir import OF_ITS_TRAINING, OF_THE_MODEL
from dit_jax.version import VERSION
from dit_jax.weights import push

# ml_collections 1.1, at every config file that a flag names, on Python 3.11
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += [ROOT / "benchmarks" / "README.md"]
PAGES += sorted(ROOT.glob("docs/*.md"))
PARSERS = {
    "convert": convert.parser,
    "dit_jax.data.prepare": prepare._parser,
    "dit_jax.eval.score": score._parser,
    "dit_jax.figures": figures._parser,
    "dit_jax.weights.push": push.parser,
}
SHORT = {name.rpartition(".")[2]: name for name in PARSERS}  # as `dit-jax` calls them
PROGRAM = re.compile(r"\bpython[\d.]*\s+(?:-m\s+)?(launch\.py|(?<=-m )[\w.]+)(.*)")
INSTALLED = re.compile(r"^\s*dit-jax (\w+)\s+(\S.*)")  # the same, where the package is
ENDS = re.compile(r"\s[>|<&]|'|\s#|&&")  # what a shell does with a command's output
LEFT_OPEN = ("…", "MODE", "ROW")
FOLDERS = ("benchmarks", "configs", "convert", "dit_jax", "docs", "examples", "tests")
LINK = re.compile(r'(?:\]\(|src=")([^)"\s]+)')


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def text_of(page):
    return page.read_text(encoding="utf-8")


def blocks(page):
    """The indented blocks of a page, without their indentation."""
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text_of(page), re.MULTILINE)
    return [textwrap.dedent(block).strip("\n") for block in found]


def code(page):
    """Every line of its blocks, continuations joined, and every piece of code in its prose."""
    for line in text_of(page).replace("\\\n", " ").splitlines():
        yield from [line] if line.startswith("    ") else re.findall("`([^`]+)`", line)


def commands(page):
    """(program, arguments) of every command that says all of itself."""
    for line in code(page):
        if any(word in line for word in LEFT_OPEN):
            continue
        if found := PROGRAM.search(line):
            yield found[1], shlex.split(ENDS.split(found[2])[0])
        elif found := INSTALLED.match(line):
            words = shlex.split(ENDS.split(found[2])[0])
            program = found[1] in SHORT
            yield (
                (SHORT[found[1]], words)
                if program
                else ("launch.py", [f"--mode={found[1]}", *words])
            )


def check_launch(arguments, runs):
    """A command of launch.py: flags and config, as `cli.main` reads them before anything runs.

    `runs` has the settings of those that the page began, by workdir: who asks one of them without
    --model has to say the same of its model.
    """
    line = ["launch.py", *arguments]
    # ml_collections looks there for the keys of a config that are changed.
    with flagsaver.flagsaver(), mock.patch.object(sys, "argv", line):
        assert cli.parse(line) == ["launch.py"]
        cli.check_flags(cli.MODES[flags.FLAGS.mode])
        if flags.FLAGS["config"].present:
            settings, workdir = flatten(cli.config()), flags.FLAGS.workdir
            if flags.FLAGS.mode == "train":
                runs.setdefault(workdir, settings)
            elif workdir in runs and not flags.FLAGS.model and flags.FLAGS.mode != "plan":
                for key, value in runs[workdir].items():
                    if key.startswith(OF_THE_MODEL) and key not in OF_ITS_TRAINING:
                        assert settings[key] == value, (workdir, key)


def is_program(module):
    path = ROOT / module.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_parse(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    runs = {}
    for program, arguments in commands(page):
        if program == "launch.py":
            check_launch(arguments, runs)
        elif program in PARSERS and arguments:
            PARSERS[program]().parse_args(arguments)
        elif program not in ("pytest", "venv"):
            assert is_program(program), program


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_programs_compile(page):
    for block in blocks(page):
        if block.startswith(("import ", "from ")):
            compile(block, page.name, "exec")


def test_there_are_commands():
    """Of every program, so that the test above looks at what it means to look at."""
    found = [command for page in PAGES for command in commands(page)]
    assert len(found) > 50
    assert {"launch.py", *PARSERS, "examples.own_data", "docs.architecture"} <= dict(found).keys()
    assert ("launch.py", ["--mode=serve", "--model=mini_sam"]) in found  # `dit-jax serve …`
    assert SHORT.keys() == cli.PROGRAMS.keys()
    assert sum("launch.py" in line for page in PAGES for line in code(page)) < 60  # few left open


@pytest.mark.parametrize("key", ["--config.optim.batchsize=4", "--mode=trian", "--modle=x"])
def test_a_wrong_command_would_be_found(key, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises((ValueError, KeyError, flags.Error)):
        check_launch(["--config=configs/quickstart.py", "--workdir=x", key], {})


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_and_pins_exist(page):
    targets = re.findall(r"^([\w-]+):", text_of(ROOT / "Makefile"), re.MULTILINE)
    pins = "".join(text_of(path) for path in ROOT.glob("requirements*.txt"))
    for line in code(page):
        if made := re.match(r"\s*make ([\w-]+)", line):
            assert made[1] in targets
        for name, version in re.findall(r"\b([\w-]+)(?:\[\w+\])?==([\d.]+)", line):
            assert f"{name}=={version}" in pins


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for link in LINK.findall(text_of(page)):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        if anchor:
            heads = re.findall(r"^#+ (.*)$", text_of(target), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in heads}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_exist(page):
    """In backticks: from the project's top, from dit_jax, or from the row's own file."""
    changed = page.name == "CHANGELOG.md"  # speaks of what is gone, too
    for name in [] if changed else re.findall(r"`([\w./-]+(?:\.py|/))`", text_of(page)):
        first = name.split("/")[0]
        if "/" in name.rstrip("/") and (first in FOLDERS or (ROOT / "dit_jax" / first).is_dir()):
            assert (ROOT / name).exists() or (ROOT / "dit_jax" / name).exists(), name


def test_the_readme_is_short_and_begins_with_the_three_paths():
    lines = text_of(ROOT / "README.md").splitlines()
    assert len(lines) <= 130
    paths = [link for link in LINK.findall("\n".join(lines[:20])) if link.startswith("#")]
    assert [link[1] for link in paths] == ["a", "b", "c"]


def test_every_page_is_in_the_index():
    listed = LINK.findall(text_of(ROOT / "docs/README.md"))
    assert {page.name for page in ROOT.glob("docs/*.md")} - {"README.md"} <= set(listed)


def test_the_version_is_said_once():
    assert f"\nversion: {VERSION}\n" in text_of(ROOT / "CITATION.cff")
    assert re.search(r"^## (.*)$", text_of(ROOT / "CHANGELOG.md"), re.MULTILINE)[1] == VERSION


def test_the_readmes_program_runs(tmp_path, monkeypatch, programs):
    write_model(tmp_path / "mini")
    monkeypatch.chdir(tmp_path)
    (program,) = [one for one in blocks(ROOT / "README.md") if one.startswith("import ")]
    names = {}
    with compiled_quickly(programs):
        exec(compile(program, "README.md", "exec"), names)
    assert names["found"].mask.shape == names["found"].probability.shape == (128, 104)


def test_the_program_of_word_maps_runs(tmp_path, monkeypatch, programs):
    write_model(tmp_path / "DIR")
    (tmp_path / "photo.jpg").write_bytes(encoded(photo(), "JPEG"))
    monkeypatch.chdir(tmp_path)
    (program,) = [one for one in blocks(ROOT / "docs/see.md") if one.startswith("from ")]
    names = {}
    with compiled_quickly(programs):
        exec(compile(program, "see.md", "exec"), names)
    found = names["found"]
    assert [word.text for word in found.words] == ["the", "red", "cup"]
    assert found.shares.shape == (len(found.layers), 3) and 0 <= found.words[1].iou <= 1


def test_the_program_of_attention_runs():
    """Its gradients, tables of positions included, are plain attention's."""
    (program,) = [one for one in blocks(ROOT / "docs/speed.md") if one.startswith("import ")]
    plainly = program.replace("attend(q, k, v, rel=rel)", "attend_plain(q, k, v, rel, None)")
    plainly = plainly.replace("attention import attend,", "attention.dispatch import attend_plain,")
    found, expected = {}, {}
    exec(compile(program, "speed.md", "exec"), found)
    exec(compile(plainly, "speed.md", "exec"), expected)
    assert found["dtable_h"].shape == (63, 64)
    for name in ("dq", "dtable_h", "dtable_w"):
        assert_close(found[name], expected[name], name, tolerance=1e-4)


def write_coco(folder):
    """What an annotation tool exports: categories, no captions; two cups in the second picture."""
    square = [[4, 4, 20, 4, 20, 20, 4, 20]]
    objects = [(1, 1), (2, 1), (2, 1), (2, 2)]  # picture, category
    (folder / "export.json").write_text(
        json.dumps(
            {
                "images": [
                    {"id": i, "file_name": f"{i}.jpg", "height": 32, "width": 48} for i in (1, 2)
                ],
                "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "saucer"}],
                "annotations": [
                    {"id": i, "image_id": image, "category_id": kind, "segmentation": square}
                    for i, (image, kind) in enumerate(objects)
                ],
            }
        )
    )


def test_what_annotation_tools_write_is_read(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    for number in (1, 2):
        picture = np.zeros((32, 48, 3), np.uint8)
        assert cv2.imwrite(str(tmp_path / f"photos/{number}.jpg"), picture)
    write_coco(tmp_path)
    monkeypatch.chdir(tmp_path)
    programs = [block for block in blocks(ROOT / "docs/own-data.md") if block.startswith("import ")]
    (program,) = [one for one in programs if "export.json" in one]
    exec(compile(program, "own-data.md", "exec"), {})
    read = datasets.open_annotations("folder", "", source=tmp_path / "photos")
    entries = [entry for split in read.splits.values() for entry in split]
    assert sorted(entry.expressions for entry in entries) == [("the cup",), ("the saucer",)]

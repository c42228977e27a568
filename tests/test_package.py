"""What is built and installed: one importable name, one command, and everything that they need."""

import importlib.metadata
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from PIL import Image
from places import ROOT
from quickly import environment
from small_models import write_model

import dit_jax
from dit_jax import Segmenter
from dit_jax.convert import checkpoint
from dit_jax.data.shapes import dataset
from dit_jax.eval.prediction_files import read
from dit_jax.serve import server
from dit_jax.version import VERSION

NAME = f"dit_jax-{VERSION}"
# As `python -m build` does it: a source distribution, and from that alone a wheel.
BUILD = """
import sys, tarfile
from setuptools import build_meta
out = sys.argv[1]
with tarfile.open(f"{out}/{build_meta.build_sdist(out)}") as archive:
    archive.extractall(out, filter="data")
"""
BUILD_WHEEL = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
# Of a checkout, where they lie in a wheel.
INSIDE = {"configs": "dit_jax/configs", "convert": "dit_jax/convert", "dit_jax": "dit_jax"}
UNUSED = Segmenter.__new__(Segmenter)
ONLY_IN_A_CHECKOUT = {"dit_jax/configs/__init__.py", "dit_jax/convert/__init__.py"}


def sources() -> list[str]:
    """The project's files: those that git knows, or, in a source distribution, those it lists."""
    listed = ROOT / "dit_jax.egg-info" / "SOURCES.txt"
    if (ROOT / ".git").exists():
        git = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        said = subprocess.run(git, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    else:
        said = listed.read_text()
    names = (name for name in said.splitlines() if not name.startswith((".", "dit_jax.egg-info")))
    return sorted(name for name in names if (ROOT / name).is_file())


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with both distributions, and the source distribution unpacked."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in sources():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    for program, cwd in ((BUILD, copy), (BUILD_WHEEL, out / NAME)):
        command = [sys.executable, "-c", program, str(out)]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        assert "absent from the `packages` configuration" not in done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built) -> zipfile.ZipFile:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        yield archive


def test_the_wheel_holds_the_project_under_one_name(wheel):
    expected = set()
    for name in sources():
        top, _, rest = name.partition("/")
        if top in INSIDE and name not in ONLY_IN_A_CHECKOUT:
            expected.add(f"{INSIDE[top]}/{rest}")
    found = {name for name in wheel.namelist() if not name.startswith(f"{NAME}.dist-info/")}
    assert found == expected
    assert {"dit_jax/serve/page/index.html", "dit_jax/data/shapes/vocab.txt"} < found
    assert {"dit_jax/weights/model_card.md", "dit_jax/configs/quickstart.py"} < found
    scripts = wheel.read(f"{NAME}.dist-info/entry_points.txt").decode()
    assert scripts == "[console_scripts]\ndit-jax = dit_jax.cli:console\n"


def test_nothing_in_it_is_imported_by_a_name_of_the_checkout(wheel):
    for name in wheel.namelist():
        if name.endswith(".py"):
            text = wheel.read(name).decode()
            assert not re.search(r"^\s*(from|import) (configs|convert|launch)\b", text, re.M), name


def test_the_source_distribution_holds_everything(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.removeprefix(f"{NAME}/") for name in archive.getnames()}
    assert set(sources()) <= names


def pins(name: str) -> dict[str, str]:
    """package → version of a requirements file, without those that it includes."""
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return dict(line.split("==") for line in lines if line and not line.startswith("-r"))


def test_the_metadata_asks_for_ranges_that_hold_the_pins(built):
    (distribution,) = importlib.metadata.distributions(path=[str(next(built.glob("*.whl")))])
    assert distribution.version == VERSION
    asked = [Requirement(line) for line in distribution.requires]
    extras = distribution.metadata.get_all("Provides-Extra")
    assert sorted(extras) == ["convert", "cuda", "demo", "gcs", "hub", "onnx", "s3", "tpu", "wandb"]
    assert not [str(one) for one in asked if "==" in str(one.specifier)]

    def of(extra: str) -> dict[str, Requirement]:
        return {
            one.name: one
            for one in asked
            if (one.marker.evaluate({"extra": extra}) if one.marker else not extra)
        }

    for extra, file in {
        "": "requirements.txt",
        "demo": "requirements-demo.txt",
        "onnx": "requirements-onnxruntime.txt",
    }.items():
        pinned = pins(file)
        assert of(extra).keys() == pinned.keys()
        for name, version in pinned.items():
            assert version in of(extra)[name].specifier, name
    for extra, name in {
        "convert": "torch",
        "hub": "huggingface_hub",
        "gcs": "gcsfs",
        "wandb": "wandb",
    }.items():
        assert pins("requirements-dev.txt")[name] in of(extra)[name].specifier
    assert {extra: one.extras for extra in ("tpu", "cuda") for one in of(extra).values()} == {
        "tpu": {"tpu"},
        "cuda": {"cuda13"},
    }


@pytest.mark.parametrize(
    ("needed", "extra", "ask"),
    [
        ("torch", "convert", lambda: checkpoint.write("never.pth", {})),
        (
            "uvicorn",
            "demo",
            lambda: server.make_server(UNUSED, name="", host="", port=0, deadline=1.0),
        ),
    ],
)
def test_what_is_missing_is_an_extra(monkeypatch, needed, extra, ask):
    monkeypatch.setitem(sys.modules, needed, None)
    with pytest.raises(ModuleNotFoundError, match=re.escape(f"pip install 'dit_jax[{extra}]'.")):
        ask()


@pytest.fixture(scope="module")
def installed(built, programs, tmp_path_factory):
    """`dit-jax` of an environment that has the wheel, and of this one's packages the others."""
    folder, elsewhere = tmp_path_factory.mktemp("venv"), tmp_path_factory.mktemp("elsewhere")
    venv.create(folder, symlinks=True)
    paths = {
        kind: sysconfig.get_path(kind, "venv", {"base": str(folder)})
        for kind in ("purelib", "scripts")
    }
    others = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(paths["purelib"], "others.pth").write_text("\n".join(others))
    python = Path(paths["scripts"], "python")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
        "--python",
        python,
    ]
    wheel = next(built.glob("*.whl"))
    subprocess.run([*pip, "install", "--no-deps", "--no-index", wheel], check=True, timeout=240)
    env = environment(programs)
    env.pop("PYTHONPATH", None)

    def run(program, *arguments):
        command = [folder / "bin" / program, *map(str, arguments)]
        how = dict(cwd=elsewhere, env=env, capture_output=True, text=True, timeout=240)
        return subprocess.run(command, **how)

    return run


@pytest.mark.proof
def test_installed(installed, tmp_path):
    model = write_model(tmp_path / "model")
    Image.fromarray(dataset.scene("val", 1, size=64).image()).save(tmp_path / "scene.png")
    out = tmp_path / "out"
    asked = (f"--model={model}", f"--images={tmp_path / 'scene.png'}", "--text=the red star")
    done = installed("dit-jax", "predict", *asked, f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert len(list(read(out / "predictions.jsonl"))) == 1
    gone = installed("dit-jax", "convert", "sam", "gone.pth", "out")
    assert gone.stderr.startswith("convert sam: no such checkpoint")
    assert installed("dit-jax", "convert", "--help").stdout.startswith("usage: dit-jax convert")
    unknown = installed("dit-jax", "predicd")
    assert unknown.stderr.startswith(
        "error: the command is 'predicd'; expected one of train, eval,"
    )
    assert "(nearest: predict)" in unknown.stderr
    quickstart = ("--config=configs/quickstart.py", f"--workdir={tmp_path / 'w'}")
    no_run = installed("dit-jax", "eval", *quickstart)
    assert "holds no checkpoints; train first" in no_run.stderr  # the config was found
    for name in ("configs", "convert", "launch"):
        said = installed("python", "-c", f"import {name}").stderr
        assert f"No module named '{name}'" in said


@pytest.mark.proof
def test_installed_it_trains(installed, tmp_path):
    quickstart = ("--config=configs/quickstart.py", "--config.optim.max_steps=2")
    done = installed("dit-jax", "train", *quickstart, f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "Trained 2 steps." in done.stdout
    assert (tmp_path / "model" / "model.safetensors").is_file()


@pytest.mark.proof
@pytest.mark.parametrize(
    "asked",
    [
        ("--collect-only",),
        ("tests/test_rooms.py", "tests/test_docs.py", "tests/weights/test_card.py"),
        ("tests/test_package.py", "-m", "not proof"),
    ],
)
def test_the_source_distribution_tests_itself(built, asked):
    """Every test is there with its helpers, and those run that read docs, the card and itself."""
    command = [sys.executable, "-m", "pytest", *asked]
    done = subprocess.run(command, cwd=built / NAME, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout


def test_names_of_the_package():
    assert dit_jax.Segmenter is Segmenter
    assert dit_jax.Segmentation.__name__ == "Segmentation"
    with pytest.raises(AttributeError, match="no attribute 'Segmentor'"):
        dit_jax.Segmentor  # noqa: B018

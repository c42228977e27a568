"""What tests of export share: a model small enough to export, a picture to try it on, and an
environment of nothing but the packages that an exported folder asks for."""

import importlib.metadata
import importlib.util
import re
import sysconfig
import venv
from pathlib import Path

import numpy as np
from packaging.requirements import Requirement
from PIL import Image
from places import ROOT

from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Bert, Vit

VIT = Vit(depth=2, width=32, heads=2, global_blocks=(1,), window=3, grid=4)
BERT = Bert(vocab=256, depth=1, width=32, heads=2, mlp_width=48, positions=32)
SEED = 5  # its masks cover about half of a drawn picture
SMALL = dict(text_layer=1, decoder_width=64, decoder_mlp_width=64, decoder_depth=1, image_size=64)
TEXTS = ["the red circle", "small striped star on the left"]


def random_params(arch, *, seed=SEED):
    """Fresh parameters, but zero nowhere."""
    rng = np.random.default_rng(seed)
    flat = params_lib.flatten(params_lib.init(arch, seed=seed))
    return params_lib.unflatten(
        {k: (v + 0.1 * rng.standard_normal(v.shape)).astype(np.float32) for k, v in flat.items()}
    )


def runner(folder):
    """The module that lies beside the program."""
    spec = importlib.util.spec_from_file_location("beside", folder / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn(height, width, *, seed=0):
    """A smooth picture with edges, as photographs have them."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    picture = picture.copy()
    picture[height // 3 : height // 2 + 1, width // 4 : width // 2 + 1] = rng.integers(0, 256, 3)
    return picture


def made_of(folder: Path, packages: list[str]) -> Path:
    """The Python of an environment with these packages and what they require, linked from this one.

    Raises PackageNotFoundError where one is not here.
    """
    venv.create(folder, symlinks=True)
    paths = {
        kind: Path(sysconfig.get_path(kind, "venv", {"base": str(folder)}))
        for kind in ("purelib", "scripts")
    }
    waiting, linked = [*packages], set()
    while waiting:
        found = importlib.metadata.distribution(waiting.pop())
        if found.name in linked:
            continue
        linked.add(found.name)
        needed = map(Requirement, found.requires or ())
        waiting += [r.name for r in needed if not r.marker or r.marker.evaluate({"extra": ""})]
        for top in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
            (paths["purelib"] / top).symlink_to(found.locate_file(top))
    return paths["scripts"] / "python"


def said_to_need(exported: Path, form: str) -> list[str]:
    """Packages of an exported program, which its card, its runner and docs/deploy.md all name."""
    (line,) = re.findall(r"^    pip install (.*)", (exported / "README.md").read_text(), re.M)
    names = [Requirement(word).name for word in line.split()]
    row = re.search(rf"^\| `{form}` \|.*\| (.*) \|$", (ROOT / "docs/deploy.md").read_text(), re.M)
    beside = re.search(r'"""(.*?)"""', (exported / "run.py").read_text(), re.S)
    named = re.search(rf"pip install ({names[0]} .*?) +for segment.{form}", beside[1])
    assert [name.lower() for name in re.findall(r"\w+", row[1].split(" to read")[0])] == names
    assert named[1].split() == names
    return names

"""`--mode=export`: a model in a form that others take it in; one row of `FORMATS` a form.

Whatever the form, the folder is written whole or not at all, its manifest says what is in it, and
its model card is there to be finished.
"""

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path

from dit_jax.eval import report
from dit_jax.export import source
from dit_jax.export.source import Source
from dit_jax.models import params as params_lib
from dit_jax.strict import one_of
from dit_jax.weights import card as model_card
from dit_jax.weights import directory, manifest, packs

Writer = Callable[[Source, Path], None]


def safetensors(found: Source, folder: Path) -> None:
    """A model directory once more, now with manifest and card; of a pack, the whole model."""
    about = dict(vocab=found.vocab, unused=found.unused, provenance=found.provenance)
    directory.save(folder, found.arch, found.params, **about, overwrite=True)


def rounded(found: Source, folder: Path) -> None:
    """The same with int8 weights: a quarter of the size, on disk and in memory."""
    arch, params = params_lib.to_int8(found.arch, found.params)
    safetensors(dataclasses.replace(found, arch=arch, params=params, unused={}), folder)


def lazy(name: str) -> Writer:
    """`write` of a module that takes long to import, or packages that few people need."""
    return lambda found, folder: importlib.import_module(name).write(found, folder)


FORMATS: dict[str, Writer] = {
    "safetensors": safetensors,
    "int8": rounded,
    "stablehlo": lazy("dit_jax.export.stablehlo"),
    "onnx": lazy("dit_jax.export.onnx"),
}
PACK = "pack"


def export(
    model_dir: Path,
    out: Path,
    *,
    form: str,
    base: Path | None = None,
    license: str | None = None,
    scored: Path | None = None,
) -> manifest.Manifest:
    """Writes the folder `out`, and returns its manifest.

    Args:
      model_dir: a model directory; or a pack, with its `base`.
      base: of `form` "pack", the model that `model_dir` was trained from.
      license: under which the model may be used; None keeps what is known.
      scored: workdir whose `eval/*.json` are this model's scores; None keeps what is known.

    Raises FileExistsError if `out` holds anything, ValueError or OSError where something is wrong
    with what is given.
    """
    one_of("--format", form, (*FORMATS, PACK))
    if form == PACK and base is None:
        raise ValueError("--format=pack expected --base=DIR, the model that it was trained from.")
    if form == PACK and packs.is_pack(model_dir):
        raise ValueError(f"{model_dir} is a pack already; expected the whole model.")
    scores = {} if scored is None else report.read_headlines(scored)
    with directory.atomic_folder(out) as folder:
        if form == PACK:
            found = source.read(model_dir)
            pack = packs.make(model_dir, base)
            packs.write(pack, folder)
            found = dataclasses.replace(found, provenance=pack.provenance)
        else:
            found = source.read(model_dir, base=base)
            FORMATS[form](found, folder)
            if form == "int8":  # other weights: what was measured of the old ones is not of them
                found = dataclasses.replace(found, calibration=None, scores={})
        found = dataclasses.replace(
            found, license=license or found.license, scores={**found.scores, **scores}
        )
        return describe(found, folder, name=out.name, form=form)


def describe(found: Source, folder: Path, *, name: str, form: str) -> manifest.Manifest:
    """Writes manifest and model card into a folder."""
    names = ("provenance", "license", "scores", "calibration")
    noted = manifest.write(folder, **{name: getattr(found, name) for name in names})
    count = sum(leaf.size for leaf in params_lib.flatten(found.params).values())
    card = model_card.fill(noted, name=name, form=form, arch=found.arch, parameters=int(count))
    (folder / manifest.CARD).write_text(card, encoding="utf-8")
    return noted

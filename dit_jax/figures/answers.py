"""Several models asked the same questions: what stands in the comparison's rows and columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from dit_jax.data import mix, shapes
from dit_jax.data.pipeline import expression_table
from dit_jax.data.referent import Source
from dit_jax.models.architecture import Architecture, Injection
from dit_jax.predict import Segmenter

# As the paper's tables call them.
METHODS = {
    Injection.NONE: "Default",
    Injection.E2E: "E-DIT",
    Injection.E2E_CARRIED: "E-DIT (Eq. 4)",
    Injection.E2E_STATIC: "E-DIT + static",
    Injection.LAYER_WISE: "L-DIT",
    Injection.LAYER_WISE_STATIC: "L-DIT + static",
    Injection.CROSS_ATTENTION: "CrossAtt",
    Injection.CROSS_ATTENTION_FFN: "CrossAtt + FFN",
}
SAM_DECODER = 2  # layers, to which the paper's rows "+2" and "+4" add


@dataclass(frozen=True)
class Named:
    """A model directory and what its column is called; None: as the paper calls its method."""

    folder: Path
    name: str | None

    @staticmethod
    def parse(text: str) -> "Named":
        """`DIR` or `NAME=DIR`."""
        name, equals, folder = text.partition("=")
        if not equals or Path(text).is_dir():
            return Named(Path(text), None)
        if not name.strip() or not folder:
            raise ValueError(f"--model is {text!r}; expected DIR or NAME=DIR.")
        return Named(Path(folder), name.strip())


@dataclass(frozen=True)
class Example:
    """One expression of a data set."""

    image: UInt8[np.ndarray, "H W 3"]
    truth: Bool[np.ndarray, "H W"]
    text: str
    id: str


@dataclass(frozen=True)
class Column:
    """What one model answers, one mask an example."""

    name: str
    masks: list[Bool[np.ndarray, "_ _"]]


def open_source(
    dataset: str, split: str, *, source: Path, cache_dir: Path, size: int, length: int
) -> Source:
    """A split of `shapes`, `folder(photos)`, `refcoco(unc)`, …; records are built where missing.

    Args:
      source: the REFER folder; of own folders it stands in the brackets.
      cache_dir: where the records are.
      size, length: of `shapes`: pixels of the long side, and referents.
    """
    parts = mix.parse(dataset, split_by="", source=str(source))
    if len(parts) > 1:
        raise ValueError(f"--dataset is {dataset!r}; expected one data set, not a mix.")
    (part,) = parts
    if part.kind == "shapes":
        return shapes.Shapes(split, size=size, length=length)
    from dit_jax.data import (
        prepare,
        records,  # TFDS takes seconds to import
    )

    own = part.kind == "folder"
    where = part.argument if own else source
    folder = prepare.prepare(
        part.kind, "" if own else part.argument, source=where, out_dir=cache_dir
    )
    return records.Records(folder, split)


def examples(source: Source, *, count: int, indices: Sequence[int] = ()) -> list[Example]:
    """The expressions `indices` of a split, or `count` of them, evenly spread."""
    table = expression_table(source)
    outside = [index for index in indices if not 0 <= index < len(table)]
    if outside:
        raise ValueError(
            f"there is no expression {outside[0]}; this split has 0 … {len(table) - 1}."
        )
    if count < 1:
        raise ValueError(f"--count is {count}; expected 1 or more.")
    spread = np.linspace(0, len(table) - 1, min(count, len(table))).astype(int).tolist()
    found = []
    for index in indices or spread:
        referent, number = (int(n) for n in table[index])
        item = source[referent]
        found.append(Example(item.image, item.mask, item.expressions[number], item.id))
    return found


def columns(models: Sequence[Named], asked: Sequence[Example]) -> list[Column]:
    """Every model's answers; one model is in memory at a time."""
    found = []
    for model in models:
        segmenter = Segmenter.from_pretrained(model.folder)
        answers = segmenter([one.image for one in asked], [one.text for one in asked])
        masks = [np.zeros_like(one.mask) if one.nothing else one.mask for one in answers]
        found.append(Column(model.name or method(segmenter.arch), masks))
    return [
        Column(_apart(column.name, model, found), column.masks)
        for column, model in zip(found, models, strict=True)
    ]


def method(arch: Architecture) -> str:
    """What the paper calls an architecture: "L-DIT", "Default + 2 layers"."""
    more = arch.decoder_depth - SAM_DECODER
    if arch.bert is None:
        return "SAM"
    return METHODS[arch.injection] + (f" + {more} layers" if more > 0 else "")


def _apart(name: str, model: Named, all_of_them: Sequence[Column]) -> str:
    """With the folder's name where two columns would be called the same."""
    twice = [column.name for column in all_of_them].count(name) > 1
    return f"{name}, {model.folder.absolute().name}" if twice and model.name is None else name

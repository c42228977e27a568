"""The modes that ask a model about a user's pictures, with the flags that they alone have."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

from dit_jax import storage

TEXT = flags.DEFINE_multi_string("text", [], "What to look for in every picture; may be repeated.")
PAIRS = flags.DEFINE_string(
    "pairs", None, 'File of lines {"image": …, "text": …}, instead of --images and --text.'
)
POINT = flags.DEFINE_multi_string("point", [], "x,y or x,y,label in pixels; may be repeated.")
BOX = flags.DEFINE_multi_string("box", [], "x0,y0,x1,y1 in pixels: a mask each; may be repeated.")
MASK = flags.DEFINE_string("mask", None, "A mask picture that the answer starts from.")
MULTIMASK = flags.DEFINE_bool("multimask", False, "Three masks for a prompt without text.")
TILE = flags.DEFINE_integer("tile", None, "Of large pictures: pixels that are seen at once.")
OVERLAP = flags.DEFINE_integer("overlap", None, "Pixels that tiles share; a quarter of a tile.")
INSTANCES = flags.DEFINE_bool("instances", False, "A mask for each object that was found.")
ONTOLOGY = flags.DEFINE_string("ontology", None, 'label: file of {"expression": "class", …}.')
REVIEW = flags.DEFINE_bool("review", False, "label: draw what was found, to look at.")
# As Meta's automatic mask generator calls them: the fields of `predict.everything.Everything`.
SETTINGS = {
    name: (flags.DEFINE_integer if kind is int else flags.DEFINE_float)(
        name, None, "everything: as Meta's automatic mask generator has it."
    )
    for name, kind in {
        "points_per_side": int,
        "points_per_batch": int,
        "pred_iou_thresh": float,
        "stability_score_thresh": float,
        "stability_score_offset": float,
        "box_nms_thresh": float,
        "crop_n_layers": int,
        "crop_nms_thresh": float,
        "crop_overlap_ratio": float,
        "crop_n_points_downscale_factor": int,
        "min_mask_region_area": int,
    }.items()
}


def predict(
    model: Path, out: Path, *, images: Sequence[str], form: str | None, **how: bool
) -> None:
    from dit_jax.predict import command  # JAX takes seconds to import

    command.predict(
        *(model, out),
        images=images,
        texts=TEXT.value,
        pairs_file=storage.local(PAIRS.value) if PAIRS.value else None,
        points=POINT.value,
        boxes=BOX.value,
        mask=storage.local(MASK.value) if MASK.value else None,
        multimask=MULTIMASK.value,
        **_pieces(),
        **how,
    )


def label(model: Path, out: Path, *, images: Sequence[str], form: str | None, **how: bool) -> None:
    from dit_jax.predict.label import command

    said = dict(ontology_file=storage.local(ONTOLOGY.value), form=form, review=REVIEW.value)
    command.label(model, out, images=images, **said, **_pieces(), **how)


def everything(
    model: Path, out: Path, *, images: Sequence[str], form: str | None, **how: bool
) -> None:
    from dit_jax.predict.label import command

    settings = {name: flag.value for name, flag in SETTINGS.items() if flag.value is not None}
    command.everything(model, out, images=images, settings=settings, **how)


def _pieces() -> dict[str, int | bool | None]:
    return dict(instances=INSTANCES.value, tile=TILE.value, overlap=OVERLAP.value)


class OnPictures(NamedTuple):
    """A mode, and the flags that it needs and takes beside those that all of these have."""

    run: Callable[..., None]
    needs: tuple[str, ...]
    takes: tuple[str, ...]


PIECES = ("instances", "tile", "overlap")
PROMPT = ("images", "text", "pairs", "point", "box", "mask", "multimask")
MODES = {
    "predict": OnPictures(predict, (), (*PROMPT, *PIECES)),
    "label": OnPictures(label, ("images", "ontology", "format"), (*PIECES, "review")),
    "everything": OnPictures(everything, ("images",), tuple(SETTINGS)),
}

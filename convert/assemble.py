"""The start of training: SAM's and BERT's published weights, fresh DIT parameters between them."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from dit_jax.convert import files, sources, transfer
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture, Bert
from dit_jax.models.params import Params
from dit_jax.strict import differences
from dit_jax.weights import directory

FRESH = (  # in no SAM: the paper's own parameters, and ours
    "image_encoder.injector.",
    "image_encoder.prob_text.",
    "mask_decoder.presence_head.",
)
SAM_DECODER_DEPTH = 2
TEXT = "text_encoder."


def assemble(
    arch: Architecture, *, sam: Path | str | None, bert: Path | str | None, seed: int = 0
) -> Params:
    """Parameters of `arch` from a SAM and a BERT: each a file or folder of other people's, or a
    model directory.

    What neither holds (injector, text projections, decoder layers beyond SAM's two, presence head)
    is drawn from `seed`; a part that is not given is fresh as a whole. Raises ValueError where one
    does not fit, also in what no shape tells.
    """
    flat = params_lib.flatten(params_lib.init(arch, seed=seed))
    if sam:
        flat |= _sam(arch, Path(sam), flat)
    if bert and arch.bert is None:
        raise ValueError(f"{bert} is given for BERT, and the variant has no text encoder.")
    if bert:
        theirs, tensors = open_bert(Path(bert), like=arch.bert)
        check_bert(theirs, arch.bert, source=bert)
        flat |= {path: value for path, value in tensors.items() if path in flat}  # its first layers
    return params_lib.unflatten(flat)


def open_bert(source: Path, *, like: Bert | None = None) -> tuple[Bert, dict]:
    """The text encoder of a file, folder or model directory: what it is, and `text_encoder.*`.

    See `sources.bert` for `like`.
    """
    if not files.is_ours(source):
        with _named(source):
            bert, found = sources.bert(source, like=like)
        return bert, transfer.fill(transfer.text_targets(bert), found).tensors
    bert, contents = directory.read_text_encoder(source), directory.read_contents(source)
    tensors = {path: value for path, value in contents.tensors.items() if path.startswith(TEXT)}
    directory.check(tensors, transfer.text_targets(bert), source=str(source))
    return bert, tensors


@contextlib.contextmanager
def _named(source: Path) -> Iterator[None]:
    """What is wrong with one of two sources says with which."""
    try:
        yield
    except ValueError as error:
        if str(source) in str(error):
            raise
        raise ValueError(f"{source}: {error}") from error


def check_bert(found: Bert, wanted: Bert, *, source: Path | str) -> None:
    """Raises ValueError naming the fields that differ: equal shapes do not make equal models.

    A model may have fewer layers, the first ones: nothing above `text_layer` is read.
    """
    first = dataclasses.replace(found, depth=min(found.depth, wanted.depth))
    if first != wanted:
        different = differences(found, wanted)
        raise ValueError(
            f"{source} holds another BERT than the model has (its own ≠ the model's):"
            f" {different}; for a model around it, set model.text_encoder={source}."
        )


def _sam(arch: Architecture, source: Path, flat: dict) -> dict:
    extra = tuple(
        f"mask_decoder.transformer.layers.{i}."
        for i in range(SAM_DECODER_DEPTH, arch.decoder_depth)
    )
    components = ("image_encoder.", "prompt_encoder.", "mask_decoder.")
    wanted = {
        path: value
        for path, value in flat.items()
        if path.startswith(components) and not path.startswith(FRESH + extra)
    }
    ours = files.is_ours(source)
    if ours:
        contents = directory.read_contents(source)
        if contents.architecture is None:
            raise ValueError(f"{source} holds only a text encoder; expected a SAM.")
        theirs = contents.architecture
    else:
        with _named(source):
            theirs, found = sources.sam(source)
    if different := differences(theirs.vit, arch.vit):
        raise ValueError(
            f"{source} holds another ViT than the model has (its own ≠ the model's): {different}."
        )
    if not ours:
        return transfer.fill(wanted, found).tensors
    tensors = {p: v for p, v in contents.tensors.items() if p.startswith(components)}
    directory.check(tensors, wanted, source=str(source))
    return tensors

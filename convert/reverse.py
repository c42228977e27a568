"""A model directory back to PyTorch: a whole model, Meta's SAM, or Hugging Face's `SamModel`.

What shapes cannot tell (`checkpoint.FACTS`) goes with it, so that converting it again gives the
same model.
"""

import dataclasses
import re
from pathlib import Path

import numpy as np

from dit_jax.convert import checkpoint, hugging_face, names, transfer
from dit_jax.convert.checkpoint import State
from dit_jax.convert.sources import RELEASED_TEXT_LAYER
from dit_jax.models.architecture import PATCH, Architecture, Injection, to_json
from dit_jax.weights import directory

FORMATS = ("dit", "sam", "hf-sam")


def reverse(
    model_dir: Path, out: Path, *, form: str, wrap: bool = False, overwrite: bool = False
) -> int:
    """Writes `out`, and returns how many tensors it has.

    Args:
      form: one of `FORMATS`.
      wrap: the file holds `{"state_dict": …}`.
      overwrite: a folder may be replaced; a file always is.
    """
    if form == "hf-sam" and wrap:
        raise ValueError("--wrap is for a file, and --format=hf-sam writes a folder; leave it out.")
    if form != "hf-sam" and out.suffix == ".safetensors":
        raise ValueError(f"{out} would hold no safetensors but PyTorch's pickle; name it .pth.")
    contents = directory.read_contents(model_dir)
    arch = contents.architecture
    if arch is None:
        raise ValueError(f"{model_dir} holds only a text encoder; expected a whole model.")
    directory.read(model_dir)  # refuses a directory that does not fit its architecture
    if form == "dit" and arch.bert is None:
        raise ValueError(f"{model_dir} is plain SAM; use --format=sam.")
    if form == "dit" and arch.inject_from:
        raise ValueError(
            f"{model_dir} reads text from block {arch.inject_from} on; the released code reads it"
            " from block 0, and knows no other way."
        )
    state = transfer.to_state(contents.tensors) | contents.unused
    if form != "dit":
        state, arch = _sam_state(state), _sam_part(arch)
    elif contents.provenance.get("format") != "dit":  # else it is whole already
        state = declared(arch) | state
    if form == "hf-sam":
        hugging_face.write(out, arch, state, overwrite=overwrite)
        return len(state)
    if form == "dit" and arch.presence:
        print(
            "mask_decoder.presence_head: the released code declares no such part and loads the"
            " rest of the file with load_state_dict(strict=False)"
        )
    if form == "dit":
        first = arch.text_layer == RELEASED_TEXT_LAYER
        own = [] if first else [f"reads layer {arch.text_layer} of BERT"]
        own += ["masks padding"] if arch.mask_padding else []
        if own:
            print(
                f"this model {' and '.join(own)}; the released code reads layer"
                f" {RELEASED_TEXT_LAYER} and masks none, and gives other answers with this file"
            )
    if form == "sam":
        state = {names.META.write(name): value for name, value in state.items()}
    checkpoint.write(out, state, wrap=wrap, facts={"architecture": to_json(arch)})
    return len(state)


def declared(arch: Architecture) -> State:
    """Zeros for what the released code declares and never reads, so that it loads strictly."""
    pooler, width = "lang_encoder.bert.pooler.dense", arch.bert.width
    shapes = {f"{pooler}.weight": (width, width), f"{pooler}.bias": (width,)}
    if arch.injection != Injection.NONE:
        shapes |= names.DECLARED
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def _sam_state(state: State) -> State:
    """SAM's own tensors; names the others."""
    ours = re.compile(r"visual_encoder\.(prob|tokens|cross|ln)|mask_decoder\.presence_head\.")
    mine = {n: v for n, v in state.items() if n.startswith(names.SAM_PARTS) and not ours.match(n)}
    left_out = sorted(state.keys() - mine.keys())
    if left_out:
        print(f"left out, not part of SAM: {', '.join(left_out)}")
    return mine


def _sam_part(arch: Architecture) -> Architecture:
    """The SAM inside a model, as Meta runs it; plain SAM as it is."""
    if arch.bert is None:
        return arch
    without = dict(bert=None, injection=Injection.NONE, inject_from=0)
    without |= dict(text_projection=None, presence=False)
    usual = dict(image_size=arch.vit.grid * PATCH, windowed=True)
    return dataclasses.replace(arch, **without, **usual)

"""What a source is, and its tensors: a SAM, a BERT or a DIT model, whatever it is wrapped in.

What the tensors cannot tell is taken from `config.json` beside them, from what `reverse` noted in
the file, or from the command line; what is still assumed then is said.
"""

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

from dit_jax.convert import beside, checkpoint, files, infer, names
from dit_jax.convert.checkpoint import Checkpoint
from dit_jax.models.architecture import PATCH, Architecture, Bert, Injection, from_json
from dit_jax.weights import directory, hub

RELEASED_TEXT_LAYER = 1  # what the released code reads, by a slip in an argument's position
DIT_IMAGE_SIZE = 512
TEXT_TOKENS = 20
UNTOLD = ("heads", "activation", "epsilon")  # fields of `Bert` that leave no trace in shapes
HINTS = {"e2e": Injection.E2E, "edit": Injection.E2E, "ldit": Injection.LAYER_WISE}

Blocks = tuple[int, ...]


def sam(
    source: Path,
    *,
    image_size: int | None = None,
    global_blocks: Blocks | None = None,
    key: str | None = None,
) -> tuple[Architecture, Checkpoint]:
    """SAM with windowed blocks and no text, under Meta's or Hugging Face's names."""
    found = checkpoint.read(source, "sam", key=key)
    config = beside.find(source) if found.convention is names.HF_SAM else None
    said = beside.vit(config) if config else {}
    noted = _noted(found)
    if global_blocks is None:
        global_blocks = said.get("global_blocks", noted and noted.vit.global_blocks)
    image = infer.vit(found, global_blocks=global_blocks)
    beside.compare(config, said, image)
    usual = image.grid * PATCH if noted is None else noted.image_size
    if "medsam" in source.name.lower():
        say(
            f"{source} is read as the SAM that MedSAM is; it was trained on pictures whose values"
            " were scaled to 0 … 1, and here they are normalised as SAM's."
        )
    arch = Architecture(
        vit=image,
        bert=None,
        injection=Injection.NONE,
        **infer.decoder(found),
        image_size=usual if image_size is None else image_size,
        windowed=noted is None or noted.windowed,
        **_as_noted(noted),
    )
    return arch, found


def bert(
    source: Path, *, heads: int | None = None, like: Bert | None = None, key: str | None = None
) -> tuple[Bert, Checkpoint]:
    """A text encoder, as the config beside its weights says; `like` is assumed where it does not.

    Raises ValueError for what has BERT's tensors and is none.
    """
    found = checkpoint.read(source, "bert", key=key)
    config = beside.find(source)
    said = beside.bert(config) if config else {}
    if not said:
        _refuse_roberta(found)
    model = infer.bert(found, **_untold(found, said, heads, like))
    beside.compare(config, said, model)
    return model, found


def text_encoder(named: str) -> Bert:
    """The size of a BERT, from its config alone where that says it."""
    source = hub.local(named)
    return described(source) or bert(source)[0]


def described(source: Path) -> Bert | None:
    """What the config of a folder or beside a file says of a BERT; None where it does not say all.

    Reads no tensors.
    """
    if files.is_ours(source):
        return directory.read_text_encoder(source)
    config = beside.find(source)
    said = beside.bert(config) if config else {}
    whole = said.keys() == {field.name for field in dataclasses.fields(Bert)}
    return Bert(**said) if whole else None


def _refuse_roberta(found: Checkpoint) -> None:
    """It has BERT's tensors; 2ⁿ + 2 positions, one type of tokens or zeros where a padding's
    position is give it away."""
    embeddings = infer.bert_embeddings(found)
    positions, types = embeddings["position"][0], embeddings["token_type"][0]
    padding = found.tensors[infer.EMBEDDINGS.format("position")][1:2]
    if types == 1 or (positions - 2).bit_count() == 1 or not padding.any():
        raise ValueError(
            f"{found.source} looks like RoBERTa or XLM-R, whose positions start at 2: it has"
            f" {positions} positions and {types} types of tokens. If it is a BERT, put its"
            " config.json beside it."
        )


def dit(
    source: Path,
    *,
    variant: Injection | None = None,
    text_layer: int | None = None,
    text_heads: int | None = None,
    image_size: int | None = None,
    global_blocks: Blocks | None = None,
    key: str | None = None,
) -> tuple[Architecture, Checkpoint]:
    """A model of the released code, or one that `reverse` wrote; arguments overrule the file."""
    found = checkpoint.read(source, "dit", key=key)
    noted = _noted(found)
    if noted is not None and global_blocks is None:
        global_blocks = noted.vit.global_blocks
    image = infer.vit(found, global_blocks=global_blocks)
    usual = dict(text_layer=RELEASED_TEXT_LAYER, image_size=DIT_IMAGE_SIZE, text_tokens=TEXT_TOKENS)
    if noted is not None:
        usual = {field: getattr(noted, field) for field in (*usual, "mask_padding")}
        variant = variant or noted.injection
    given = dict(text_layer=text_layer, image_size=image_size)
    given |= {"text_tokens": infer.static_tokens(found)}
    arch = Architecture(
        vit=image,
        bert=_bert_inside(found, noted, text_heads, head_width=image.width // image.heads),
        injection=choose_injection(found, variant),
        **infer.decoder(found),
        text_projection="visual_encoder.prob_text.weight" in found.tensors,
        presence=any(name.startswith("mask_decoder.presence_head.") for name in found.tensors),
        **_as_noted(noted),
        **usual | {field: value for field, value in given.items() if value is not None},
    )
    return arch, found


def _bert_inside(
    found: Checkpoint, noted: Architecture | None, heads: int | None, *, head_width: int
) -> Bert:
    """The text encoder of a DIT model, as noted in the file, else as a config beside it says."""
    if noted is not None and noted.bert is not None:
        config, said = None, dataclasses.asdict(noted.bert)
    else:
        config = beside.find(found.source)
        said = beside.bert(config) if config and beside.is_bert(config) else {}
    model = infer.bert(found, **_untold(found, said, heads, head_width=head_width))
    beside.compare(config, said, model)
    return model


def choose_injection(found: Checkpoint, wanted: Injection | None) -> Injection:
    """The method of a checkpoint. Raises ValueError where `wanted` contradicts the tensors.

    E-DIT and L-DIT have the same tensors: without `wanted` the file's name may tell
    (`e2e`, `edit`, `ldit` as a word), else it is L-DIT, the paper's best.
    """
    possible, source = infer.injection(found), found.source
    if wanted is not None:
        if wanted not in possible:
            raise ValueError(
                f"{source} has the tensors of {' or '.join(possible)}, not of {wanted}."
            )
        return wanted
    if len(possible) == 1:
        return possible[0]
    words = re.split(r"[^a-z0-9]+", source.stem.lower())
    hinted = [HINTS[word] for word in words if word in HINTS]
    choice = hinted[0] if hinted else possible[0]
    why = f"by the name of {source.name}" if hinted else "the default"
    say(
        f"the tensors fit {' and '.join(possible)}; taken as {choice}, {why}: give --variant to"
        " choose."
    )
    return choice


def say(text: str) -> None:
    """A remark to whoever converts; results go to standard output."""
    print(text, file=sys.stderr)


def _untold(
    found: Checkpoint,
    said: dict[str, Any],
    heads: int | None,
    like: Bert | None = None,
    head_width: int | None = None,
) -> dict[str, Any]:
    """What shapes cannot tell of a BERT: as said, as given, or assumed, which is then printed."""
    if heads is not None and said.get("heads", heads) != heads:
        raise ValueError(f"--text-heads is {heads}, and its own config says {said['heads']}.")
    untold = {field: said[field] for field in UNTOLD if field in said}
    if heads is not None:
        untold["heads"] = heads
    _, width = infer.bert_embeddings(found)["word"]
    alike = like is not None and like.width == width
    usual = dataclasses.asdict(like if alike else Bert())
    assumed = {field: usual[field] for field in UNTOLD if field not in untold}
    if "heads" in assumed and not alike:
        assumed["heads"] = infer.bert_heads(width, head_width)
    if assumed:
        listed = ", ".join(f"{field} {value}" for field, value in assumed.items())
        say(
            f"{found.source}: tensors do not tell a BERT's {', '.join(assumed)}, and no config.json"
            f" beside them does; assumed: {listed}."
        )
    return untold | assumed


def _as_noted(noted: Architecture | None) -> dict[str, Any]:
    """What leaves no trace in tensors, whatever the model."""
    fields = ("dtype", "products", "iou_trained")
    return {} if noted is None else {field: getattr(noted, field) for field in fields}


def _noted(found: Checkpoint) -> Architecture | None:
    """The architecture that `reverse` noted in the file."""
    if "architecture" not in found.facts:
        return None
    try:
        return from_json(found.facts["architecture"])
    except ValueError as error:
        raise ValueError(f"{found.source} notes no sound architecture: {error}") from error

"""What a model is, as data: the widths, depths and switches that fix every parameter's shape.

An `Architecture` is written to `config.json` of a model directory and is all that `DitSam` needs.
Training choices (what is frozen, learning rates, data) live in `dit_jax.config`.
"""

import dataclasses
import enum
from typing import Any

from dit_jax.strict import build, one_of

PATCH = 16  # pixels; SAM never uses another patch size
HEAD_WIDTH = 32  # of the mask decoder: 8 heads at SAM's width of 256
# What a damaged file must not make us allocate: no layer of any published model comes near.
LARGEST, LARGEST_IMAGE = 1 << 20, 4096
ACTIVATIONS = ("gelu", "gelu_new", "relu")  # of BERT; "gelu_new" is the one with a tanh
# Fields that an older config.json lacks, by section, and what it means by that.
YOUNGER = {
    "": {
        "presence": False,
        "iou_trained": None,
        "inject_from": 0,
        "products": None,
        "weights": "float32",
    },
    "vit": {"table_grid": None},
    "bert": {"activation": "gelu", "epsilon": 1e-12},
}


class Injection(enum.StrEnum):
    """Which tokens stand in front of the image when a block runs; see `injection.py`."""

    NONE = "none"
    E2E = "e2e"
    E2E_CARRIED = "e2e_carried"
    E2E_STATIC = "e2e_static"
    LAYER_WISE = "layer_wise"
    LAYER_WISE_STATIC = "layer_wise_static"
    CROSS_ATTENTION = "cross_attention"
    CROSS_ATTENTION_FFN = "cross_attention_ffn"


@dataclasses.dataclass(frozen=True)
class Vit:
    """SAM's image encoder (Kirillov et al. 2023, appendix A)."""

    depth: int
    width: int
    heads: int
    global_blocks: tuple[int, ...]  # blocks whose tables span the whole grid in Meta's SAM
    window: int = 14  # patches; the other blocks' tables have 2·window − 1 rows
    grid: int = 64  # patches a side in pre-training (1024 px)
    # Patches a side that global blocks' tables span; None = the grid. SAM resizes tables while it
    # runs, so fine-tuned files keep 127 rows beside a `pos_embed` of 14×14 or 32×32.
    table_grid: int | None = None

    def __post_init__(self):
        _check_sizes(self, "vit.")
        if self.table_grid == self.grid:
            object.__setattr__(self, "table_grid", None)
        if self.width % self.heads:
            raise ValueError(f"ViT width {self.width} is not a multiple of its {self.heads} heads.")
        outside = [i for i in self.global_blocks if not 0 <= i < self.depth]
        if outside:
            raise ValueError(f"global_blocks {outside} lie outside a ViT of depth {self.depth}.")

    def table_rows(self, block: int) -> int:
        """Rows of block `block`'s relative-position tables, as published."""
        whole = self.table_grid or self.grid
        return 2 * (whole if block in self.global_blocks else self.window) - 1


@dataclasses.dataclass(frozen=True)
class Bert:
    """BERT encoder without pooler (Devlin et al. 2019); the defaults are bert-base-uncased."""

    vocab: int = 30522
    depth: int = 12
    width: int = 768
    heads: int = 12
    mlp_width: int = 3072
    positions: int = 512
    types: int = 2
    activation: str = "gelu"  # one of `ACTIVATIONS`
    epsilon: float = 1e-12  # of its LayerNorms

    def __post_init__(self):
        _check_sizes(self, "bert.")
        one_of("bert.activation", self.activation, ACTIVATIONS)
        if not 0 < self.epsilon < 1:
            raise ValueError(f"bert.epsilon is {self.epsilon}; expected a number between 0 and 1.")
        if self.width % self.heads:
            raise ValueError(
                f"BERT width {self.width} is not a multiple of its {self.heads} heads."
            )


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One text-guided SAM. `bert=None` is plain SAM: points, boxes and masks only."""

    vit: Vit
    bert: Bert | None
    injection: Injection
    decoder_depth: int = 2  # layers of the two-way transformer
    decoder_width: int = 256  # SAM's `prompt_embed_dim`: embeddings, prompts and decoder
    decoder_mlp_width: int = 2048
    text_layer: int = 12  # BERT layer whose output is used: the paper 12, the released code 1
    text_tokens: int = 20
    text_projection: bool | None = None  # W: text to the ViT's width; None = where they differ
    presence: bool = False  # the mask decoder also says whether anything is meant at all
    iou_trained: bool | None = None  # its IoU head was; None = as Meta's SAM, but no DIT's
    image_size: int = 512  # pixels a side of the square canvas a picture is letterboxed into
    mask_padding: bool = False  # hide text padding from every attention; the reference does not
    windowed: bool = False  # Meta's window partition; DIT attends globally in every block
    inject_from: int = 0  # the first block that text enters; 0 = the paper
    products: str | None = None  # of activations and weights: "bfloat16", "fp8"; None = in `dtype`
    dtype: str = "float32"  # compute dtype; parameters, softmax, norms and loss stay float32
    weights: str = "float32"  # or "int8", with a scale a channel: to ask a model, not to train it

    def __post_init__(self):
        object.__setattr__(self, "injection", Injection(self.injection))
        if self.iou_trained is None:
            object.__setattr__(self, "iou_trained", self.bert is None)
        _check_sizes(self, "")
        if self.image_size > LARGEST_IMAGE:
            raise ValueError(
                f"image_size is {self.image_size}; expected at most {LARGEST_IMAGE} pixels."
            )
        if self.decoder_width % HEAD_WIDTH:
            raise ValueError(
                f"decoder_width is {self.decoder_width}; expected a multiple of {HEAD_WIDTH}."
            )
        self._check_text()
        blocks = range(self.vit.depth if self.injection != Injection.NONE else 1)
        if self.inject_from not in blocks:
            raise ValueError(
                f"inject_from is {self.inject_from}; expected a block from 0 to {blocks[-1]}."
            )
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype is {self.dtype!r}; expected 'float32' or 'bfloat16'.")
        if self.products is not None:
            one_of("products", self.products, ("bfloat16", "fp8"))
        one_of("weights", self.weights, ("float32", "int8"))
        if self.image_size % PATCH:
            raise ValueError(f"image_size is {self.image_size}; expected a multiple of {PATCH}.")
        if self.windowed and self.injection != Injection.NONE:
            raise ValueError(f"injection {self.injection} needs global attention: windowed=False.")

    @property
    def score_kind(self) -> str:
        """What an answer's score is: "predicted_iou", by the head, or the mask's "confidence"."""
        return "predicted_iou" if self.iou_trained else "confidence"

    def _check_text(self):
        if self.bert is None and self.injection != Injection.NONE:
            raise ValueError(f"injection {self.injection} needs a text encoder, and bert is None.")
        if self.bert is None and self.presence:
            raise ValueError(
                "presence needs a text encoder, and bert is None: a point means itself."
            )
        differ = self.bert is not None and self.bert.width != self.vit.width
        if self.injection == Injection.NONE:
            object.__setattr__(self, "text_projection", False)
        elif self.text_projection is None:
            object.__setattr__(self, "text_projection", differ)
        elif differ and not self.text_projection:
            raise ValueError(
                f"text is {self.bert.width} wide and the ViT {self.vit.width}: they need a"
                " text_projection."
            )
        if self.bert is not None and not 1 <= self.text_layer <= self.bert.depth:
            raise ValueError(
                f"text_layer is {self.text_layer}; this BERT has layers 1 … {self.bert.depth}."
            )
        if self.bert is not None and self.text_tokens < 3:
            raise ValueError(
                f"text_tokens is {self.text_tokens}; expected 3 or more: [CLS], a word, [SEP]."
            )
        if self.bert is not None and self.text_tokens > self.bert.positions:
            raise ValueError(
                f"text_tokens is {self.text_tokens}; this BERT has {self.bert.positions} positions."
            )


def _check_sizes(part: Any, prefix: str) -> None:
    """Raise ValueError unless every whole number of a dataclass can be a size or a count."""
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if field.name != "inject_from" and type(value) is int and not 1 <= value <= LARGEST:
            raise ValueError(
                f"{prefix}{field.name} is {value}; expected a number from 1 to {LARGEST}."
            )


def to_json(architecture: Architecture) -> dict:
    """Plain dicts, lists, strings and numbers: what `from_json` reads."""
    return dataclasses.asdict(architecture)


def from_json(values: Any) -> Architecture:
    """Inverse of `to_json`; fills in `YOUNGER` fields.

    Raises ValueError naming an unknown or missing key or a wrong value.
    """
    if not isinstance(values, dict):
        return build(Architecture, values, "architecture.")  # says what it is instead
    values = YOUNGER[""] | values
    for part in ("vit", "bert"):
        if isinstance(values.get(part), dict):
            values |= {part: YOUNGER[part] | values[part]}
    if "injection" in values:
        one_of("architecture.injection", values["injection"], tuple(map(str, Injection)))
        values |= {"injection": Injection(values["injection"])}
    return build(Architecture, values, "architecture.")


def bert_from_json(values: Any) -> Bert:
    """As `from_json`, of a text encoder alone."""
    values = YOUNGER["bert"] | values if isinstance(values, dict) else values
    return build(Bert, values, "bert.")

"""How much memory a training step needs on each device, counted from shapes.

Parameters, moments, moving average, gradients and the batch are exact: their shapes and the
sharding table say it. What the backward pass keeps is a model: terms per image, listed by `saved`
(after Korthikanti et al. 2022), for attention that is fused or plain. Bytes everywhere.

At its peak a step holds either everything that the forward pass kept, or, at the end of the
backward pass, all gradients; besides, what one block works with.
"""

import dataclasses
from typing import Literal

import jax
from jax.sharding import AbstractMesh, Mesh

from dit_jax import config as configs
from dit_jax.models.architecture import PATCH, Architecture, Injection
from dit_jax.models.params import Params, flatten
from dit_jax.ops.attention import SCORES_AT_ONCE
from dit_jax.ops.rematerialise import SCAN
from dit_jax.train import abstract
from dit_jax.train.state import TrainState

Bytes = int | float
Attention = Literal["plain", "fused"]
FLOAT = 4
PROMPTS = 5  # IoU and mask tokens in front of the text
# Arrays of the size of the decoder's input that one of its layers keeps: both sides' inputs,
# projections and norms; counted in `mask_decoder`.
KEPT_BY_DECODER_LAYER = 8


# Of a loop over blocks whose pieces `fsdp` keeps, TPU's compiler (libtpu 0.0.42.1) pads activations
# to its tiles, gathers a part of what XLA does for a GPU, and has more copies of the pieces: the
# loop's, and Adam's. Fitted to benchmarks/results/tpu.md: ViT-B and ViT-H on 8, 16 and, where
# twice as much is gathered, 256 chips.
TPU_PADDED, TPU_AHEAD, TPU_COPIES = 1.25, 0.3, 5

QKV, HIDDEN = "queries, keys, values", "MLP before GELU"
FUSED = "attention's output and log-sum-exp"
# What the policy "dots" keeps besides a block's input; a plain attention is computed again.
DOTS = (QKV, HIDDEN, FUSED)


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes per device."""

    trainable: int  # parameters, float32
    frozen: int  # parameters, float32
    optimizer: int
    ema: int
    gradients: int  # float32; with accumulation also the sum
    batch: int  # uint8 pictures and masks, words
    activations: int  # kept for the backward pass
    workspace: int  # of one block, while it is computed backward

    @property
    def state(self) -> int:
        return self.trainable + self.frozen + self.optimizer + self.ema

    @property
    def temporary(self) -> int:
        """Besides the state and the batch, at the worst moment."""
        return max(self.activations, self.gradients) + self.workspace

    @property
    def total(self) -> int:
        return self.state + self.batch + self.temporary


def estimate(
    config: configs.Config,
    mesh: Mesh | AbstractMesh,
    *,
    attention: Attention,
    tpu: bool = False,
) -> Memory:
    """The memory of one step of this config on this mesh; `tpu`: as TPU's compiler takes it."""
    arch, tensor = config.architecture(), mesh.shape["tensor"]
    state = abstract.state(arch, mesh, freeze=config.freeze(), rules=config.optim)
    rows = config.optim.batch_size // config.optim.accumulate
    rows = -(-rows // (mesh.shape["data"] * mesh.shape["fsdp"]))
    trainable, sums = abstract.bytes_per_device(state.trainable), config.optim.accumulate > 1
    gradients = abstract.bytes_per_device(reached(state.trainable, arch))
    terms = saved(arch, attention=attention, tensor=tensor)
    of_block, every = kept(arch, config.model.remat, terms), sum(terms.values())
    work = workspace(arch, attention=attention, tensor=tensor)
    work += every - of_block  # computed again, of one block at a time
    padded, whole, copies = 1.0, gathered(config, mesh), stacked(config, state)
    if tpu and config.model.remat == SCAN and mesh.shape["fsdp"] > 1:
        padded, whole, copies = TPU_PADDED, TPU_AHEAD * whole, TPU_COPIES * gradients
        whole *= 2 if mesh.shape["fsdp"] > 16 else 1
    return Memory(
        trainable=trainable,
        frozen=abstract.bytes_per_device(state.frozen),
        optimizer=abstract.bytes_per_device(state.opt_state),
        ema=abstract.bytes_per_device(state.ema),
        gradients=gradients + (trainable if sums else 0),
        batch=abstract.bytes_per_device(abstract.batch(arch, mesh, rows=config.optim.batch_size)),
        activations=round(padded * rows * (arch.vit.depth * of_block + others(arch)))
        + (trainable if sums else 0),
        workspace=round(padded * rows * work + whole + copies),
    )


def expected(config: configs.Config) -> Attention:
    """How `dit_jax.ops.attention.dispatch` works: all at once where the scores are few."""
    arch, rows = config.architecture(), config.optim.batch_size // config.optim.accumulate
    scores = rows * arch.vit.heads * (arch.image_size // PATCH) ** 2 * tokens(arch)
    return "plain" if scores <= SCORES_AT_ONCE else "fused"


def reached(trainable: Params, arch: Architecture) -> dict[str, jax.ShapeDtypeStruct]:
    """Parameters with a gradient: BERT's layers above the one that is read have none."""
    depth = 0 if arch.bert is None else arch.bert.depth
    unread = [f"text_encoder.layer.{i}." for i in range(arch.text_layer, depth)]
    flat = flatten(trainable)
    return {path: leaf for path, leaf in flat.items() if not path.startswith(tuple(unread))}


def size(arch: Architecture) -> int:
    """Bytes of a number in the compute dtype."""
    return jax.numpy.dtype(arch.dtype).itemsize


def tokens(arch: Architecture) -> int:
    """Image tokens, and text tokens where blocks read them: the keys of attention."""
    text = arch.text_tokens if arch.injection != Injection.NONE else 0
    return (arch.image_size // PATCH) ** 2 + text


def kept(arch: Architecture, remat: str, terms: dict[str, Bytes]) -> Bytes:
    """What one block keeps of one image under a policy of `dit_jax.ops.rematerialise`."""
    if remat == "none":
        return sum(terms.values())
    named = DOTS if remat == "dots" else ()
    return block_input(arch) + sum(terms[name] for name in named if name in terms)


def block_input(arch: Architecture) -> Bytes:
    """Tokens of one image: what a block that is computed again starts from."""
    return tokens(arch) * arch.vit.width * size(arch)


def saved(arch: Architecture, *, attention: Attention, tensor: int = 1) -> dict[str, Bytes]:
    """What one encoder block keeps of one image for its backward pass, by name."""
    n, m, heads = (arch.image_size // PATCH) ** 2, tokens(arch), arch.vit.heads
    wide, e = block_input(arch), size(arch)
    terms = {
        "inputs of both norms": 2 * wide,
        "outputs of both norms": 2 * wide,
        QKV: 3 * wide / tensor,
        "relative positions": heads * n * 2 * (arch.image_size // PATCH) * e / tensor,
        "attention's output": wide / tensor,
        HIDDEN: 4 * wide / tensor,
        "MLP after GELU": 4 * wide / tensor,
    }
    if attention == "plain":
        # softmax in float32, and its copy in the compute dtype for the product with the values
        per_score = FLOAT + (e if e < FLOAT else 0)
        terms["attention's weights, h·n·m"] = heads * n * m * per_score / tensor
    else:
        terms[FUSED] = terms.pop("attention's output") + heads * n * FLOAT / tensor
    return terms


def workspace(arch: Architecture, *, attention: Attention, tensor: int = 1) -> Bytes:
    """Gradients inside one block for one image: of the MLP's hidden layer, or of the scores."""
    hidden = 2 * 4 * block_input(arch) / tensor
    n, m = (arch.image_size // PATCH) ** 2, tokens(arch)
    scores = arch.vit.heads * n * m * FLOAT / tensor if attention == "plain" else 0
    return max(hidden, scores)


def others(arch: Architecture) -> Bytes:
    """What everything outside the encoder's blocks keeps of one image."""
    return text_encoder(arch) + mask_decoder(arch) + pictures(arch)


def pictures(arch: Architecture) -> Bytes:
    """Normalised pixels and patches; logits, targets and the loss in float32."""
    pixels = arch.image_size**2
    return 3 * pixels * (FLOAT + size(arch)) + 4 * pixels * FLOAT


def text_encoder(arch: Architecture) -> Bytes:
    """As `saved`, of BERT's layers up to the one that is read; dropout's masks are one byte."""
    if arch.bert is None:
        return 0.0
    l, t, e = arch.text_tokens, arch.bert.width, size(arch)  # noqa: E741
    layer = l * t * (8 * e + 2) + 2 * l * arch.bert.mlp_width * e
    return arch.text_layer * (layer + arch.bert.heads * l * l * (FLOAT + e + 1))


def mask_decoder(arch: Architecture) -> Bytes:
    """Neck, two-way transformer and upscaling, which ends at a quarter of the picture's side."""
    n, c, e = (arch.image_size // PATCH) ** 2, arch.decoder_width, size(arch)
    text = arch.text_tokens if arch.bert is not None else 0
    heads, t = c // 32, PROMPTS + text
    layer = n * c * e * KEPT_BY_DECODER_LAYER + 2 * heads * t * n * (FLOAT + e)
    neck = 4 * n * c * e
    upscaled = 3 * 4 * n * (c // 4) * e + 3 * 16 * n * (c // 8) * e
    return neck + arch.decoder_depth * layer + upscaled


def gathered(config: configs.Config, mesh: Mesh | AbstractMesh) -> int:
    """Parameters and gradients while they are whole, where `fsdp` keeps pieces.

    Of the blocks, needed at once are those of one or two, and a loop (`model.remat="scan"`) has no
    more. XLA (jax 0.10.2, compiling for H100) overlaps unrolled blocks so much that all are: ViT-H
    takes 5 GB more than its pieces, 8 bytes a parameter. Of the text encoder, whose layers are
    unrolled always, all are whole at the end of the backward pass (compiling for v5e).
    """
    if mesh.shape["fsdp"] == 1:
        return 0
    arch, tensor = config.architecture(), mesh.shape["tensor"]
    blocks = min(2, arch.vit.depth) if config.model.remat == SCAN else arch.vit.depth
    whole = 2 * FLOAT * blocks * 12 * arch.vit.width**2
    if arch.bert is not None and "text_encoder" not in config.freeze():
        t, e = arch.bert.width, size(arch)
        layers = arch.text_layer * (4 * t**2 + 2 * t * arch.bert.mlp_width)
        # Weights are gathered in the compute dtype; the table's gradient is made in it too.
        whole += (FLOAT + e) * layers + 2 * e * arch.bert.vocab * t
    return whole // tensor


def stacked(config: configs.Config, state: TrainState) -> int:
    """A loop's own copy of the blocks' parameters, and their gradients in that form."""
    if config.model.remat != SCAN:
        return 0
    flat = flatten(state.trainable) | flatten(state.frozen)
    blocks = [leaf for path, leaf in flat.items() if path.startswith("image_encoder.blocks.")]
    return 2 * abstract.bytes_per_device(blocks)

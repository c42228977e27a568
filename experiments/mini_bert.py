"""Pre-train a small BERT on the embedded data set's language: masked words, as Devlin et al. 2019.

    python -m experiments.mini_bert --out=runs/mini_bert

The sentences are those of the train split, in which no pair of colour and shape of `heldout` is
named. 15 % of the word pieces are asked for: 80 % of them become [MASK], 10 % any other, 10 % stay.
The head that predicts them is thrown away.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Int32

from dit_jax import variants
from dit_jax.data.shapes import VOCAB
from dit_jax.data.shapes.dataset import scene
from dit_jax.data.tokenizer import Tokenizer
from dit_jax.models.architecture import Bert
from dit_jax.models.layers import layer_norm, linear
from dit_jax.models.text_encoder import TextEncoder
from dit_jax.ops.gelu import gelu
from dit_jax.weights import directory

ASKED, MASKED, RANDOM = 0.15, 0.8, 0.1
SPECIAL, MASK = 5, 4  # pieces below are [PAD] [UNK] [CLS] [SEP] [MASK]
TOKENS = 20  # as in the paper

Ids = Int32[np.ndarray, "n l"]


class MaskedWords(nnx.Module):
    """BERT with its head for masked words; the words' table is used twice."""

    def __init__(self, bert: Bert, *, rngs: nnx.Rngs):
        make = dict(dtype="float32", rngs=rngs)
        self.encoder = TextEncoder(bert, output_layer=bert.depth, **make)
        self.transform = linear(bert.width, bert.width, **make)
        self.norm = layer_norm(bert.width, epsilon=bert.epsilon, **make)
        self.bias = nnx.Param(jnp.zeros(bert.vocab))

    def __call__(self, ids: Int[Array, "b l"], mask: Int[Array, "b l"]) -> Float[Array, "b l v"]:
        x = self.norm(gelu(self.transform(self.encoder(ids, mask))))
        table = self.encoder.embeddings.word_embeddings.embedding[...]
        return x @ table.T + self.bias[...][None, None]


def sentences(split: str, count: int) -> list[str]:
    """The expressions of the first scenes of a split, at least `count` of them."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        for target in scene(split, number).targets:
            found += [expression.text for expression in target.expressions]
        number += 1
    return found


def hide(
    rng: np.random.Generator, ids: Ids, *, pieces: int
) -> tuple[Ids, Int32[np.ndarray, "n l"]]:
    """What the model reads, and the pieces that it is asked for (0 where it is not)."""
    asked = (ids >= SPECIAL) & (rng.random(ids.shape) < ASKED)
    how = rng.random(ids.shape)
    other = rng.integers(SPECIAL, pieces, ids.shape, dtype=np.int32)
    read = np.where(how < MASKED, MASK, np.where(how < MASKED + RANDOM, other, ids))
    return np.where(asked, read, ids).astype(np.int32), np.where(asked, ids, 0)


def loss_of(model: MaskedWords, read, answer) -> tuple[Array, Array]:
    """Mean cross-entropy of the pieces asked for, and the share that is found."""
    logits = model(read, (read > 0).astype(jnp.int32))
    asked = answer > 0
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, answer)
    right = (logits.argmax(-1) == answer) & asked
    count = jnp.maximum(asked.sum(), 1)
    return (losses * asked).sum() / count, right.sum() / count


@nnx.jit
def train_step(model: MaskedWords, optimizer: nnx.Optimizer, read, answer) -> tuple[Array, Array]:
    (loss, found), gradients = nnx.value_and_grad(loss_of, has_aux=True)(model, read, answer)
    optimizer.update(model, gradients)
    return loss, found


def batches(ids: Ids, *, size: int, pieces: int, seed: int) -> Iterator[tuple[Ids, Ids]]:
    """Endless, in a new order every time through."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(ids))
        for start in range(0, len(ids) - size + 1, size):
            yield hide(rng, ids[order[start : start + size]], pieces=pieces)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="model directory to write")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--sentences", type=int, default=80_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    bert = variants.TEXT_ENCODERS["mini"]
    tokenizer = Tokenizer(VOCAB, length=TOKENS)
    model = MaskedWords(bert, rngs=nnx.Rngs(options.seed))
    schedule = optax.warmup_cosine_decay_schedule(0, 1e-3, options.steps // 20, options.steps, 1e-5)
    optimizer = nnx.Optimizer(model, optax.adamw(schedule, weight_decay=0.01), wrt=nnx.Param)
    given = tokenizer(sentences("train", options.sentences))[0]
    asked = batches(given, size=options.batch, pieces=tokenizer.size, seed=options.seed)
    for step in range(1, options.steps + 1):
        loss, found = train_step(model, optimizer, *next(asked))
        if step % 250 == 0:
            print(f"step {step}: loss {loss:.4f}, {100 * found:.1f} % found", flush=True)
    measured = accuracy(model, tokenizer, seed=options.seed)
    print(json.dumps(measured))
    state = nnx.to_flat_state(nnx.state(model.encoder, nnx.Param))
    directory.save_text_encoder(
        options.out,
        bert,
        {".".join(map(str, ("text_encoder", *path))): value[...] for path, value in state},
        vocab=VOCAB,
        provenance={
            "command": f"python -m experiments.mini_bert --steps={options.steps}"
            f" --batch={options.batch} --sentences={options.sentences} --seed={options.seed}",
            "masked words of val": measured,
        },
    )


def accuracy(model: MaskedWords, tokenizer: Tokenizer, *, seed: int) -> dict[str, float]:
    """Loss and share of masked words found, on 4,096 sentences of val."""
    ids = tokenizer(sentences("val", 4096))[0][:4096]
    read, answer = hide(np.random.default_rng(seed), ids, pieces=tokenizer.size)
    loss, found = nnx.jit(loss_of)(model, read, answer)
    return {"loss": round(float(loss), 4), "accuracy": round(100 * float(found), 2)}


if __name__ == "__main__":
    main()

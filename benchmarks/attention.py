"""One block's attention by every back end of the device at hand, forward and backward.

    python -m benchmarks.attention [--batch N] [--size N] [--tokens N] [--steps N] [--name PAGE]

Queries, keys and values come as a projection gives them, [b, n, 3, heads, channels], with text's
keys and values and the two tables of relative positions; both passes are timed with all that a back
end needs to take them apart. On an accelerator in bfloat16 for heads of ViT-B and ViT-H, on a CPU
in float32. What does not run says why. The page is benchmarks/results/attention.md.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.page import Page
from benchmarks.synthetic import seconds
from dit_jax import variants
from dit_jax.models.architecture import PATCH
from dit_jax.ops.attention import dispatch as attention

ROWS = ("vit_b", "vit_h")
WAYS = {
    "gpu": ("packed", "mosaic", "cudnn", "pallas", "plain"),
    "tpu": ("splash", "pallas", "plain"),
}
ON_A_CPU = ("by_head", "plain")


def arguments(vit, options, dtype) -> tuple:
    rng, side = np.random.default_rng(0), options.size // PATCH
    c = vit.width // vit.heads

    def draw(*shape: int, scale: float = 1.0) -> jax.Array:
        return jnp.asarray(scale * rng.standard_normal(shape, np.float32), dtype)

    qkv = draw(options.batch, side * side, 3, vit.heads, c)
    text = draw(options.batch, options.tokens, 2, vit.heads, c)
    return qkv, text, tuple(draw(2 * side - 1, c, scale=0.2) for _ in range(2))


def way(name: str, side: int):
    """A function of `arguments`, computed by a back end."""

    def packed(qkv, text, tables):
        bands = tuple(attention.band(table, side) for table in tables)
        return attention.PACKERS[name](qkv, text, bands)

    def apart(qkv, text, tables):
        (q, k, v), read = (jnp.moveaxis(x, 2, 0).swapaxes(2, 3) for x in (qkv, text))
        rel = attention.relative_terms(q, *tables, grid=(side, side))
        k, v = (jnp.concatenate(pair, axis=2) for pair in zip((k, v), read, strict=True))
        return attention.BACK_ENDS[name](q, k, v, rel, None).swapaxes(1, 2)

    return packed if name in attention.PACKERS else apart


def measured(f, arrays: tuple, steps: int) -> tuple[float, float]:
    """Milliseconds of a forward pass, and of it with all gradients."""
    forward = jax.jit(f)

    @jax.jit
    def both(arrays, upstream):
        out, back = jax.vjp(f, *arrays)
        return out, back(upstream)

    upstream = jnp.ones_like(forward(*arrays))
    times = (lambda: forward(*arrays)), (lambda: both(arrays, upstream))
    return tuple(1e3 * seconds(run, steps) for run in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kind = "cpu" if jax.default_backend() == "cpu" else jax.default_backend()
    parser.add_argument("--batch", type=int, default=1 if kind == "cpu" else 64)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--name", default="attention", help="of the page")
    options = parser.parse_args()
    dtype = "float32" if kind == "cpu" else "bfloat16"
    with Page(options.name, "Attention of one block, by back end") as page:
        page.add(f"{dtype}, batch {options.batch}, {options.size} px, {options.tokens} tokens.\n")
        page.add("| heads of | back end | forward, ms | forward and backward, ms |")
        page.add("|---|---|---|---|")
        for row in ROWS:
            arrays = arguments(variants.BACKBONES[row], options, dtype)
            for name in WAYS.get(kind, ON_A_CPU):
                try:
                    forward, both = measured(
                        way(name, options.size // PATCH), arrays, options.steps
                    )
                except Exception as error:  # a device may lack a back end, or memory for it
                    reason = str(error).partition("\n")[0][:80]
                    page.add(f"| {row} | {name} | {type(error).__name__}: {reason} | – |")
                    continue
                page.add(f"| {row} | {name} | {forward:.2f} | {both:.2f} |")


if __name__ == "__main__":
    main()

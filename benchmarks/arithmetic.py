"""How much a model has to multiply: the denominators of the benchmarks.

XLA's own count is no use for this: it counts a loop's body once and a kernel not at all.
"""

from dit_jax.models.architecture import PATCH, Architecture, Injection


def forward_flops(arch: Architecture, *, size: int, tokens: int) -> float:
    """Floating-point operations of one picture and expression, products only, 2 an element.

    Text costs what L-DIT's costs (keys and values only, a projection a block); relative terms,
    neck, decoder and the layers of BERT that are read are included. A training step: three times.
    """
    vit, n = arch.vit, (size // PATCH) ** 2
    text = 0 if arch.injection == Injection.NONE else tokens
    d, side = vit.width, size // PATCH
    linear = 2 * n * d * (3 * d + d + 8 * d) + 2 * text * d * (2 * d + d)
    attention = 4 * n * (n + text) * d + 2 * n * d * 2 * side
    patches, c = 2 * n * d * 3 * PATCH**2, arch.decoder_width
    neck = 2 * n * c * (d + 9 * c)
    return patches + vit.depth * (linear + attention) + neck + decoder(arch, n) + bert(arch, tokens)


def decoder(arch: Architecture, n: int) -> float:
    """Its image side: two projections a layer each way, the last look, and the upscaling."""
    c = arch.decoder_width
    layers = (arch.decoder_depth * 4 + 2) * 2 * n * c * (c // 2)
    upscaling = 2 * n * c * c + 2 * 4 * n * (c // 4) * (c // 2)
    return layers + upscaling + 2 * 16 * n * (c // 8)


def bert(arch: Architecture, tokens: int) -> float:
    width, hidden = arch.bert.width, arch.bert.mlp_width
    layer = 2 * tokens * width * (4 * width + 2 * hidden) + 4 * tokens**2 * width
    return arch.text_layer * layer

"""Fresh parameters: one ordered table from a parameter's path to how it starts.

Values are drawn on the host, each from a stream of its own (seed and path), so they depend neither
on the order of modules nor on devices, and nothing is compiled. First match wins; every path
matches.
"""

import math
import re
import zlib
from collections.abc import Callable

import numpy as np

from dit_jax.models.architecture import Architecture, Injection

Rng = np.random.Generator
Shape = tuple[int, ...]
Draw = Callable[[Rng, Shape], np.ndarray]

# The logit of 0.88: 32,202 of gRefCOCO's 278,232 expressions mean nothing (Liu et al. 2023).
PRESENT = math.log((278_232 - 32_202) / 32_202)


def zeros(rng: Rng, shape: Shape) -> np.ndarray:
    return np.zeros(shape, np.float32)


def ones(rng: Rng, shape: Shape) -> np.ndarray:
    return np.ones(shape, np.float32)


def constant(value: float) -> Draw:
    return lambda rng, shape: np.full(shape, value, np.float32)


def normal(deviation: float) -> Draw:
    return lambda rng, shape: np.float32(deviation) * rng.standard_normal(shape, np.float32)


def lecun(rng: Rng, shape: Shape) -> np.ndarray:
    """Keeps the variance of a unit-variance input; kernels are (…, in, out)."""
    return normal(float(np.prod(shape[:-1]) ** -0.5))(rng, shape)


def lecun_transposed(rng: Rng, shape: Shape) -> np.ndarray:
    """As `lecun` for (2, 2, out, in) at stride 2: each output pixel sees one tap."""
    return normal(float(shape[-1] ** -0.5))(rng, shape)


def xavier(rng: Rng, shape: Shape) -> np.ndarray:
    """Glorot & Bengio 2010, uniform; the fans are PyTorch's: axes 1 and 0, times all later axes."""
    field = int(np.prod(shape[2:]))
    bound = np.sqrt(6.0 / ((shape[0] + shape[1]) * field))
    return rng.uniform(-bound, bound, shape).astype(np.float32)


def table(arch: Architecture) -> list[tuple[str, Draw]]:
    """(pattern, draw) pairs. Projections P start at zero, so that training starts from SAM.

    The presence head's last layer starts at zero too, but for its bias: "something is meant", as a
    model without the head answers, with the probability that it has in gRefCOCO.
    """
    cross_attention = arch.injection == Injection.CROSS_ATTENTION
    static_e2e = arch.injection == Injection.E2E_STATIC
    return [
        (r"mask_decoder\.presence_head\.layers\.2\.kernel", zeros),
        (r"mask_decoder\.presence_head\.layers\.2\.bias", constant(PRESENT)),
        (r".*\.bias", zeros),
        (r".*\.scale", ones),
        (r"image_encoder\.injector\.probs\..*", ones if cross_attention else zeros),
        (r"image_encoder\.injector\.tokens", xavier if static_e2e else normal(1.0)),
        (r"image_encoder\.injector\.cross\..*linear_\w+\.kernel", xavier),
        (r"image_encoder\.blocks\.\d+\.attn\.rel_pos_[hw]", zeros),
        (r"image_encoder\.pos_embed", normal(0.02)),
        (r"text_encoder\..*", normal(0.02)),
        (r"prompt_encoder\.pe_layer\.gaussian_matrix", normal(1.0)),
        (r"prompt_encoder\.(point_embeddings\.\d|not_a_point_embed|no_mask_embed)", normal(1.0)),
        (r"mask_decoder\.(iou_token|mask_tokens)", normal(1.0)),
        (r"mask_decoder\.output_upscaling\.conv\d\.kernel", lecun_transposed),
        (r".*\.kernel", lecun),
    ]


def draw(arch: Architecture, shapes: dict[str, Shape], *, seed: int) -> dict[str, np.ndarray]:
    """Float32 values for every path; raises KeyError for a path no rule covers."""
    rules = table(arch)
    return {path: _rule(rules, path)(_stream(seed, path), shape) for path, shape in shapes.items()}


def _rule(rules: list[tuple[str, Draw]], path: str) -> Draw:
    for pattern, rule in rules:
        if re.fullmatch(pattern, path):
            return rule
    raise KeyError(f"no rule says how the parameter {path} starts.")


def _stream(seed: int, path: str) -> Rng:
    return np.random.Generator(np.random.PCG64([seed, zlib.crc32(path.encode())]))

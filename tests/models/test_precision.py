"""Which products of float32 are exact, read from the programs that TPUs and CPUs get.

By default a TPU rounds what a float32 product takes to bfloat16, a GPU to TF32; a CPU does neither,
so no other test would see it.
"""

import re

import jax
import jax.numpy as jnp
import pytest
from small_models import architecture

from dit_jax.models import params as parameters
from dit_jax.ops.platform import Target, planned_for

# What stays at the default in a model that computes in bfloat16, and why.
LEFT = {
    r"transpose\(jvp\(.*/(bkmc,bknc->bkmn|bkic,bkjc->bkij|bklc,bknc->bkln)/": (
        "gradients of scores, for queries and keys that are bfloat16 themselves"
    ),
    r"cpu: transpose\(jvp\(.*dot_general$": "LayerNorm's sums, written as products for CPUs alone",
}
# Where a coordinate or a score is made: each is there, and exact.
EXACT = (
    r"jvp\(prompt_encoder\)/dot_general",  # positions of patches, points and boxes
    r"jvp\(image_encoder\)/resize/dot_general",  # absolute positions, resized
    r"jvp\(image_encoder\)/blocks.0/attn/dot_general",  # relative positions, resized
    r"transpose\(jvp\(mask_decoder\)\)/bmc,bhwc->bmhw",  # logits' gradient
    r"jvp\(mask_decoder\)/dot_general",  # presence
    r"transpose\(jvp\(resize\)\)/dot_general",  # gradient of logits at the canvas's size
)


def gradients(arch):
    """A loss of everything that a model says, given all that it can be given; and its arguments."""
    graph, params = parameters.structure(arch)
    side, b = arch.image_size, 2

    def loss(params, images, ids, points, labels, boxes, masks):
        model = parameters.merge(graph, params)
        embedding, text = model.read(images, ids, jnp.ones_like(ids))
        about = dict(points=(points, labels), boxes=boxes, masks=masks, text=text)
        said = model.decode(embedding, **about)
        return said.logits.sum() + said.iou.sum() + said.presence.sum()

    floats = ((b, side, side, 3), (b, 1, 2), (b, 4), (b, side // 4, side // 4, 1))
    images, points, boxes, masks = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in floats)
    ids, labels = (jax.ShapeDtypeStruct((b, n), jnp.int32) for n in (arch.text_tokens, 1))
    return jax.jit(jax.grad(loss)), (params, images, ids, points, labels, boxes, masks)


def products(text: str) -> list[tuple[str, bool]]:
    """Name, and whether it is exact, of every product that takes a float32."""
    names = dict(re.findall(r'^(#loc\d+) = loc\("(.*?)"', text, re.MULTILINE))
    found = []
    for line in text.splitlines():
        if re.search(r"stablehlo\.(dot_general|convolution)", line):
            takes = re.findall(r"\(([^()]*)\) -> tensor", line)[-1]
            if "f32>" in takes:
                where = names[re.findall(r"loc\((#loc\d+)\)$", line)[0]]
                found.append((where, "precision = [HIGHEST, HIGHEST]" in line))
    return found


@pytest.mark.parametrize("platform", ["tpu", "cpu"])
def test_coordinates_and_scores_are_exact(platform):
    """At another size than the positions are kept for, so that they are resized too."""
    arch = architecture(dtype="bfloat16", presence=True, image_size=128)
    with planned_for(Target(platform)):
        program, arguments = gradients(arch)
        lowered = program.trace(*arguments).lower(lowering_platforms=(platform,))
    found = products(lowered.as_text(debug_info=True))
    for pattern in EXACT:
        assert [name for name, _ in found if re.search(pattern, name)], pattern
    left = {f"{platform}: {name.removeprefix('jit(loss)/')}" for name, exact in found if not exact}
    unnamed = [name for name in left if not any(re.search(pattern, name) for pattern in LEFT)]
    assert not unnamed

"""The whole program as ONNX, for onnxruntime in any language.

    segment.onnx   one picture uint8 [H, W, 3] of any size, and b expressions as token ids int32
                   [b, l], to mask bool and probability float32 [b, H, W], predicted_iou or
                   confidence [b] (presence [b], nothing bool [b])
    vocab.txt      of the text encoder, and tokenizer_config.json
    run.py         runs it, with nothing but what it says at its top and from_pillow.py

jax2onnx translates the model. Resizing into the canvas and back is written out below, for the sides
are not known before there is a picture, and jax2onnx 0.17.1 translates no gather of unknown size.
Above 2 GB, which is what protobuf holds, the parameters lie in `segment.onnx.data`.
"""

import logging
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from dit_jax.eval.protocols import PRESENCE_THRESHOLD, THRESHOLD, logit
from dit_jax.export.source import Source, write_beside
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture
from dit_jax.ops import attention
from dit_jax.ops.pixels import normalize
from dit_jax.ops.platform import ANYWHERE, planned_for

PROGRAM = "segment.onnx"
OPSET, IR = 23, 10
INSIDE = 1_900_000_000  # bytes of parameters

# `letterbox.content_box` and `letterbox.letterbox` of one picture, in the same whole numbers.
BEFORE = """
<ir_version: {ir}, opset_import: ["" : {opset}]>
before (uint8[H, W, 3] image, int32[b, l] input_ids)
    => (uint8[b, {size}, {size}, 3] canvas, int32[b, 4] content, int64[2] sides, int64[2] start,
        int64[2] extent, int64[1] rows)
<int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] size = {{{size}}},
 int64[3] ones = {{1, 1, 1}}, int64[1] four = {{4}}, uint8 black = {{0}}, int64 none = {{0}},
 int64 step = {{1}}, float bits = {{2048}}, int32 whole_bits = {{2048}}, int32 half_byte = {{16}},
 int32 two_bytes = {{65536}}, int32 round = {{2}}, int32 quarter = {{4}}, int64 of_y = {{0}},
 int64 of_x = {{1}}, int64[3] along_y = {{-1, 1, 1}}, int64[3] along_x = {{1, -1, 1}}>
{{
    shape = Shape (image)
    sides = Slice (shape, zero, two)
    long = ReduceMax <keepdims = 1> (sides)
    scaled = Mul (sides, size)
    whole = Div (scaled, long)
    rest = Mod (scaled, long)
    rest2 = Mul (rest, two)
    above = Greater (rest2, long)
    half = Equal (rest2, long)
    parity = Mod (whole, two)
    odd = Cast <to = 9> (parity)
    tie = And (half, odd)
    up = Or (above, tie)
    up1 = Cast <to = 7> (up)
    rounded = Add (whole, up1)
    extent = Max (rounded, one)
    gap = Sub (size, extent)
    start = Div (gap, two)
    end = Sub (gap, start)
    {taps_y}
    {taps_x}
    values = Cast <to = 6> (image)
    left = Gather <axis = 1> (values, low_x)
    right = Gather <axis = 1> (values, high_x)
    left_part = Mul (left, rest_x)
    right_part = Mul (right, weight_x)
    across = Add (left_part, right_part)
    cut = Div (across, half_byte)
    top = Gather <axis = 0> (cut, low_y)
    bottom = Gather <axis = 0> (cut, high_y)
    top_part = Mul (top, rest_y)
    bottom_part = Mul (bottom, weight_y)
    top_cut = Div (top_part, two_bytes)
    bottom_cut = Div (bottom_part, two_bytes)
    both = Add (top_cut, bottom_cut)
    more = Add (both, round)
    levels = Div (more, quarter)
    bytes = Cast <to = 2> (levels)
    pads = Concat <axis = 0> (start, zero, end, zero)
    padded = Pad (bytes, pads, black)
    picture = Unsqueeze (padded, zero)
    text = Shape (input_ids)
    rows = Slice (text, zero, one)
    full = Concat <axis = 0> (rows, ones)
    canvas = Expand (picture, full)
    place = Concat <axis = 0> (start, extent)
    place32 = Cast <to = 6> (place)
    every = Concat <axis = 0> (rows, four)
    content = Expand (place32, every)
}}
"""

# `letterbox.taps` along one axis. A position before the first sample counts as the first sample.
TAPS = """
    n_@ = Gather (sides, of_@)
    out_@ = Gather (extent, of_@)
    index_@ = Range (none, out_@, step)
    index2_@ = Mul (index_@, two)
    centre_@ = Add (index2_@, one)
    reach_@ = Mul (centre_@, n_@)
    late_@ = Sub (reach_@, out_@)
    twice_@ = Max (late_@, none)
    double_@ = Mul (out_@, two)
    below_@ = Div (twice_@, double_@)
    base_@ = Mul (below_@, double_@)
    over_@ = Sub (twice_@, base_@)
    over1_@ = Cast <to = 1> (over_@)
    double1_@ = Cast <to = 1> (double_@)
    share_@ = Div (over1_@, double1_@)
    bits_@ = Mul (share_@, bits)
    level_@ = Round (bits_@)
    level32_@ = Cast <to = 6> (level_@)
    weight_@ = Reshape (level32_@, along_@)
    rest_@ = Sub (whole_bits, weight_@)
    last_@ = Sub (n_@, step)
    low_@ = Min (below_@, last_@)
    next_@ = Add (below_@, step)
    high_@ = Min (next_@, last_@)
"""

# `letterbox.restore` and the threshold. The number of rows comes from the text: from the model's
# own nodes onnxruntime 1.32 infers that there is one.
AFTER = """
<ir_version: {ir}, opset_import: ["" : {opset}]>
after (float[b, {size}, {size}] logits, int64[2] sides, int64[2] start, int64[2] extent,
       int64[1] rows)
    => (bool[b, H, W] mask, float[b, H, W] probability{score})
<int64[1] one = {{1}}, int64[1] two = {{2}}, float least = {{1.0}}, int64[2] axes = {{2, 3}},
 int64[4] canvas = {{-1, 1, {size}, {size}}}, float limit = {{{limit}}}>
{{
    end = Add (start, extent)
    planes = Reshape (logits, canvas)
    inside = Slice (planes, start, end, axes)
    target = Concat <axis = 0> (rows, one, sides)
    resized = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel">
        (inside, , , target)
    own = Squeeze (resized, one)
    mask = Greater (own, limit)
    probability = Sigmoid (own)
    {confidence}
}}
"""

# `program.confidence`, where the model was not trained to predict its mask's IoU.
CONFIDENCE = """
    ones = Cast <to = 1> (mask)
    within = Mul (probability, ones)
    row = ReduceSum <keepdims = 0> (within, two)
    row_pixels = ReduceSum <keepdims = 0> (ones, two)
    pixels = ReduceSum <keepdims = 1> (row_pixels, one)
    some = Max (pixels, least)
    part = Div (row, some)
    confidence = ReduceSum <keepdims = 0> (part, one)
"""


def write(source: Source, folder: Path) -> None:
    """Writes the files above into a folder; raises ModuleNotFoundError without jax2onnx."""
    vocab, flat = source.vocabulary(), params_lib.flatten(source.params)
    onnx, _ = _packages()
    large = sum(leaf.nbytes for leaf in flat.values()) > INSIDE
    outside = dict(save_as_external_data=True, location=f"{PROGRAM}.data") if large else {}
    made = make(source.portable, flat, presence_threshold=source.presence_threshold)
    onnx.save(made, folder / PROGRAM, **outside)
    onnx.checker.check_model(folder / PROGRAM)
    write_beside(vocab, folder)


def make(
    arch: Architecture,
    flat: dict[str, np.ndarray],
    *,
    threshold: float = THRESHOLD,
    presence_threshold: float = PRESENCE_THRESHOLD,
) -> Any:
    """The program as an `onnx.ModelProto`."""
    onnx, jax2onnx = _packages()
    core = translate(jax2onnx, arch, flat, presence_threshold=presence_threshold)
    about = dict(ir=IR, opset=OPSET, size=arch.image_size, limit=logit(threshold))
    about |= {f"taps_{axis}": TAPS.replace("@", axis) for axis in "yx"}
    about |= dict(score="", confidence="")
    if not arch.iou_trained:
        about |= dict(score=", float[b] confidence", confidence=CONFIDENCE)
    before, after = (onnx.parser.parse_model(text.format(**about)) for text in (BEFORE, AFTER))
    parts = {"before/": before, "": core, "after/": after}
    graphs = [_prefixed(onnx, part, prefix).graph for prefix, part in parts.items()]
    nodes = [node for graph in graphs for node in graph.node]
    read = set(_inputs(nodes))  # jax2onnx leaves constants behind that nothing reads
    left = {value.name for graph in graphs for value in graph.output}
    given = {v.name: v for graph in graphs for v in graph.input if v.name not in left}
    said = [v for v in (*after.graph.output, *core.graph.output) if v.name != "logits"]
    constants = [x for graph in graphs for x in graph.initializer if x.name in read]
    whole = onnx.helper.make_graph(nodes, "segment", list(given.values()), said, constants)
    how = dict(opset_imports=core.opset_import, ir_version=IR, functions=core.functions)
    return onnx.helper.make_model(whole, **how)


def _prefixed(onnx: Any, part: Any, prefix: str) -> Any:
    """With other names inside, but the same inputs and outputs: by these the parts are joined."""
    own = dict(rename_inputs=False, rename_outputs=False)
    return onnx.compose.add_prefix(part, prefix, **own) if prefix else part


def _inputs(nodes: Iterable[Any]) -> Iterator[str]:
    """Names that nodes read, those inside of branches and loops included."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            yield from _inputs(attribute.g.node)
            yield from (name for graph in attribute.graphs for name in _inputs(graph.node))


def translate(
    jax2onnx: Any,
    arch: Architecture,
    flat: dict[str, np.ndarray],
    *,
    presence_threshold: float = PRESENCE_THRESHOLD,
) -> Any:
    """`(canvas, content, input_ids, attention_mask) → (logits[, predicted_iou][, presence,
    nothing])`."""
    graph, least = params_lib.structure(arch)[0], logit(presence_threshold)
    params = params_lib.unflatten(jax.tree.map(jnp.asarray, flat))

    def model(canvas, content, input_ids, attention_mask):
        said = params_lib.merge(graph, params)(
            normalize(canvas, content), input_ids, attention_mask
        )
        iou = (said.iou.astype(jnp.float32),) if arch.iou_trained else ()
        there = said.presence
        presence = () if there is None else (jax.nn.sigmoid(there), there < least)
        return said.logits.astype(jnp.float32), *iou, *presence

    size, text = arch.image_size, f"b, {arch.text_tokens}"
    shapes = (f"b, {size}, {size}, 3", "b, 4", text, text)
    scope = export.SymbolicScope()
    kinds = (jnp.uint8, jnp.int32, jnp.int32, jnp.int32)
    inputs = [
        jax.ShapeDtypeStruct(export.symbolic_shape(shape, scope=scope), kind)
        for shape, kind in zip(shapes, kinds, strict=True)
    ]
    names = ["logits", *["predicted_iou"] * arch.iou_trained]
    names += ["presence", "nothing"] * arch.presence
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # a line for every constant's shape
    with (
        attention.use_back_end("plain"),
        planned_for(ANYWHERE),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", DeprecationWarning)  # jax2onnx 0.17.1 with Flax 0.12.8
        return jax2onnx.to_onnx(
            model,
            inputs=inputs,
            model_name="dit_jax",
            opset=OPSET,
            input_names=["canvas", "content", "input_ids", "attention_mask"],
            output_names=names,
        )


def _packages() -> tuple[Any, Any]:
    try:
        import jax2onnx
        import onnx
        import onnx.compose
        import onnx.parser
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"ONNX needs packages that are not here ({error.name}), which want an older Orbax than"
            " training does. In an environment of its own: pip install jax2onnx onnx ml_collections"
            " opencv-python-headless pycocotools tokenizers safetensors jaxtyping tqdm pillow; then"
            " pip install --no-deps dit_jax, or, in a checkout, `make onnx` instead of both."
        ) from error
    return onnx, jax2onnx

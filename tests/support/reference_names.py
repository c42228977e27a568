"""The state dict of the released L-DIT, by the names that its authors' modules give it, as shapes.

Written down from the reference's structure (Meta's SAM, Hugging Face's BERT, DIT's projections) and
not from our converter, so that the two can be compared; and a bare PyTorch module that has them.
"""

from peers import torch

from dit_jax.models.architecture import Architecture, Bert, Vit

Shapes = dict[str, tuple[int, ...]]


def linear(name: str, n: int, out: int) -> Shapes:
    return {f"{name}.weight": (out, n), f"{name}.bias": (out,)}


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def image_encoder(vit: Vit, decoder: int) -> Shapes:
    d, e = vit.width, "visual_encoder"
    shapes = {f"{e}.pos_embed": (1, vit.grid, vit.grid, d)}
    shapes |= {f"{e}.patch_embed.proj.weight": (d, 3, 16, 16), f"{e}.patch_embed.proj.bias": (d,)}
    for i in range(vit.depth):
        block, rows = f"{e}.blocks.{i}", vit.grid if i in vit.global_blocks else vit.window
        shapes |= norm(f"{block}.norm1", d) | norm(f"{block}.norm2", d)
        shapes |= linear(f"{block}.attn.qkv", d, 3 * d) | linear(f"{block}.attn.proj", d, d)
        for axis in "hw":
            shapes[f"{block}.attn.rel_pos_{axis}"] = (2 * rows - 1, d // vit.heads)
        shapes |= linear(f"{block}.mlp.lin1", d, 4 * d) | linear(f"{block}.mlp.lin2", 4 * d, d)
        shapes |= linear(f"{e}.probs.{i}", d, d)
    shapes |= {f"{e}.neck.0.weight": (decoder, d, 1, 1), f"{e}.neck.2.weight": (decoder,) * 2}
    shapes[f"{e}.neck.2.weight"] += (3, 3)
    return shapes | norm(f"{e}.neck.1", decoder) | norm(f"{e}.neck.3", decoder)


def text_encoder(bert: Bert) -> Shapes:
    t, e = bert.width, "lang_encoder.bert"
    shapes = {f"{e}.embeddings.word_embeddings.weight": (bert.vocab, t)}
    shapes |= {f"{e}.embeddings.position_embeddings.weight": (bert.positions, t)}
    shapes |= {f"{e}.embeddings.token_type_embeddings.weight": (bert.types, t)}
    shapes |= norm(f"{e}.embeddings.LayerNorm", t) | linear(f"{e}.pooler.dense", t, t)
    for i in range(bert.depth):
        layer = f"{e}.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            shapes |= linear(f"{layer}.attention.self.{part}", t, t)
        shapes |= linear(f"{layer}.attention.output.dense", t, t)
        shapes |= norm(f"{layer}.attention.output.LayerNorm", t)
        shapes |= linear(f"{layer}.intermediate.dense", t, bert.mlp_width)
        shapes |= linear(f"{layer}.output.dense", bert.mlp_width, t)
        shapes |= norm(f"{layer}.output.LayerNorm", t)
    return shapes


def prompt_encoder(c: int) -> Shapes:
    e = "prompt_encoder"
    shapes = {f"{e}.pe_layer.positional_encoding_gaussian_matrix": (2, c // 2)}
    embeddings = [f"point_embeddings.{i}" for i in range(4)] + ["not_a_point_embed"]
    shapes |= {f"{e}.{name}.weight": (1, c) for name in [*embeddings, "no_mask_embed"]}
    for i, (n, out, side) in {0: (1, 4, 2), 3: (4, 16, 2), 6: (16, c, 1)}.items():
        conv = f"{e}.mask_downscaling.{i}"
        shapes |= {f"{conv}.weight": (out, n, side, side), f"{conv}.bias": (out,)}
    return shapes | norm(f"{e}.mask_downscaling.1", 4) | norm(f"{e}.mask_downscaling.4", 16)


def attention(name: str, c: int, inner: int) -> Shapes:
    shapes = linear(f"{name}.out_proj", inner, c)
    for part in "qkv":
        shapes |= linear(f"{name}.{part}_proj", c, inner)
    return shapes


def mask_decoder(c: int, depth: int, mlp: int) -> Shapes:
    e = "mask_decoder"
    shapes = {f"{e}.iou_token.weight": (1, c), f"{e}.mask_tokens.weight": (4, c)}
    for i in range(depth):
        layer = f"{e}.transformer.layers.{i}"
        shapes |= attention(f"{layer}.self_attn", c, c)
        shapes |= attention(f"{layer}.cross_attn_token_to_image", c, c // 2)
        shapes |= attention(f"{layer}.cross_attn_image_to_token", c, c // 2)
        shapes |= linear(f"{layer}.mlp.lin1", c, mlp) | linear(f"{layer}.mlp.lin2", mlp, c)
        for number in range(1, 5):
            shapes |= norm(f"{layer}.norm{number}", c)
    shapes |= attention(f"{e}.transformer.final_attn_token_to_image", c, c // 2)
    shapes |= norm(f"{e}.transformer.norm_final_attn", c)
    shapes |= {f"{e}.output_upscaling.0.weight": (c, c // 4, 2, 2)}
    shapes |= {f"{e}.output_upscaling.3.weight": (c // 4, c // 8, 2, 2)}
    shapes |= {f"{e}.output_upscaling.0.bias": (c // 4,), f"{e}.output_upscaling.3.bias": (c // 8,)}
    shapes |= norm(f"{e}.output_upscaling.1", c // 4)
    heads = {f"{e}.output_hypernetworks_mlps.{i}": c // 8 for i in range(4)}
    for name, out in (heads | {f"{e}.iou_prediction_head": 4}).items():
        for i, width in enumerate((c, c, out)):
            shapes |= linear(f"{name}.layers.{i}", c, width)
    return shapes


def ldit(arch: Architecture) -> Shapes:
    """Every name of the released module, what it declares and never uses included."""
    c = arch.decoder_width
    declared = {"query_embeddings": (1, 4, 768)} | linear("self_attention.out_proj", 768, 768)
    declared |= {"self_attention.in_proj_weight": (2304, 768)}
    declared |= {"self_attention.in_proj_bias": (2304,)}
    return (
        image_encoder(arch.vit, c)
        | text_encoder(arch.bert)
        | linear("text_proj", arch.bert.width, c)
        | prompt_encoder(c)
        | mask_decoder(c, arch.decoder_depth, arch.decoder_mlp_width)
        | declared
    )


def module_of(shapes: Shapes) -> torch.nn.Module:
    """Nested modules with parameters of these names, and nothing to run."""
    root = torch.nn.Module()
    for name, shape in shapes.items():
        *parents, leaf = name.split(".")
        node = root
        for parent in parents:
            if not hasattr(node, parent):
                node.add_module(parent, torch.nn.Module())
            node = getattr(node, parent)
        node.register_parameter(leaf, torch.nn.Parameter(torch.full(shape, torch.nan)))
    return root

"""The paper's rows as one table: every model of Tables 1-5, and `tiny` for tests and quickstart.

A row says what differs between the paper's models and nothing else: backbone, injection, depth
of the two-way decoder, and which pre-trained encoders stay frozen. `oiou` is what the paper reports
on RefCOCO val / testA / testB in percent (Huang et al., ACM MM 2024); None where it reports none.
"""

import dataclasses

from dit_jax.models.architecture import Architecture, Bert, Injection, Vit

BACKBONES = {
    "tiny": Vit(depth=4, width=96, heads=3, global_blocks=(1, 3), grid=8, window=4),
    "mini": Vit(depth=6, width=128, heads=4, global_blocks=(2, 5), grid=8, window=4),
    "vit_b": Vit(depth=12, width=768, heads=12, global_blocks=(2, 5, 8, 11)),
    "vit_l": Vit(depth=24, width=1024, heads=16, global_blocks=(5, 11, 17, 23)),
    "vit_h": Vit(depth=32, width=1280, heads=16, global_blocks=(7, 15, 23, 31)),
}

SMALL = ("tiny", "mini")  # backbones of 128 px, each with a text encoder of its name

TEXT_ENCODERS = {
    "tiny": Bert(vocab=256, depth=2, width=96, heads=3, mlp_width=384, positions=64),
    "mini": Bert(vocab=256, depth=4, width=128, heads=4, mlp_width=512, positions=64),
    "mini_first": Bert(vocab=256, depth=1, width=128, heads=4, mlp_width=512, positions=64),
    "base": Bert(),
}

Encoder = str  # "image_encoder" | "text_encoder": the names of a model's two encoders


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row: what tells one of the paper's models from another."""

    backbone: str
    injection: Injection
    decoder_depth: int = 2
    freeze: tuple[Encoder, ...] = ()
    oiou: tuple[float, float, float] | None = None


IMAGE, BOTH = ("image_encoder",), ("image_encoder", "text_encoder")
E, L = Injection.E2E, Injection.LAYER_WISE

VARIANTS = {
    "tiny": Variant("tiny", L),
    "default_vit_b": Variant("vit_b", Injection.NONE, oiou=(60.74, 62.95, 56.69)),
    "default_vit_b_frozen": Variant(
        "vit_b", Injection.NONE, freeze=IMAGE, oiou=(55.67, 58.56, 52.98)
    ),
    "default_plus2_vit_b": Variant("vit_b", Injection.NONE, 4, oiou=(67.17, 69.63, 64.04)),
    "default_plus2_vit_b_frozen": Variant(
        "vit_b", Injection.NONE, 4, IMAGE, oiou=(59.88, 62.77, 56.78)
    ),
    "default_plus4_vit_b": Variant("vit_b", Injection.NONE, 6, oiou=(65.34, 67.82, 62.28)),
    "default_plus4_vit_b_frozen": Variant(
        "vit_b", Injection.NONE, 6, IMAGE, oiou=(59.46, 62.05, 55.62)
    ),
    "edit_vit_b": Variant("vit_b", E, oiou=(68.07, 70.81, 65.58)),
    "edit_vit_b_frozen": Variant("vit_b", E, freeze=IMAGE, oiou=(62.96, 63.74, 60.43)),
    "edit_vit_b_both_frozen": Variant("vit_b", E, freeze=BOTH, oiou=(60.76, 63.61, 57.97)),
    "edit_carried_vit_b": Variant("vit_b", Injection.E2E_CARRIED),  # Eq. 4, backbone tuned
    "edit_static_vit_b": Variant("vit_b", Injection.E2E_STATIC, oiou=(68.53, 71.21, 65.64)),
    "ldit_vit_b": Variant("vit_b", L, oiou=(71.98, 74.51, 68.77)),
    "ldit_vit_b_frozen": Variant("vit_b", L, freeze=IMAGE, oiou=(67.50, 69.55, 64.77)),
    "ldit_vit_b_both_frozen": Variant("vit_b", L, freeze=BOTH, oiou=(67.16, 68.24, 62.70)),
    "ldit_static_vit_b": Variant("vit_b", Injection.LAYER_WISE_STATIC, oiou=(67.31, 69.54, 63.97)),
    "crossatt_vit_b": Variant("vit_b", Injection.CROSS_ATTENTION, oiou=(67.06, 69.67, 64.85)),
    "crossatt_ffn_vit_b": Variant(
        "vit_b", Injection.CROSS_ATTENTION_FFN, oiou=(68.26, 71.03, 65.68)
    ),
    "ldit_vit_l": Variant("vit_l", L),
    "edit_vit_h": Variant("vit_h", E),
    "ldit_vit_h": Variant("vit_h", L, oiou=(76.18, 78.13, 73.27)),
}


def architecture(variant: Variant, **settings) -> Architecture:
    """The model of a row at its usual size: 512 px and BERT-base, or 128 px for small backbones.

    Args:
      settings: any field of `Architecture`, e.g. `text_layer=1`, `dtype="bfloat16"`.
    """
    small = variant.backbone in SMALL
    bert = TEXT_ENCODERS[variant.backbone if small else "base"]
    usual = dict(image_size=512, text_layer=bert.depth)
    if small:
        usual |= dict(image_size=128, decoder_width=128, decoder_mlp_width=512)
    parts = dict(
        vit=BACKBONES[variant.backbone],
        bert=bert,
        injection=variant.injection,
        decoder_depth=variant.decoder_depth,
    )
    return Architecture(**(usual | parts | settings))

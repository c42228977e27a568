"""What every config file starts from: the two recipes for RefCOCO, as one table.

`paper` is Sec. 4 of the DIT paper, `official` the released code; where they differ, weights and
scores follow one of them, so name the recipe: `configs/ldit_vit_b.py:official`.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

REFCOCO_SPLITS = ("val", "testA", "testB")

RECIPES = {
    "paper": dict(
        text_layer=12,
        schedule="steps",
        betas=(0.9, 0.999),
        eps=1e-8,
        clip=0.0,
        ema=0.0,
        scales=False,
        blur_p=0.5,
    ),
    "official": dict(
        text_layer=1,  # a slip in the released code, on which its checkpoints depend
        schedule="cosine",
        betas=(0.9, 0.98),
        eps=1e-9,
        clip=0.15,
        ema=0.9997,
        scales=True,
        blur_p=0.0,
    ),
}


def recipe(variant: str, name: str = "paper") -> ConfigDict:
    """The config of one of the paper's rows on RefCOCO-unc at 512 px.

    Raises ValueError for an unknown recipe. `variant` is a row of `dit_jax.variants.VARIANTS`.
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}; expected one of {', '.join(RECIPES)}.")
    rules = RECIPES[name]
    full_length = name == "paper" or variant.startswith(("ldit_vit_b", "edit_vit_b"))
    return ConfigDict(
        dict(
            seed=0,
            profile_steps="",
            compile_cache="",
            model=model(variant, text_layer=rules["text_layer"], image_size=512),
            data=refcoco(scales=rules["scales"], blur_p=rules["blur_p"]),
            optim=dict(
                name="adam",
                lr=1e-4,
                betas=rules["betas"],
                eps=rules["eps"],
                schedule=rules["schedule"],
                warmup_epochs=3.0,
                warmup_lr=1e-7,
                min_lr=1e-6,
                epochs=40.0 if full_length else 25.0,
                milestones=(30.0, 35.0),
                decay=0.2,
                clip=rules["clip"],
                ema=rules["ema"],
                presence_weight=0.1,
                iou_weight=0.0,
                rounds=8,  # of SAM
                click_share=0.5,
                batch_size=64,
                accumulate=1,
                max_steps=0,
            ),
            mesh=dict(data=-1, fsdp=1, tensor=1, slices=1),
            eval=dict(
                protocols=("dit", "original"),
                best="dit",
                batch_size=32,
                threshold=0.35,  # Sec. 4.3
                presence_threshold=placeholder(float),
                false_alarm=0.05,
                bootstrap=1000,
                predictions=False,
                every_epochs=1.0,
                every_steps=0,
            ),
            probe=dict(limit=500, seed=0),
            checkpoint=dict(every_steps=1000, keep_latest=1, asynchronous=True),
            train=dict(
                minutes=0.0, log_every=20, max_nonfinite=10, pictures=12, writers=("tensorboard",)
            ),
        )
    )


def model(variant: str, *, text_layer: int, image_size: int) -> dict:
    """The model section of a row, without overrides."""
    return dict(
        task="text",
        variant=variant,
        backbone=placeholder(str),
        injection=placeholder(str),
        decoder_depth=placeholder(int),
        text_encoder=placeholder(str),
        freeze=placeholder(tuple),
        inject_from=0,
        text_layer=text_layer,
        text_tokens=20,
        presence=False,
        image_size=image_size,
        mask_padding=False,
        dtype="float32",
        products=placeholder(str),
        dropout=True,
        remat="none",
        init=dict(model="", sam="", bert=""),
        vocab_size=placeholder(int),
        vocab="",
    )


def refcoco(*, scales: bool, blur_p: float) -> dict:
    """The data section of RefCOCO-unc."""
    return dict(
        dataset="refcoco",
        split_by="unc",
        source="data/refer",
        images="",
        cache_dir="data/records",
        local_cache="",
        weights=(),
        crowds="keep",
        units="pixel",
        orientation="upright",
        captions="needed",
        leaks="drop",
        on_error="stop",
        train_split="train",
        train_limit=0,
        eval_splits=REFCOCO_SPLITS,
        eval_limit=0,
        augmentation=dict(scales=scales, jitter=0.4, jitter_p=0.8, blur_p=blur_p, flip_p=0.5),
        workers=-1,
        ahead_gb=4.0,
        cache_features="",
        shapes=dict(length=20_000, eval_length=256, absent=0.0, seed=0),
    )

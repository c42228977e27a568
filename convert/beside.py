"""`config.json`, which Hugging Face writes beside the tensors: what they cannot say themselves.

BERT's heads, activation and epsilon leave no trace in shapes, and RoBERTa has BERT's very names. A
config is compared with the tensors, and what our models do not compute is refused by its key.
"""

import json
from pathlib import Path
from typing import Any

from dit_jax.models.architecture import ACTIVATIONS, HEAD_WIDTH, PATCH
from dit_jax.strict import few

NAMES = ("config.json", "bert_config.json")  # the second is Google's
# The names that transformers has for one activation → ours.
SAME_ACTIVATION = {name: name for name in ACTIVATIONS} | {
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu_fast": "gelu_new",
}
BERT_KEYS = {  # ours → theirs
    "vocab": "vocab_size",
    "depth": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "positions": "max_position_embeddings",
    "types": "type_vocab_size",
    "activation": "hidden_act",
    "epsilon": "layer_norm_eps",
}
VIT_KEYS = {
    "depth": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "global_blocks": "global_attn_indexes",
    "window": "window_size",
    "grid": "image_size",
}
DECODER_KEYS = {"heads": "num_attention_heads", "width": "hidden_size"}
KINDS = {"activation": (str,), "epsilon": (float,), "global_blocks": (list,)}  # else int
# What has to be as every such model has it, where a config says it.
BERT_MUST = {
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "quantization_config": (None,),
}
SAM_MUST = {
    "vision_config": {
        "hidden_act": ("gelu",),
        "layer_norm_eps": (1e-6,),
        "patch_size": (PATCH,),
        "qkv_bias": (True,),
        "use_abs_pos": (True,),
        "use_rel_pos": (True,),
    },
    "mask_decoder_config": {
        "hidden_act": ("relu",),
        "layer_norm_eps": (1e-6, 1e-5),
        "attention_downsample_rate": (2,),
        "iou_head_depth": (3,),
    },
    "prompt_encoder_config": {"hidden_act": ("gelu",), "layer_norm_eps": (1e-6,)},
}
OTHERS = {  # model_type → what it is
    "roberta": "RoBERTa, whose positions start at 2",
    "xlm-roberta": "XLM-R, whose positions start at 2",
    "camembert": "CamemBERT, whose positions start at 2",
    "distilbert": "DistilBERT",
    "albert": "ALBERT",
    "electra": "ELECTRA",
    "sam2": "SAM 2",
    "sam2_video": "SAM 2",
    "sam_hq": "SAM-HQ",
}


def find(source: Path) -> Path | None:
    """The config in a folder of weights, or beside a file of them."""
    folder = source if source.is_dir() else source.parent
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def is_bert(path: Path) -> bool:
    """False of the config of another model: beside a DIT may lie that of its SAM."""
    return _read(path).get("model_type", "bert") == "bert"


def bert(path: Path) -> dict[str, Any]:
    """What a config says of a BERT, by `Bert`'s fields; nothing where it describes something else.

    Raises ValueError naming what is not computed here.
    """
    config = _read(path)
    if "model_type" not in config and not config.keys() & set(BERT_KEYS.values()):
        return {}
    _check_kind(path, config, "bert", "Bert")
    _check(path, config, BERT_MUST)
    said = _said(path, config, BERT_KEYS)
    if "activation" in said:
        if said["activation"] not in SAME_ACTIVATION:
            raise ValueError(
                f"{path} says hidden_act {said['activation']!r}; expected one of"
                f" {', '.join(SAME_ACTIVATION)}."
            )
        said["activation"] = SAME_ACTIVATION[said["activation"]]
    return said


def vit(path: Path) -> dict[str, Any]:
    """As `bert`, what a SamModel's config says of the image encoder, by `Vit`'s fields.

    Raises ValueError naming what is not computed here.
    """
    config = _read(path)
    if "model_type" not in config and "vision_config" not in config:
        return {}
    _check_kind(path, config, "sam", "Sam")
    for section, must in SAM_MUST.items():
        if not isinstance(config.get(section, {}), dict):
            raise ValueError(f"{path} says {section} {config[section]!r}; expected a section.")
        _check(path, config.get(section, {}), must, f"{section}.")
    decoder = _said(path, config.get("mask_decoder_config", {}), DECODER_KEYS)
    if len(decoder) == 2 and decoder["heads"] * HEAD_WIDTH != decoder["width"]:
        raise ValueError(
            f"{path} says mask_decoder_config.num_attention_heads {decoder['heads']}; expected"
            f" {HEAD_WIDTH} channels a head."
        )
    said = _said(path, config.get("vision_config", {}), VIT_KEYS)
    if "grid" in said:
        said["grid"] //= PATCH
    if "global_blocks" in said:
        said["global_blocks"] = tuple(said["global_blocks"])
    return said


def _said(path: Path, config: dict[str, Any], keys: dict[str, str]) -> dict[str, Any]:
    """The values of `keys` (ours → theirs) that a config has, by our names."""
    said = {ours: config[theirs] for ours, theirs in keys.items() if theirs in config}
    for ours, value in said.items():
        kinds = KINDS.get(ours, (int,))
        inner = value if ours == "global_blocks" and type(value) is list else ()
        if type(value) not in kinds or any(type(item) is not int for item in inner):
            raise ValueError(f"{path} says {keys[ours]} {value!r}; expected {kinds[0].__name__}.")
    return said


def compare(path: Path | None, said: dict[str, Any], found: Any) -> None:
    """Raises ValueError where a config and the tensors beside it are of different models."""
    different = [
        f"{name} {value} ≠ {getattr(found, name)}"
        for name, value in said.items()
        if value != getattr(found, name)
    ]
    if different:
        raise ValueError(
            f"{path} is not of the weights beside it (it says ≠ they have): {few(different)}."
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is no config: it holds a {type(config).__name__}.")
    return config


def _check_kind(path: Path, config: dict[str, Any], expected: str, classes: str) -> None:
    kind = config.get("model_type", expected)
    if kind != expected:
        what = f" ({OTHERS[str(kind)]})" if str(kind) in OTHERS else ""
        raise ValueError(f"{path} says model_type {kind!r}{what}; expected {expected!r}.")
    named = config.get("architectures") or []
    if "model_type" not in config and named and not str(named[0]).startswith(classes):
        raise ValueError(f"{path} says architectures {named}; expected a {classes}Model.")


def _check(path: Path, config: dict[str, Any], must: dict[str, tuple], prefix: str = "") -> None:
    for key, allowed in must.items():
        if key in config and config[key] not in allowed:
            raise ValueError(
                f"{path} says {prefix}{key} {config[key]!r}; expected"
                f" {' or '.join(map(str, allowed))}."
            )

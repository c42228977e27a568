"""The model card: `model_card.md` filled in from a manifest, for people to finish (Mitchell 2019).

What the program knows is written; what only a person can say is asked for in comments that no
reader sees. Nothing is made up: an unknown license or missing score is called that.
"""

import json
import textwrap
from collections.abc import Callable, Mapping
from importlib import resources
from string import Template
from typing import Any

from dit_jax.models.architecture import Architecture, Injection
from dit_jax.weights.manifest import Manifest

METHODS = {
    Injection.NONE: "shallow fusion in the decoder alone",
    Injection.E2E: "end-to-end deep instruction tuning (E-DIT)",
    Injection.E2E_CARRIED: "end-to-end deep instruction tuning (E-DIT, Eq. 4)",
    Injection.E2E_STATIC: "E-DIT with static prompts",
    Injection.LAYER_WISE: "layer-wise deep instruction tuning (L-DIT)",
    Injection.LAYER_WISE_STATIC: "L-DIT with static prompts",
    Injection.CROSS_ATTENTION: "cross-attention (CrossAtt)",
    Injection.CROSS_ATTENTION_FFN: "cross-attention and feed-forward layers (CrossAtt + FFN)",
}
USES = {
    "safetensors": '    import dit_jax\n    model = dit_jax.load("$name")',
    "int8": (
        "    import dit_jax\n"
        '    segmenter = dit_jax.Segmenter.from_pretrained("$name")\n\n'
        "Its matrices are int8, with a scale for each output channel; it is not for training."
    ),
    "stablehlo": (
        "    pip install jax==$jax flatbuffers numpy tokenizers pillow\n"
        '    python run.py photo.jpg "the man on the left"\n\n'
        "jaxlib $jaxlib wrote the program. Releases of jaxlib up to six months newer than that one"
        " read it: that is [JAX's promise]"
        "(https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees), and"
        " [its changelog](https://docs.jax.dev/en/latest/changelog.html) dates the releases."
    ),
    "onnx": (
        "    pip install onnxruntime numpy tokenizers pillow\n"
        '    python run.py photo.jpg "the man on the left"'
    ),
    "pack": (
        "    from dit_jax.weights import packs\n"
        '    model = packs.Base.open("$base").with_pack("$name")\n\n'
        "Only what training changed is here; the model it was trained from is needed too."
    ),
}
PRESENCE = {
    True: "It also says how likely the words mean anything in the picture at all.",
    False: "It always answers: an expression for what is not in the picture gets some mask too.",
}
SCORE = {
    "predicted_iou": "The score of a mask is the IoU that the model predicts; it was trained to.",
    "confidence": (
        "The score of a mask is its confidence, the mean probability inside it: the decoder's IoU"
        " head was not trained."
    ),
}
SHOWN = ("oIoU", "mIoU", "gIoU", "P@0.5", "P@0.7", "P@0.9", "N-acc", "T-acc", "AURC", "ECE")


def fill(
    manifest: Manifest,
    *,
    name: str,
    form: str,
    arch: Architecture,
    parameters: int,
    at: str | None = None,
) -> str:
    """The card as Markdown with the front matter that model hubs read.

    Args:
      form: a key of `USES`: how the files are used.
      parameters: how many numbers the model has.
      at: the place that those who use it name; by default `name`, as a folder.
    """
    template = Template(
        resources.files("dit_jax.weights").joinpath("model_card.md").read_text("utf-8")
    )
    base = manifest.provenance.get("base", "BASE")
    use = Template(USES[form]).substitute(manifest.packages, name=at or name, base=base)
    return template.substitute(
        name=name,
        license_tag=(manifest.license or "unknown").lower(),
        description=describe(arch, parameters),
        use=use,
        provenance=listed(manifest.provenance, otherwise="Nobody noted it."),
        scores=score_table(manifest.scores),
        presence=_presence(manifest, arch),
        score=SCORE[arch.score_kind],
        tokens=arch.text_tokens,
        size=arch.image_size,
        data=_trained_on(manifest.provenance),
        license=manifest.license
        or "Not stated. Whoever hands the model on says here under which license it may be used.",
        files=_table(
            ("file", "bytes"), [(f"`{n}`", f"{f.bytes:,}") for n, f in manifest.files.items()]
        ),
        packages=", ".join(f"{package} {v}" for package, v in manifest.packages.items()),
    )


def describe(arch: Architecture, parameters: int) -> str:
    """One sentence on what the model is."""
    text = "no text encoder" if arch.bert is None else f"layer {arch.text_layer} of BERT"
    return (
        f"SAM with a ViT of {arch.vit.depth} blocks, {arch.vit.width} wide, and {text};"
        f" {METHODS[arch.injection]} (Huang et al., ACM MM 2024). {parameters / 1e6:,.1f} million"
        f" parameters, computed in {arch.dtype}."
    )


def score_table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """In percent, a row for each data set, split and protocol."""
    if not scores:
        return "Not scored."
    rows = list(scores.values())
    shown = [name for name in SHOWN if any(row.get(name) is not None for row in rows)]
    head = ("data set", "split", "protocol", *shown, "n")
    lines = [
        (
            *(str(row.get(key, "–")) for key in ("dataset", "split", "protocol")),
            *("–" if row.get(name) is None else f"{row[name]:.2f}" for name in shown),
            str(row.get("n", "–")),
        )
        for row in rows
    ]
    return "In percent; scores of different protocols cannot be compared.\n\n" + _table(head, lines)


def _presence(manifest: Manifest, arch: Architecture) -> str:
    """With what was promised of it, and what came of that elsewhere."""
    promise = manifest.calibration
    if not arch.presence or promise is None:
        return PRESENCE[arch.presence]
    checks = textwrap.indent(listed(promise.checks, otherwise=""), "  ")
    return f"{PRESENCE[True]} {promise.sentence}\n{checks}".rstrip()


def _trained_on(provenance: Mapping[str, Any]) -> str:
    known = {key: provenance[key] for key in ("dataset", "split", "leaks") if key in provenance}
    return listed(known, otherwise="Nobody noted it.")


def listed(values: Mapping[str, Any], *, otherwise: str) -> str:
    plain: Callable[[Any], str] = lambda v: v if isinstance(v, str) else json.dumps(v)  # noqa: E731
    return "\n".join(f"- {key}: {plain(value)}" for key, value in values.items()) or otherwise


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

"""The start of training: SAM's and BERT's published weights, fresh DIT parameters between them."""

from pathlib import Path

from dit_jax.convert import checkpoint, infer, names, transfer
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture
from dit_jax.models.params import Params
from dit_jax.weights import directory

FRESH = (  # in no SAM: the paper's own parameters, and ours
    "image_encoder.injector.",
    "image_encoder.prob_text.",
    "mask_decoder.presence_head.",
)
SAM_DECODER_DEPTH = 2
HUGGING_FACE = ("model.safetensors", "pytorch_model.bin")  # in a folder of theirs, best first


def assemble(
    arch: Architecture, *, sam: Path | str | None, bert: Path | str | None, seed: int = 0
) -> Params:
    """Parameters of `arch` from a SAM and a BERT, each a PyTorch file or a model directory.

    BERT may also be a Hugging Face folder. What neither holds (injector, text projections, decoder
    layers beyond SAM's two, presence head) is drawn from `seed`; a part that is not given is fresh
    as a whole. Raises ValueError where one does not fit.
    """
    flat = params_lib.flatten(params_lib.init(arch, seed=seed))
    if sam:
        flat |= _sam(arch, Path(sam), flat)
    if bert:
        flat |= _bert(arch, Path(bert), flat)
    return params_lib.unflatten(flat)


def _sam(arch: Architecture, source: Path, flat: dict) -> dict:
    extra = tuple(
        f"mask_decoder.transformer.layers.{i}."
        for i in range(SAM_DECODER_DEPTH, arch.decoder_depth)
    )
    components = ("image_encoder.", "prompt_encoder.", "mask_decoder.")
    wanted = {
        path: value
        for path, value in flat.items()
        if path.startswith(components) and not path.startswith(FRESH + extra)
    }
    if source.is_dir():
        contents = directory.read_contents(source)
        found = {p: v for p, v in contents.tensors.items() if p.startswith(components)}
        directory.check(found, wanted, source=str(source))
        return found
    state = names.from_sam(checkpoint.read(source))
    if infer.vit(state) != arch.vit:
        raise ValueError(f"{source} is {infer.vit(state)}; the variant needs {arch.vit}.")
    return transfer.fill(wanted, state, source=str(source)).tensors


def _bert(arch: Architecture, source: Path, flat: dict) -> dict:
    if arch.bert is None:
        raise ValueError(f"{source} is given for BERT, and the variant has no text encoder.")
    wanted = {path: value for path, value in flat.items() if path.startswith("text_encoder.")}
    if source.is_dir() and _is_ours(source):
        contents = directory.read_contents(source)
        found = {p: v for p, v in contents.tensors.items() if p.startswith("text_encoder.")}
        directory.check(found, wanted, source=str(source))
        return found
    source = _weights(source) if source.is_dir() else source
    state = names.from_bert(checkpoint.read(source))
    return transfer.fill(wanted, state, source=str(source)).tensors


def _is_ours(folder: Path) -> bool:
    """Whether a folder with a `config.json` is a model directory; Hugging Face writes one too."""
    config = folder / directory.CONFIG
    return config.is_file() and b'"kind"' in config.read_bytes()


def _weights(folder: Path) -> Path:
    """The checkpoint in a Hugging Face folder."""
    for name in HUGGING_FACE:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(
        f"{folder} holds no BERT: expected {' or '.join(HUGGING_FACE)}, or a model directory."
    )

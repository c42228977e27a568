"""The model of a run: what predicts, from which vocabulary, and its parameters before step 0."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import jax
from flax import nnx
from jax.sharding import Mesh

from dit_jax import config as configs
from dit_jax import storage, variants
from dit_jax import vocabulary as vocabularies
from dit_jax.data import shapes
from dit_jax.data.tokenizer import NoWords, Tokenizer, Words
from dit_jax.models import params as parameters
from dit_jax.models.architecture import Architecture
from dit_jax.models.params import Params
from dit_jax.strict import few, flatten
from dit_jax.train import step as steps
from dit_jax.train.placement import sharding
from dit_jax.train.pointing import Pointing
from dit_jax.weights import directory, hub

# Fields of an architecture that a run may choose anew for a directory's parameters.
FREE = ("image_size", "dtype", "products", "windowed", "iou_trained")
OF_TEXT = ("text_layer", "text_tokens", "mask_padding")  # nothing to a model without an encoder


@dataclasses.dataclass(frozen=True)
class Model:
    """What predicting needs besides parameters."""

    arch: Architecture
    graph: nnx.GraphDef
    tokenizer: Words
    mesh: Mesh
    placement: Params  # shardings of all parameters

    @staticmethod
    def of(arch: Architecture, vocab: Path | None, mesh: Mesh) -> "Model":
        """`vocab` is None of a model that reads no text.

        Raises ValueError where the text encoder has no row for every word piece.
        """
        graph, abstract = parameters.structure(arch)
        tokenizer = NoWords() if vocab is None else open_tokenizer(vocab, arch)
        return Model(arch, graph, tokenizer, mesh, sharding.shardings(abstract, mesh))

    @functools.cached_property
    def predict(self) -> Callable:
        """`step.make_predict_step`'s function, compiled once."""
        return steps.make_predict_step(self.graph, mesh=self.mesh, placement=self.placement)

    @functools.cached_property
    def pointing(self) -> Pointing:
        """What answers points and boxes, after a text where the model reads any."""
        text = self.arch.bert is not None
        return Pointing(self.graph, self.mesh, self.placement, text=text)


def weights(model: configs.Model) -> configs.Init:
    """`init` as paths; a BERT that `text_encoder` names brings its weights along."""
    init, named = model.init, model.text_encoder or ""
    if not (init.model or init.bert or named in variants.TEXT_ENCODERS):
        init = dataclasses.replace(init, bert=named)
    given = {key: value for key, value in dataclasses.asdict(init).items() if value}
    return dataclasses.replace(init, **{key: str(hub.local(name)) for key, name in given.items()})


def vocabulary(model: configs.Model, *, drawn: bool) -> Path | None:
    """The vocabulary file that a config means; None where its model reads no text.

    `drawn`: only embedded data are trained on.
    """
    if model.task == "prompts":
        return None
    if model.vocab:
        return storage.local(model.vocab)
    init = weights(model)
    if init.model:
        return directory.vocab_path(init.model)
    if not init.bert and drawn:
        return shapes.VOCAB
    beside = vocabularies.find(Path(init.bert)) if init.bert else None
    if beside is None:
        raise ValueError(
            "model.vocab is empty and no vocab.txt lies beside BERT; expected the vocabulary that"
            " it was trained with, there or as model.vocab."
        )
    return beside


def open_tokenizer(vocab: Path, arch: Architecture) -> Tokenizer:
    """Raises ValueError where the text encoder has no row for every word piece."""
    tokenizer = Tokenizer(vocab, length=arch.text_tokens)
    if tokenizer.size > arch.bert.vocab:
        raise ValueError(
            f"{vocab} has {tokenizer.size} word pieces; the text encoder has {arch.bert.vocab}"
            f" rows: set model.vocab_size={tokenizer.size}."
        )
    return tokenizer


def check_bert(init: configs.Init, arch: Architecture) -> None:
    """Raises ValueError where the BERT that a config names is another one than its model has.

    Before words are compared with it, by its own config; `first_params` compares the tensors too.
    """
    if init.bert and arch.bert is not None:
        from dit_jax.convert import assemble, sources

        found = sources.described(Path(init.bert))
        if found is not None:
            assemble.check_bert(found, arch.bert, source=init.bert)


def first_params(init: configs.Init, arch: Architecture, *, seed: int) -> Params:
    """Parameters before the first step: a model directory's, SAM's and BERT's, or fresh ones."""
    if init.model and (init.sam or init.bert):
        raise ValueError("model.init names a model directory and PyTorch files; expected one kind.")
    if init.model:
        return _from_directory(init.model, arch, seed=seed)
    if init.sam or init.bert:
        from dit_jax.convert.assemble import assemble  # knows PyTorch, which training does not need

        return assemble(arch, sam=init.sam or None, bert=init.bert or None, seed=seed)
    return parameters.init(arch, seed=seed)


def _from_directory(folder: str, arch: Architecture, *, seed: int) -> Params:
    contents = directory.read_contents(folder)
    theirs = contents.architecture
    if theirs is None or (theirs.bert is None and arch.bert is not None):
        raise ValueError(
            f"model.init.model is {folder}, which holds one encoder or plain SAM; give it as"
            " model.init.bert or model.init.sam."
        )
    if arch.presence:
        contents = directory.with_presence(contents, seed=seed)
    check_architecture(contents.architecture, arch, folder=folder)
    expected = parameters.flatten(parameters.structure(arch)[1])
    directory.check(contents.tensors, expected, source=folder)
    return parameters.unflatten(jax.tree.map(jax.numpy.asarray, contents.tensors))


def check_architecture(found: Architecture, wanted: Architecture, *, folder: str) -> None:
    """Raise ValueError naming every field that differs: equal shapes do not make equal models."""
    theirs, ours = flatten(found), flatten(wanted)
    free = FREE if found.bert or wanted.bert else FREE + OF_TEXT
    different = [
        f"{field}: {theirs[field]} → {ours[field]}"
        for field in ours
        if theirs[field] != ours[field] and field not in free
    ]
    if different:
        listed = few(different, 10, between="; ")
        raise ValueError(
            f"{folder} holds another model than the config's ({listed}); set the config's model"
            " section to what the directory says."
        )

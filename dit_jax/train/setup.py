"""From a config to the parts of a run: data, vocabulary, first parameters."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Int

from dit_jax import config as configs
from dit_jax import model_directory
from dit_jax.data import shapes
from dit_jax.data.referent import Referent, Source
from dit_jax.data.tokenizer import Tokenizer
from dit_jax.data.transforms import Augmentation
from dit_jax.models import params as parameters
from dit_jax.models.architecture import Architecture
from dit_jax.models.params import Params
from dit_jax.strict import flatten

# Fields of an architecture that a run may choose anew for a directory's parameters.
FREE = ("image_size", "dtype", "windowed")


@dataclasses.dataclass(frozen=True)
class First:
    """The first `count` referents of a source."""

    source: Source
    count: int

    def __len__(self) -> int:
        return min(self.count, len(self.source))

    def __getitem__(self, index: int) -> Referent:
        if not 0 <= index < len(self):
            raise IndexError(f"referent {index} of {len(self)}")
        return self.source[index]

    def expression_counts(self) -> Int[np.ndarray, " n"]:
        return self.source.expression_counts()[: self.count]


def training_source(config: configs.Config) -> Source:
    """What is trained on."""
    source = open_source(config, config.data.train_split)
    return First(source, config.data.train_limit) if config.data.train_limit else source


def open_source(config: configs.Config, split: str) -> Source:
    """One split of the config's data set; builds RefCOCO's records where they are not yet built."""
    data = config.data
    if data.dataset == "shapes":
        count = data.shapes.length if split == data.train_split else data.shapes.eval_length
        size, seed = config.model.image_size, data.shapes.seed
        return shapes.Shapes(split, size=size, length=count, seed=seed)
    from dit_jax.data import refer  # TFDS takes seconds to import

    folder = refer.build(data.dataset, data.split_by, source=data.source, out_dir=data.cache_dir)
    return refer.Refer(folder, split)


def check_evaluation(config: configs.Config) -> None:
    """Open every evaluation split, so that what is wrong with one is said before the first step."""
    if jax.process_count() > 1:
        raise ValueError(
            f"this run is spread over {jax.process_count()} processes; evaluation, which every run"
            " ends with, expects one."
        )
    for split in config.data.eval_splits:
        open_source(config, split)


def augmentation(config: configs.Config) -> Augmentation:
    """The training pictures' variation; all scales, or full size only."""
    values = dataclasses.asdict(config.data.augmentation)
    scales = values.pop("scales")
    return Augmentation(**values) if scales else Augmentation(scales=(1.0,), **values)


def vocabulary(config: configs.Config) -> Path:
    """The vocabulary file that the config means."""
    if config.model.vocab:
        return Path(config.model.vocab)
    if config.model.init.model:
        return model_directory.vocab_path(config.model.init.model)
    beside = _vocab_of_bert(config.model.init.bert)
    if beside is not None:
        return beside
    if config.data.dataset == "shapes":
        return shapes.VOCAB
    raise ValueError(
        "model.vocab is empty and no vocab.txt lies beside BERT; expected one for this data set."
    )


def _vocab_of_bert(bert: str) -> Path | None:
    """The vocabulary in BERT's folder, or beside its file."""
    if not bert:
        return None
    folder = Path(bert) if Path(bert).is_dir() else Path(bert).parent
    path = folder / model_directory.VOCAB
    return path if path.is_file() else None


def open_tokenizer(vocab: Path, arch: Architecture) -> Tokenizer:
    """Raises ValueError where the text encoder has no row for every word piece."""
    tokenizer = Tokenizer(vocab, length=arch.text_tokens)
    words = len(vocab.read_text(encoding="utf-8").splitlines())
    if words > arch.bert.vocab:
        raise ValueError(
            f"{vocab} has {words} word pieces; the text encoder has {arch.bert.vocab} rows:"
            f" set model.vocab_size={words}."
        )
    return tokenizer


def first_params(config: configs.Config, arch: Architecture) -> Params:
    """Parameters before the first step: a model directory's, SAM's and BERT's, or fresh ones."""
    init, seed = config.model.init, config.train.seed
    if init.model and (init.sam or init.bert):
        raise ValueError("model.init names a model directory and PyTorch files; expected one kind.")
    if init.model:
        return _from_directory(init.model, arch)
    if init.sam or init.bert:
        from convert.assemble import assemble  # knows PyTorch, which training does not need

        return assemble(arch, sam=init.sam or None, bert=init.bert or None, seed=seed)
    return parameters.init(arch, seed=seed)


def _from_directory(folder: str, arch: Architecture) -> Params:
    contents = model_directory.read_contents(folder)
    if contents.architecture is None or contents.architecture.bert is None:
        raise ValueError(
            f"model.init.model is {folder}, which holds one encoder or plain SAM; give it as"
            " model.init.bert or model.init.sam."
        )
    check_architecture(contents.architecture, arch, folder=folder)
    expected = parameters.flatten(parameters.structure(arch)[1])
    model_directory.check(contents.tensors, expected, source=folder)
    return parameters.unflatten(jax.tree.map(jax.numpy.asarray, contents.tensors))


def check_architecture(found: Architecture, wanted: Architecture, *, folder: str) -> None:
    """Raise ValueError naming every field that differs: equal shapes do not make equal models."""
    theirs, ours = flatten(found), flatten(wanted)
    different = [
        f"{field}: {theirs[field]} → {ours[field]}"
        for field in ours
        if theirs[field] != ours[field] and field not in FREE
    ]
    if different:
        raise ValueError(
            f"{folder} holds another model than the config's ({'; '.join(different)}); set the"
            " config's model section to what the directory says."
        )

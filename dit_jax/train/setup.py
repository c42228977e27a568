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
    if config.data.dataset == "shapes":
        return shapes.VOCAB
    raise ValueError("model.vocab is empty; expected BERT's vocab.txt for this data set.")


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

        parts = {name: Path(path) if path else None for name, path in _files(init).items()}
        return assemble(arch, **parts, seed=seed)
    return parameters.init(arch, seed=seed)


def _files(init: configs.Init) -> dict[str, str]:
    return {"sam": init.sam, "bert": init.bert}


def _from_directory(folder: str, arch: Architecture) -> Params:
    contents = model_directory.read_contents(folder)
    expected = parameters.flatten(parameters.structure(arch)[1])
    model_directory.check(contents.tensors, expected, source=folder)
    return parameters.unflatten(jax.tree.map(jax.numpy.asarray, contents.tensors))

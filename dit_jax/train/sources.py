"""The data of a run: what is trained on, what is scored, and which pictures are in both."""

import dataclasses
from pathlib import Path
from typing import Any

from dit_jax import config as configs
from dit_jax.data import mix, shapes
from dit_jax.data.mix import Mix, Overlap, Part, Split
from dit_jax.data.referent import Source


@dataclasses.dataclass(frozen=True)
class Leaks:
    """Pictures that are trained on and also in an evaluation split, and what was done about it."""

    policy: str  # "drop" or "keep"
    overlap: Overlap  # before anything was dropped
    dropped: int  # referents

    @property
    def pictures(self) -> int:
        return sum(count for row in self.overlap.values() for count in row.values())

    def record(self) -> dict[str, Any]:
        """What checkpoints and scores say about it; pairs that share nothing are left out."""
        shared = {
            name: {other: count for other, count in row.items() if count}
            for name, row in self.overlap.items()
        }
        shared = {name: row for name, row in shared.items() if row}
        return {"policy": self.policy, "dropped_referents": self.dropped, "overlap": shared}

    def text(self) -> str:
        """For people: the matrix, and what was done."""
        if not self.pictures:
            return "No training picture is in an evaluation split."
        done = (
            f"{self.dropped:,} referents of these pictures are left out of the training data."
            if self.policy == "drop"
            else "They stay in the training data: scores on these splits are not comparable."
        )
        return (
            "Pictures of the training data (rows) that are also in evaluation splits (columns):\n"
            f"{mix.matrix(self.overlap)}\n{done}"
        )


@dataclasses.dataclass(frozen=True)
class Training:
    """What is trained on; `source` holds the parts one after another."""

    source: Mix
    leaks: Leaks
    epoch: int  # referents that are seen in one epoch, counted as the mix weighs its parts


def parts(config: configs.Config) -> tuple[Part, ...]:
    """The data sets that are trained on."""
    data = config.data
    return mix.parse(data.dataset, split_by=data.split_by, source=data.source)


def drawn(config: configs.Config) -> bool:
    """Whether only the embedded data set is trained on: no two of its splits share a scene."""
    return all(part.kind == "shapes" for part in parts(config))


def split(config: configs.Config, text: str) -> Split:
    """What an entry of `data.eval_splits` means."""
    data = config.data
    return mix.parse_split(text, parts(config), split_by=data.split_by, source=data.source)


def label(config: configs.Config, text: str) -> tuple[str, str]:
    """Data set and split as the names of score files say them: ("refcoco", "val").

    Where two parts of that name are scored, the partition is added.
    """
    chosen = split(config, text)
    named = {split(config, other).part for other in config.data.eval_splits}
    same = [part for part in named if part.label == chosen.part.label]
    name = chosen.part.label
    if len(same) > 1:
        name += f"({chosen.part.argument.replace('/', '_')})"
    return name, chosen.name


def check_evaluation(config: configs.Config) -> None:
    """Open every evaluation split, so that what is wrong with one is said before the first step."""
    for text in config.data.eval_splits:
        open_source(config, text)


def open_source(config: configs.Config, text: str) -> Source:
    """One split; builds array records where they are not yet built."""
    return _open(config.data, config.model.image_size, split(config, text))


def training(config: configs.Config, *, allow_leak: bool) -> Training:
    """Everything that is trained on, without what is also evaluated on.

    Raises ValueError where the config keeps such pictures and `allow_leak` does not say so again.
    """
    data, size = config.data, config.model.image_size
    chosen = [Split(part, data.train_split) for part in parts(config)]
    sources = {str(one): _open(data, size, one) for one in chosen}
    others = {str(one): _open(data, size, one) for one in _held_out(config)}
    found = mix.overlap(sources, others)
    before = sum(map(len, sources.values()))
    if data.leaks == "drop":
        sources = {n: mix.without(source, tuple(others.values())) for n, source in sources.items()}
    leaks = Leaks(data.leaks, found, before - sum(map(len, sources.values())))
    if leaks.pictures and data.leaks == "keep" and not allow_leak:
        raise ValueError(
            "data.leaks is 'keep', and pictures of the training data are also in evaluation splits"
            f" ({_named(found)}); expected data.leaks=drop, or --allow-leak as well."
        )
    empty = [name for name, source in sources.items() if not len(source)]
    if empty:
        raise ValueError(
            f"no picture of {', '.join(empty)} may be trained on: every one is also in an"
            " evaluation split; expected data.leaks=keep with --allow-leak, or other splits."
        )
    if data.train_limit:
        sources = {name: mix.first(s, data.train_limit) for name, s in sources.items()}
    mixed = Mix(tuple(sources.values()))
    weights = data.weights or (1.0,) * len(mixed.lengths)
    epoch = round(sum(w * n for w, n in zip(weights, mixed.lengths, strict=True)))
    return Training(mixed, leaks, epoch)


def _held_out(config: configs.Config) -> list[Split]:
    """Every split that is scored, and every other val or test split of the parts in use."""
    scored = [split(config, text) for text in config.data.eval_splits]
    used = dict.fromkeys([*parts(config), *(one.part for one in scored)])
    rest = [
        Split(part, name)
        for part in used
        for name in _split_names(config.data, part)
        if name not in ("train", config.data.train_split)
    ]
    return list(dict.fromkeys([*scored, *rest]))


def _named(found: Overlap) -> str:
    shared = {name: sum(row.values()) for name, row in found.items() if any(row.values())}
    return ", ".join(f"{name}: {count:,}" for name, count in shared.items())


def _split_names(data: configs.Data, part: Part) -> tuple[str, ...]:
    if part.kind == "shapes":
        return tuple(shapes.SPLITS)
    from dit_jax.data import records

    return tuple(records.manifest(_records(data, part))["splits"])


def _open(data: configs.Data, size: int, one: Split) -> Source:
    if one.part.kind == "shapes":
        count = data.shapes.length if one.name == data.train_split else data.shapes.eval_length
        drawn = dict(seed=data.shapes.seed, absent=data.shapes.absent)
        return shapes.Shapes(one.name, size=size, length=count, **drawn)
    from dit_jax.data import records  # TFDS takes seconds to import

    return records.Records(_records(data, one.part), one.name)


def _records(data: configs.Data, part: Part) -> Path:
    """The folder of a part's array records, built where it does not exist yet."""
    from dit_jax.data import prepare

    own = part.kind == "folder"
    return prepare.prepare(
        part.kind,
        "" if own else part.argument,
        source=part.argument if own else data.source,
        images=None if own or not data.images else data.images,
        out_dir=data.cache_dir,
    )

"""The data of a run: what is trained on, what is scored, and which pictures are in both."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from dit_jax import config as configs
from dit_jax.data import mix, shapes
from dit_jax.data.entries import CHOICES, Reading
from dit_jax.data.mix import Mix, Overlap, Part, Split
from dit_jax.data.pixels import Augmentation
from dit_jax.data.referent import Source
from dit_jax.strict import counted
from dit_jax.train.placement import watch


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
            f"Left out of the training data: {counted(self.dropped, 'referent')} of these pictures."
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


@dataclasses.dataclass(frozen=True)
class Scored:
    """One split that is scored, by the names that score files give it: "refcoco", "val"."""

    key: str  # as `data.eval_splits` says it
    dataset: str
    name: str
    split: Split
    open: Callable[[], Source]  # builds array records where they are not yet built


@dataclasses.dataclass(frozen=True)
class Datasets:
    """A config's data section, understood: what is trained on and what is scored."""

    section: configs.Data
    size: int  # of drawn pictures, in pixels
    parts: tuple[Part, ...]  # data sets that are trained on
    splits: tuple[Scored, ...]

    @staticmethod
    def of(section: configs.Data, *, size: int) -> "Datasets":
        """Opens nothing yet; see `check`."""
        default = dict(split_by=section.split_by, source=section.source)
        parts = mix.parse(section.dataset, **default)
        named = {key: mix.parse_split(key, parts, **default) for key in section.eval_splits}

        def scored(key: str, one: Split) -> Scored:
            dataset, opened = _label(one, named.values()), partial(_open, section, size, one)
            return Scored(key, dataset, one.name, one, opened)

        return Datasets(section, size, parts, tuple(map(scored, named, named.values())))

    @property
    def drawn(self) -> bool:
        """Whether only the embedded data set is trained on: no two of its splits share a scene."""
        return all(part.kind == "shapes" for part in self.parts)

    def check(self) -> None:
        """Open every split that is scored, so that what is wrong with one is said at once, and so
        are records that other hosts have otherwise."""
        for split in self.splits:
            split.open()
        watch.same(lambda: {f"records of {part}": self._digest(part) for part in self.parts})

    def _digest(self, part: Part) -> str:
        if part.kind == "shapes":
            return "drawn"
        from dit_jax.data import records

        built = records.manifest(_records(self.section, part))
        told = json.dumps([built[key] for key in ("entries", "reading", "files")], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:12]

    def augmentation(self) -> Augmentation:
        """The training pictures' variation; all scales, or full size only."""
        values = dataclasses.asdict(self.section.augmentation)
        scales = values.pop("scales")
        return Augmentation(**values) if scales else Augmentation(scales=(1.0,), **values)

    def training(self, *, allow_leak: bool) -> Training:
        """Everything that is trained on, without what is also evaluated on.

        Raises ValueError where the config keeps such pictures and `allow_leak` does not say so
        again.
        """
        data = self.section
        chosen = [Split(part, data.train_split) for part in self.parts]
        sources = {str(one): _open(data, self.size, one) for one in chosen}
        others = {str(one): _open(data, self.size, one) for one in self._held_out()}
        found = mix.overlap(sources, others)
        before = sum(map(len, sources.values()))
        if data.leaks == "drop":
            others = tuple(others.values())
            sources = {name: mix.without(source, others) for name, source in sources.items()}
        leaks = Leaks(data.leaks, found, before - sum(map(len, sources.values())))
        if leaks.pictures and data.leaks == "keep" and not allow_leak:
            raise ValueError(
                "data.leaks is 'keep', and pictures of the training data are also in evaluation"
                f" splits ({_named(found)}); expected data.leaks=drop, or --allow-leak as well."
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

    def _held_out(self) -> list[Split]:
        """Every split that is scored, and every other val or test split of the parts in use."""
        data, scored = self.section, [one.split for one in self.splits]
        used = dict.fromkeys([*self.parts, *(one.part for one in scored)])
        rest = [
            Split(part, name)
            for part in used
            for name in _split_names(data, part)
            if name not in ("train", data.train_split)
        ]
        return list(dict.fromkeys([*scored, *rest]))


def _label(split: Split, scored: Iterable[Split]) -> str:
    """A split's data set as score files name it: "refcoco".

    Where two parts of that name are scored, the partition is added.
    """
    name = split.part.label
    same = {one.part for one in scored if one.part.label == name}
    return f"{name}({split.part.argument.replace('/', '_')})" if len(same) > 1 else name


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
        reading=Reading(**{key: getattr(data, key) for key in CHOICES}),
        cache=data.local_cache,
    )

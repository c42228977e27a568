"""Whose workdir it is: the settings of the run that a folder holds, compared before it goes on.

Settings are a config's values by dotted key, as `dit_jax.strict.flatten` gives them and
`<workdir>/config.json` keeps them.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dit_jax import storage
from dit_jax.lease import Lease
from dit_jax.strict import few, printed
from dit_jax.train.placement import hosts

Settings = dict[str, Any]

CONFIG = "config.json"
OF_A_RUN = ("checkpoints", "model", "model_final")
# Keys that change no training step (but for rounding): a run may be continued with other values.
FREE = (
    "mesh.",
    *(
        "train.minutes",
        "train.log_every",
        "train.pictures",
        "train.max_nonfinite",
        "train.writers",
        "data.workers",
        "data.ahead_gb",
        "data.cache_features",
        "data.local_cache",
        "checkpoint.",
    ),
    *("probe.", "eval.bootstrap", "eval.predictions", "eval.false_alarm"),
    *("profile_steps", "compile_cache"),
)
# Keys that say what the score is that chooses the best checkpoint.
SCORING = (
    *("eval.best", "eval.threshold", "eval.presence_threshold", "data.eval_", "data.dataset"),
    *("data.split_by", "data.source", "data.crowds", "data.units", "data.orientation"),
    *("data.shapes.", "model.image_size", "model.text_", "model.mask_padding", "model.inject"),
    *("model.variant", "model.vocab"),
)
# Keys that say which model a run's checkpoints hold, its words included (`model.init` has their
# vocabulary), and those of them that only trained it.
OF_THE_MODEL = ("model.", "optim.ema", "optim.iou_weight")
OF_ITS_TRAINING = ("model.remat", "model.dropout")
# Keys that runs of dit_jax 0.1 may lack, and what those runs did.
FORMER = {
    "model.task": "text",
    "model.presence": False,
    "model.text_encoder": None,
    "model.inject_from": 0,
    "model.products": None,
    "data.images": "",
    "data.local_cache": "",
    "data.crowds": "keep",
    "data.units": "pixel",
    "data.orientation": "upright",
    "data.captions": "needed",
    "data.weights": [],
    "data.leaks": "drop",
    "data.on_error": "stop",
    "data.shapes.absent": 0.0,
    "optim.presence_weight": 0.1,
    "optim.iou_weight": 0.0,
    "optim.rounds": 8,
    "optim.click_share": 0.5,
    "eval.presence_threshold": 0.5,
}
# What a key that is None means while a run trains; runs of before say so.
UNSAID = {"eval.presence_threshold": 0.5}
RENAMED = {"train.seed": "seed"}


@contextlib.contextmanager
def held(workdir: Path, *, purpose: str, inside: tuple[str, ...]) -> Iterator[Lease]:
    """The workdir for this run alone: its first process holds the lease for all of them.

    Raises OSError, in every process, where another run has it, or where it or a folder `inside` it
    cannot be written; ValueError as `check_place` does.
    """
    check_place(workdir)
    lease = Lease(workdir, purpose=purpose, inside=inside)
    with contextlib.ExitStack() as stack:
        hosts.first(lambda: stack.enter_context(lease), raises=OSError)
        storage.pull(workdir)  # what another run wrote until it left
        yield lease
        storage.push(workdir)


def check_place(workdir: Path) -> None:
    """Raise ValueError for a folder of a run's in place of the run's."""
    place = Path(os.path.abspath(workdir))
    for part, run in list(zip([place, *place.parents], place.parents, strict=False))[:3]:
        if part.name not in OF_A_RUN:
            continue
        if storage.direct(run / CONFIG).is_file() and storage.direct(run / "checkpoints").is_dir():
            raise ValueError(f"{workdir} is a part of the run {run}; did you mean --workdir={run}?")


def write_settings(workdir: Path, settings: Settings) -> None:
    """Write the run's settings into its folder: `check_same` first, unless it is to be replaced."""
    hosts.sync("settings were compared")  # with those that are there, by every process
    if hosts.is_primary():
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / CONFIG, _plain(settings))
    hosts.sync("settings")


def check_same(workdir: Path, settings: Settings) -> None:
    """Raise ValueError naming the keys that the run had otherwise."""
    if changed := changes(workdir, settings, only=("",)):
        raise ValueError(
            f"{_another(workdir, changed)}; choose another --workdir, or continue it under the new"
            " config with --overwrite."
        )


def check_model(workdir: Path, settings: Settings) -> None:
    """Raise ValueError naming the keys by which the run's model is another one."""
    if changed := changes(workdir, settings, only=OF_THE_MODEL, but=OF_ITS_TRAINING):
        raise ValueError(
            f"{_another(workdir, changed)}; expected the run's own values, or its model directory"
            " in --model."
        )


def _another(workdir: Path, changed: Sequence[str]) -> str:
    return f"{workdir} holds a run of another config ({few(changed, 10, between='; ')})"


def changes(
    workdir: Path, settings: Settings, *, only: tuple[str, ...], but: tuple[str, ...] = ()
) -> list[str]:
    """Keys that start like one of `only`, and of none of `but`, and that the run had otherwise,
    with both values."""
    path, flat = workdir / CONFIG, _plain(settings)
    if not path.is_file():
        return []
    saved = FORMER | {RENAMED.get(key, key): value for key, value in read_json(path).items()}
    return [
        f"{printed(key)}: {_shown(saved, key)} → {_shown(flat, key)}"
        for key in sorted(saved.keys() | flat.keys())
        if _shown(saved, key) != _shown(flat, key)
        if key.startswith(only) and not key.startswith((*FREE, *but))
    ]


def write_json(path: Path, values: dict) -> None:
    """Whole or not at all."""
    unfinished = path.with_suffix(".json.tmp")
    unfinished.write_text(json.dumps(values, indent=2) + "\n")
    os.replace(unfinished, path)


def read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, no text at all, or nested too deeply
        raise ValueError(f"{path} is damaged: it is not JSON; remove it to go on.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} is damaged: it holds no keys and values; remove it to go on.")
    return values


def _plain(settings: Settings) -> Settings:
    """With tuples as the lists that JSON reads back."""
    return json.loads(json.dumps(settings))


def _shown(flat: Settings, key: str) -> str:
    if key not in flat:
        return "(no such key)"
    return json.dumps(UNSAID.get(key) if flat[key] is None else flat[key])

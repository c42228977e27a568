"""Where curves are looked at while a run trains: TensorBoard and Weights & Biases.

`metrics.jsonl` is what a run says; a board shows its lines. It is given all of them at every start,
as those of a run that was killed may be missing there, and then each new one.
"""

import contextlib
import importlib.util
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from tensorboardX import SummaryWriter

FOLDER = "wandb"  # of a run
PATIENCE = (
    60.0  # seconds at the end of a run for what W&B has not received; `wandb sync` sends it later
)


class Board(Protocol):
    def add(self, step: int, values: dict[str, float]) -> None: ...

    def flush(self) -> None: ...

    def close(self, *, failed: bool) -> None: ...


class TensorBoard:
    """Anew at every start: its files cannot be continued where a kill left them."""

    def __init__(self, workdir: Path):
        folder = workdir / "tensorboard"
        for former in folder.glob("events.*"):
            former.unlink()
        self._board = SummaryWriter(str(folder))

    def add(self, step: int, values: dict[str, float]) -> None:
        for key, value in values.items():
            self._board.add_scalar(key, value, step)

    def flush(self) -> None:
        self._board.flush()

    def close(self, *, failed: bool) -> None:
        self._board.close()


class WeightsAndBiases:
    """The same W&B run at every start of a run; `WANDB_*` of the environment decide the rest.

    A process of W&B's own sends what is added, so that no step waits for the network.
    """

    def __init__(self, workdir: Path):
        import wandb

        settings = workdir / "config.json"
        with said():
            self._run = wandb.init(
                dir=workdir,
                id=run_id(workdir),
                resume="allow",
                project=os.environ.get("WANDB_PROJECT", "dit_jax"),
                name=os.environ.get("WANDB_NAME", workdir.name),
                config=json.loads(settings.read_text()) if settings.is_file() else None,
                allow_val_change=True,
                # Off are the progress bar's lines.
                settings=wandb.Settings(console="off", finish_timeout=PATIENCE),
            )
        self._first = self._run.step  # what came before, W&B has

    def add(self, step: int, values: dict[str, float]) -> None:
        if step >= self._first:
            self._run.log(values, step=step)

    def flush(self) -> None:
        """Nothing: what is added is on its way."""

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


BOARDS = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def check(names: tuple[str, ...]) -> None:
    """Raise ValueError where a writer's package is missing, or it knows no account."""
    if "wandb" not in names:
        return
    if importlib.util.find_spec("wandb") is None:
        raise ValueError(
            "train.writers names wandb, which is missing: pip install 'dit_jax[wandb]'."
        )
    import wandb

    if wandb.setup().settings.mode in ("online", "shared"):
        with said():
            wandb.login(verify=False)


@contextlib.contextmanager
def said() -> Iterator[None]:
    """What W&B refuses as one ValueError."""
    import wandb

    try:
        yield
    except wandb.Error as error:
        raise ValueError(
            f"train.writers names wandb, and W&B says: {' '.join(str(error).split())}"
            " With WANDB_MODE=offline, the run is written to disk, for `wandb sync`."
        ) from error


def run_id(workdir: Path) -> str:
    """Drawn once and kept in the run's folder, which may be copied and continued elsewhere."""
    path = workdir / FOLDER / "run_id"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(4), encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()

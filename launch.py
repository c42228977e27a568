"""Train, evaluate, probe or export a text-guided SAM.

    python launch.py --config=configs/quickstart.py --workdir=runs/quickstart
    python launch.py --config=FILE[:ARGS] --workdir=DIR [--mode=train|eval|probe] \\
        [--config.key=value …]

The same command continues a run that was stopped. `--mode=eval` scores `--model=DIR`, or the
run's best checkpoint, on the config's evaluation splits, and writes `WORKDIR/eval/*.json`;
`--mode=probe` asks the same model whether it reads the words, and writes `WORKDIR/probe/*`.

    python launch.py --mode=export --model=DIR --format=stablehlo|onnx|safetensors --out=DIR
    python launch.py --mode=export --model=DIR --format=pack --base=DIR --out=DIR

hand a model on: docs/deploy.md.
"""

import dataclasses
import re
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from dit_jax.config import Config
from dit_jax.strict import one_of
from dit_jax.train.allocator import keep_freed_memory

CONFIG = config_flags.DEFINE_config_file("config", None, "FILE[:ARGS], e.g. configs/quickstart.py")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, scores, pictures.")
MODE = flags.DEFINE_string("mode", "train", "What to do.")
MODEL = flags.DEFINE_string("model", None, "Model directory to look at, instead of the run's best.")
OUT = flags.DEFINE_string("out", None, "Folder to write; it must be empty or not there.")
FORMAT = flags.DEFINE_string("format", None, "stablehlo, onnx, safetensors (all of it) or pack.")
BASE = flags.DEFINE_string("base", None, "Model directory that a pack is made from, or made for.")
LICENCE = flags.DEFINE_string("licence", None, "Of the exported model, e.g. Apache-2.0.")
SCORES = flags.DEFINE_string("scores", None, "Workdir with eval/*.json of the exported model.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Continue a run under a config that changed.")
ALLOW_LEAK = flags.DEFINE_bool(
    "allow_leak", False, "Train on pictures of evaluation splits where data.leaks=keep."
)
TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where an error came from.")

USER_ERRORS = (ValueError, OSError, ModuleNotFoundError, flags.Error)
HINTS = {"model": "; to train from one, use --config.model.init.model=DIR"}
HELP = ("--help", "-help", "-h")


@dataclasses.dataclass(frozen=True)
class Mode:
    """What `--mode` can be: the flags that it needs and those that it may be given."""

    run: Callable[[], None]
    needs: tuple[str, ...]
    takes: tuple[str, ...] = ()


def train() -> None:
    from dit_jax.train import loop  # JAX and Orbax take seconds to import

    how = dict(overwrite=OVERWRITE.value, allow_leak=ALLOW_LEAK.value)
    loop.train(config(), Path(WORKDIR.value), **how)


def evaluate() -> None:
    from dit_jax.train import scoring

    scoring.score(config(), Path(WORKDIR.value), model_dir=model_dir())


def probe() -> None:
    from dit_jax.train import probing

    probing.probe(config(), Path(WORKDIR.value), model_dir=model_dir())


def export() -> None:
    from dit_jax.export import formats

    form, out = FORMAT.value, Path(OUT.value)
    about = dict(base=folder(BASE), licence=LICENCE.value, scored=folder(SCORES))
    noted = formats.export(Path(MODEL.value), out, form=form, **about)
    print(f"{out}: {len(noted.files)} files, {noted.bytes / 1e6:,.1f} MB; finish its README.md.")


MODES = {
    "train": Mode(train, needs=("config", "workdir"), takes=("overwrite", "allow_leak")),
    "eval": Mode(evaluate, needs=("config", "workdir"), takes=("model",)),
    "probe": Mode(probe, needs=("config", "workdir"), takes=("model",)),
    "export": Mode(export, needs=("model", "format", "out"), takes=("base", "licence", "scores")),
}


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise ValueError(f"unexpected argument {argv[1]!r}; every setting is a --flag=value.")
    one_of("--mode", MODE.value, tuple(MODES))
    mode = MODES[MODE.value]
    check_flags(mode)
    keep_freed_memory()
    mode.run()


def check_flags(mode: Mode) -> None:
    """Raise ValueError where a flag is missing, or was given to a mode that does not read it."""
    missing = [name for name in mode.needs if not flags.FLAGS[name].value]
    if missing:
        expected = " and ".join(f"--{name}" for name in missing)
        raise ValueError(f"--mode={MODE.value} expected {expected}; see --help.")
    ours = {name for other in MODES.values() for name in (*other.needs, *other.takes)}
    for name in sorted(ours - {*mode.needs, *mode.takes}):
        if flags.FLAGS[name].present:
            raise ValueError(f"--mode={MODE.value} does not read --{name}{HINTS.get(name, '')}.")


def config() -> Config:
    """The config file with the command line's changes, checked."""
    file = Path(config_flags.get_config_filename(flags.FLAGS["config"]).split(":", 1)[0])
    if not file.is_file():
        raise FileNotFoundError(f"no such config file: {file}.")
    return Config.from_dict(CONFIG.value)


def model_dir() -> Path | None:
    return folder(MODEL)


def folder(flag: flags.FlagHolder) -> Path | None:
    return Path(flag.value) if flag.value else None


def run(argv: list[str]) -> int:
    """The exit status; a user's mistake is one sentence on standard error."""
    logging.set_verbosity(logging.WARNING)
    if any(word in HELP for word in argv[1:]):
        print(f"{__doc__}\n{flags.FLAGS.main_module_help()}")
        return 0
    try:
        main(parse(argv))
    except KeyboardInterrupt:
        print("Interrupted; nothing that was saved is lost.", file=sys.stderr)
        return 128 + signal.SIGINT
    except USER_ERRORS as error:
        if TRACEBACK.present and TRACEBACK.value:
            traceback.print_exc()
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 1
    return 0


def parse(argv: list[str]) -> list[str]:
    """Read the flags; raises ValueError for a --config.key that the config does not have."""
    argv = [re.sub(r"^(--?(?:no)?)allow-leak\b", r"\1allow_leak", word) for word in argv]
    try:
        return flags.FLAGS(argv)
    except (AttributeError, KeyError) as error:
        unknown = re.search(r"'(\w+)", str(error.args[0]))[1]
        near = re.search(r'mean "(\w+)"', str(error.args[0]))
        named = [word for word in argv if re.match(rf"--?config\..*\b{unknown}\b", word)]
        hint = f"; the nearest valid key is {near[1]}" if near else ""
        raise ValueError(f"unknown key {unknown!r} in {' '.join(named)}{hint}.") from error


def sentence(error: Exception) -> str:
    """The message in one line; of the config library's report around it, the last line."""
    text = str(error).strip()
    if "parsing config file" in text or text.startswith("Configuration is not available"):
        text = re.sub(r"^(\w+Error: |\[Errno \d+\] )", "", text.splitlines()[-1].strip())
    return " ".join(text.splitlines())


if __name__ == "__main__":
    sys.exit(run(sys.argv))

"""Train, evaluate, probe, plan, use or export a text-guided SAM.

    python launch.py --config=configs/quickstart.py --workdir=runs/quickstart
    python launch.py --config=FILE[:ARGS] --workdir=DIR [--mode=train|eval|probe|calibrate|plan] \\
        [--config.key=value …]
    python launch.py --mode=predict --model=DIR --images=… --text=… --out=DIR
    python launch.py --mode=label --model=DIR --images=… --ontology=FILE --format=… --out=DIR
    python launch.py --mode=everything --model=DIR --images=… --out=DIR
    python launch.py --mode=demo [--model=DIR] [--port=8000]
    python launch.py --mode=serve --model=DIR [--host=127.0.0.1] [--port=8000]
    python launch.py --mode=export --model=DIR --format=stablehlo|onnx|safetensors|pack --out=DIR

The same command continues a run that was stopped. `--mode=eval` scores `--model=DIR`, or the
run's best checkpoint, on the config's evaluation splits, and writes `WORKDIR/eval/*.json`;
`--mode=probe` asks the same model whether it reads the words, and writes `WORKDIR/probe/*`;
`--mode=calibrate` chooses when the model in `--model=DIR`, or the run's, says "nothing like that";
`--mode=plan` says whether training fits into `--devices` devices (of kind `--target`) of
`--hbm_gb` each, and what to change if not, and needs no data, weights or workdir;
`--mode=predict` writes masks of your own pictures, `--mode=label` the files of annotation tools,
`--mode=everything` all that is in them, `--mode=serve` answers programs and browsers,
`--mode=demo` is that for one person, with a page to try the model on, `--mode=export` hands it on.
`python launch.py MODE …` is the same, and so is, installed, `dit-jax MODE …`. Behind either,
`convert …` is `python -m convert …`; `figures`, `prepare`, `score` and `push` are
`python -m dit_jax.figures`, `dit_jax.data.prepare`, `.eval.score` and `.weights.push`.
"""

import dataclasses
import functools
import importlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags, logging
from ml_collections import config_flags

from dit_jax import config_file, on_pictures, storage
from dit_jax.allocator import keep_freed_memory
from dit_jax.lease import FULL
from dit_jax.strict import flatten, one_of
from dit_jax.version import VERSION

if TYPE_CHECKING:
    from dit_jax.config import Config

CONFIG = config_flags.DEFINE_config_file("config", None, "FILE[:ARGS], e.g. configs/quickstart.py")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, scores, pictures.")
MODE = flags.DEFINE_string("mode", "train", "What to do.")
MODEL = flags.DEFINE_string("model", None, "Model directory to look at, instead of the run's best.")
OUT = flags.DEFINE_string("out", None, "Folder to write into.")
IMAGES = flags.DEFINE_multi_string(
    "images", [], "A picture, a folder of pictures or a pattern like 'a/*.jpg'; may be repeated."
)
SKIP_BROKEN = flags.DEFINE_bool(
    "skip_broken", False, "Leave out pictures that cannot be read, and say which."
)
OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Continue a run under a config that changed; write into a full --out."
)
HOST = flags.DEFINE_string("host", "127.0.0.1", "Where the server listens.")
PORT = flags.DEFINE_integer("port", 8000, "The server's port; 0 is any free one.")
BATCH = flags.DEFINE_integer("batch", 8, "serve: masks that are computed together at most.", 1)
DEADLINE = flags.DEFINE_float("deadline", 60.0, "serve: seconds that a request may take.", 1.0)
QUEUE = flags.DEFINE_integer("queue", 64, "serve: questions inside; the next is refused.", 1)
ALLOW_SWAP = flags.DEFINE_bool("allow_swap", False, "serve: clients may load another model.")
FORMAT = flags.DEFINE_string(
    "format",
    None,
    "export: stablehlo, onnx, safetensors (all of it) or pack; label: coco, yolo, labelme or voc.",
)
BASE = flags.DEFINE_string("base", None, "Model directory that a pack is made from, or made for.")
LICENSE = flags.DEFINE_string("license", None, "Of the exported model, e.g. Apache-2.0.")
SCORES = flags.DEFINE_string("scores", None, "Workdir with eval/*.json of the exported model.")
ALLOW_LEAK = flags.DEFINE_bool(
    "allow_leak", False, "Train on pictures of evaluation splits where data.leaks=keep."
)
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0; found by itself on Cloud TPU, SLURM, Open MPI."
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes share the run.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
HBM_GB = flags.DEFINE_float("hbm_gb", 80.0, "plan: memory of one device, in 10^9 bytes.")
DEVICES = flags.DEFINE_integer("devices", 0, "plan: for how many devices; 0 = those that are here.")
TARGET = flags.DEFINE_string(
    "target", "", "plan: v5e, v5p, v6e, a100, h100 or h200, by its own compiler; none is needed."
)
COMPILE = flags.DEFINE_bool("compile", True, "plan: ask the compiler, or only count.")
TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where an error came from.")

STOPPED = 75  # the run was stopped, and the same command continues (sysexits.h: EX_TEMPFAIL)
USER_ERRORS = (ValueError, OSError, ModuleNotFoundError, flags.Error)
HINTS = {"model": "; to train from one, use --config.model.init.model=DIR"}
HELP = ("--help", "-help", "-h")
VERSIONED = ("--version", "-version")
PROGRAMS = {
    "convert": "dit_jax.convert.__main__",
    "figures": "dit_jax.figures.__main__",
    "prepare": "dit_jax.data.prepare",
    "push": "dit_jax.weights.push",
    "score": "dit_jax.eval.score",
}
# Flags that name files; `--flag=~/x` is not expanded by every shell.
PATHS = (
    "config",
    "workdir",
    "model",
    "out",
    "images",
    "pairs",
    "mask",
    "ontology",
    "base",
    "scores",
)
# JAX_PLATFORMS → what brings that kind of device.
PLATFORMS = {"cuda": "cuda", "gpu": "cuda", "tpu": "tpu"}


@dataclasses.dataclass(frozen=True)
class Mode:
    """What `--mode` can be: the flags that it needs and those that it may be given."""

    run: Callable[[], int | None]  # gives an exit status; None is 0
    needs: tuple[str, ...]
    takes: tuple[str, ...] = ()
    joins: bool = False  # the other processes of a cluster, before JAX starts


def train() -> int:
    from dit_jax.train import logs, loop  # JAX and Orbax take seconds to import
    from dit_jax.train.placement import compile_cache

    if not TRACEBACK.value:
        logs.drop_duplicate_errors()
    how = dict(overwrite=OVERWRITE.value, allow_leak=ALLOW_LEAK.value)
    settings = config()
    with storage.written(WORKDIR.value) as workdir:
        compile_cache.keep_compiled(settings.compile_cache, workdir)
        return 0 if loop.train(settings, workdir, **how) else STOPPED


def asked(module: str, name: str) -> Callable[[], None]:
    """What asks a trained model about the evaluation splits of a config."""

    def ask() -> None:
        function = getattr(importlib.import_module(f"dit_jax.train.{module}"), name)
        with storage.written(WORKDIR.value) as workdir:
            function(config(), workdir, model_dir=model_dir())

    return ask


def calibrate() -> None:
    """Raises ValueError where the threshold would be stored in a copy that is not the user's."""
    given = MODEL.value or f"{WORKDIR.value}/model"
    if storage.parse(given) or (MODEL.value and model_dir() != Path(given)):
        raise ValueError(
            f"--mode=calibrate stores its threshold in the model, and {given} is no folder of this"
            f" machine; expected one in --model: --mode=export --model={given} --format=safetensors"
            " --out=DIR writes it."
        )
    asked("calibrating", "calibrate")()


def _about_pictures(ask: Callable[..., None]) -> None:
    with storage.written(OUT.value) as out:
        images = [str(storage.local(name)) for name in IMAGES.value]
        how = dict(skip_broken=SKIP_BROKEN.value, overwrite=OVERWRITE.value)
        ask(model_dir(), out, images=images, form=FORMAT.value, **how)


def serve() -> None:
    from dit_jax.serve import server

    batch = 1 if MODE.value == "demo" else BATCH.value  # one person: less to compile
    limits = dict(batch=batch, deadline=DEADLINE.value, most=QUEUE.value)
    where = dict(host=HOST.value, port=PORT.value)
    server.serve(MODEL.value, **where, **limits, allow_swap=ALLOW_SWAP.value)


def export() -> None:
    from dit_jax.export import formats

    scored = storage.local(f"{SCORES.value}/eval").parent if SCORES.value else None
    about = dict(base=on_hub(BASE), license=LICENSE.value, scored=scored)
    with storage.written(OUT.value) as out:
        noted = formats.export(model_dir(), out, form=FORMAT.value, **about)
    size = f"{len(noted.files)} files, {noted.bytes / 1e6:,.1f} MB"
    print(f"{OUT.value}: {size}; finish its README.md.")


def plan() -> None:
    from dit_jax import plan

    how = dict(hbm_gb=HBM_GB.value, devices=DEVICES.value, target=TARGET.value)
    plan.plan(config(), **how, compiled=COMPILE.value)


ON_SPLITS = dict(needs=("config", "workdir"), takes=("model",))
OF_PROCESSES = ("coordinator", "num_processes", "process_id")
OF_TRAINING = ("overwrite", "allow_leak", *OF_PROCESSES)
MODES = {
    "train": Mode(train, needs=("config", "workdir"), takes=OF_TRAINING, joins=True),
    "eval": Mode(
        asked("scoring", "score"),
        needs=("config", "workdir"),
        takes=("model", *OF_PROCESSES),
        joins=True,
    ),
    "probe": Mode(asked("probing", "probe"), **ON_SPLITS),
    "calibrate": Mode(calibrate, **ON_SPLITS),
    **{
        name: Mode(
            functools.partial(_about_pictures, mode.run),
            needs=("model", "out", *mode.needs),
            takes=(*mode.takes, "skip_broken", "overwrite"),
        )
        for name, mode in on_pictures.MODES.items()
    },
    "demo": Mode(serve, needs=(), takes=("model", "host", "port")),
    "serve": Mode(
        serve,
        needs=("model",),
        takes=("host", "port", "batch", "deadline", "queue", "allow_swap"),
    ),
    "export": Mode(export, needs=("model", "format", "out"), takes=("base", "license", "scores")),
    # Also takes what a training command says, which may be asked about as it is.
    "plan": Mode(
        plan,
        needs=("config",),
        takes=("hbm_gb", "devices", "target", "compile", "workdir", *OF_TRAINING),
    ),
}


def main(argv: list[str]) -> int:
    if len(argv) > 1:
        hint = " A mode stands first." if argv[1] in (*MODES, *PROGRAMS) else ""
        said = f"unexpected argument {argv[1]!r}; every setting is a --flag=value.{hint}"
        raise ValueError(said)
    one_of("--mode", MODE.value, tuple(MODES))
    mode = MODES[MODE.value]
    check_flags(mode)
    if MODE.value != "plan":  # which reads and writes nothing
        check_places(mode)
    keep_freed_memory()
    if mode.joins:
        from dit_jax.train.logs import provenance
        from dit_jax.train.placement import cluster, watch

        where = dict(coordinator=COORDINATOR.value, num_processes=NUM_PROCESSES.value)
        cluster.join(**where, process_id=PROCESS_ID.value)
        with watch.together(sentence):
            watch.same(lambda: command_says() | provenance.code())
            check_devices()
            return mode.run() or 0
    if MODE.value != "plan":  # which may be for devices that are elsewhere
        check_devices()
    return mode.run() or 0


def check_devices() -> None:
    """Raise ValueError where JAX_PLATFORMS asks for devices that are not here."""
    asked = os.environ.get("JAX_PLATFORMS")
    if not asked:
        return
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter of "cuda" without its plugin
        extra = next((PLATFORMS[name] for name in asked.split(",") if name in PLATFORMS), None)
        hint = f"; for one, pip install 'dit_jax[{extra}]'" if extra else ""
        raise ValueError(
            f"JAX_PLATFORMS is {asked!r}, and this Python finds no such device{hint}; without"
            " JAX_PLATFORMS, or with JAX_PLATFORMS=cpu, this runs on the CPU."
        ) from error


def command_says() -> dict[str, str]:
    """What the command says, which has to be the same on every host."""
    flat = {f"--config.{key}": str(value) for key, value in flatten(config()).items()}
    return flat | {
        f"--{name}": str(flags.FLAGS[name].value) for name in ("mode", "model", "workdir")
    }


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


def check_places(mode: Mode) -> None:
    """Raise ValueError or ModuleNotFoundError where a bucket is named that cannot be opened."""
    given = [str(flags.FLAGS[name].value) for name in PATHS if name != "config"]
    if "config" in mode.needs:
        given += map(str, flatten(config()).values())
    for place in storage.places_in("\n".join(given)):
        storage.check(place)


def config() -> "Config":
    """The config file with the command line's changes, checked."""
    from dit_jax.config import Config  # and with it JAX, which `--help` does without

    return Config.from_dict(CONFIG.value)


def model_dir() -> Path | None:
    return on_hub(MODEL)


def on_hub(flag: flags.FlagHolder) -> Path | None:
    """As `folder`, of a flag that may name a model on Hugging Face's hub."""
    from dit_jax.weights import hub

    return hub.local(flag.value) if flag.value else None


def console() -> int:
    """The command `dit-jax`, which without a word says what it can do."""
    return run([*sys.argv, *(HELP[:1] if len(sys.argv) == 1 else ())])


def run(argv: list[str]) -> int:
    """`--flag=value …`, `MODE --flag=value …`, or one of the `PROGRAMS` and its words.

    The exit status; a user's mistake is one sentence on standard error.
    """
    logging.set_verbosity(logging.WARNING)
    name, *words = argv
    if any(word in VERSIONED for word in words):
        print(f"dit_jax {VERSION}")
        return 0
    if words and words[0] in PROGRAMS:
        program = importlib.import_module(PROGRAMS[words[0]])
        return _sentences(lambda: check_devices() or program.main(words[1:]) or 0)
    if words and not words[0].startswith("-"):
        if words[0] not in MODES and words[0] != "help":
            known = (*MODES, *PROGRAMS)
            return _sentences(lambda: one_of("the command", words[0], known) or 1)
        words[0] = "--help" if words[0] == "help" else f"--mode={words[0]}"
    if any(word in HELP for word in words):
        known = map(flags.FLAGS.module_help, (sys.modules[__name__], on_pictures))
        print("\n".join([__doc__, *known]))
        return 0
    return _sentences(lambda: main(parse([name, *words])))


def _sentences(program: Callable[[], int]) -> int:
    """The program's exit status; a user's mistake is one sentence on standard error."""
    try:
        return program()
    except KeyboardInterrupt:
        print("Interrupted; nothing that was saved is lost.", file=sys.stderr)
        return 128 + signal.SIGINT
    except USER_ERRORS as error:
        if TRACEBACK.present and TRACEBACK.value:
            traceback.print_exc()
        print(f"error: {storage.shown(sentence(error))}", file=sys.stderr)
        return 1


def parse(argv: list[str]) -> list[str]:
    """Read the flags; raises ValueError for a --config.key that the config does not have."""
    argv = [argv[0], *map(underscored, argv[1:])]
    argv = config_file.joined([_expanded(word) for word in argv])
    file = config_file.named(argv)
    try:
        rest = flags.FLAGS(argv)
    except Exception as error:
        if file is not None and (said := config_file.mistake(error, file)):
            raise ValueError(said) from error
        if not isinstance(error, (AttributeError, KeyError)):
            raise
        raise ValueError(config_file.unknown_key(error, argv)) from error
    if file is not None:
        config_file.check(CONFIG.value, file)
    return rest


def _expanded(word: str) -> str:
    """`--workdir=~/runs`, as a shell would have it."""
    name, equals, value = word.partition("=")
    if value.startswith("~") and (name.lstrip("-") in PATHS or name.startswith("--config.")):
        return name + equals + os.path.expanduser(value)
    return word


def underscored(word: str) -> str:
    """`--allow-leak` for `--allow_leak`: both spellings of a flag's name are understood."""
    name, equals, value = word.partition("=")
    if name.startswith("-") and "." not in name:
        name = name[:2] + name[2:].replace("-", "_")
    return name + equals + value


def sentence(error: Exception) -> str:
    """The message in one line; of the config library's report around it, the last line."""
    text = str(error).strip()
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror}."
        if error.errno in FULL:
            text += " Nothing that was saved is lost; with more room, the same command goes on."
    if "parsing config file" in text or text.startswith("Configuration is not available"):
        text = re.sub(r"^(\w+Error: |\[Errno \d+\] )", "", text.splitlines()[-1].strip())
    return " ".join(text.splitlines())

"""What is measured, in which order, and by which worker."""

import dataclasses
import importlib
import itertools
from collections.abc import Callable

Keys = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Part:
    """One question.

    Args:
      worker: a module of this folder, asked for keys.
      keys: the most valuable first.
      small: keys of the self-test, on a CPU.
      needs: modules without which it is skipped.
      limit: seconds without an answer after which a worker is given up.
      env: what its process is told besides.
    """

    worker: str
    keys: Keys | Callable[[], Keys]
    small: Keys
    needs: Keys = ()
    limit: float = 240
    env: dict[str, str] = dataclasses.field(default_factory=dict)

    def asked(self, *, small: bool) -> Keys:
        if small:
            return self.small
        return self.keys() if callable(self.keys) else self.keys

    def lacks(self) -> str | None:
        """Why it cannot run here."""
        try:
            for module in self.needs:
                importlib.import_module(module)
        except ImportError as error:
            return str(error)


def kernels() -> Keys:
    """512 px before 1024, ViT-B before ViT-H."""
    names = itertools.product(
        ("512", "1024"),
        ("vit_b", "vit_h"),
        WAYS,
        ("text", "hidden", "none"),
    )
    half = [f"{way} {row} {size} {text} bfloat16" for size, row, way, text in names]
    norms = [
        f"layer_norm {way} {row} bfloat16" for way in NORMS for row in ("vit_b", "vit_l", "vit_h")
    ]
    sides = itertools.product(("cudnn", "pallas"), ("vit_b", "vit_h"))
    carried = [f"{way} {row} 512 carried bfloat16" for way, row in sides]
    whole = [f"pallas {row} 512 text float32" for row in ("vit_b", "vit_h")]
    return (*half[:24], *norms, *carried, *whole, *half[24:])


def missing_rows() -> Keys:
    from benchmarks.gpu_day import rows  # what it needs may not be there

    return tuple(rows.missing())


def timed(*ways: str, rows: Keys) -> Keys:
    return tuple(f"{row} {what} {way}" for row, way, what in itertools.product(rows, ways, WHAT))


WHAT = ("training", "forward")
VITS = ("ldit_vit_b", "ldit_vit_h")
WAYS = ("packed", "mosaic", "cudnn", "pallas")  # of attention
NORMS = ("triton", "mosaic")  # kernels of LayerNorm
ALL_OF_IT = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95"}
SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
TRAINS = ("dit_jax.cli", "dit_jax.train.run", "dit_jax.train.loop")

PARTS = {
    "kernels": Part(
        worker="kernels",
        keys=kernels,
        small=(
            "packed tiny 256 hidden float32",
            "pallas tiny 128 carried float32",
            "layer_norm triton tiny bfloat16",
        ),
    ),
    "speed": Part(
        worker="speed",
        keys=(
            "ldit_vit_b training none",
            "ldit_vit_b forward none",
            "ldit_vit_b training dots",  # GELU and norms computed again instead of read
            "ldit_vit_h forward none",
            "ldit_vit_h training scan",
            "ldit_vit_h training dots",
            "ldit_vit_h training none",
            *(f"{row} {what} fp8" for row in VITS for what in WHAT),
        ),
        small=(
            "tiny training none",
            "tiny forward none",
            "tiny training scan",
            "tiny training fp8",
        ),
        limit=360,
        env=ALL_OF_IT,
    ),
    "torch": Part(
        worker="torch_speed",
        keys=(
            *timed("folded", "cudnn", rows=VITS[:1]),
            *timed("folded", "cudnn", rows=VITS[1:]),
            *timed("cudnn_fused", "fused", rows=VITS),
        ),
        small=timed("folded", "fused", rows=("tiny",)),
        needs=("torch",),
    ),
    "run": Part(
        worker="runs",
        keys=("quickstart", "mini"),
        small=("quickstart at 64 px",),
        needs=TRAINS,
        limit=900,
    ),
    "kills": Part(
        worker="runs", keys=("kill -9",), small=("kill -9 at 64 px",), needs=TRAINS, limit=600
    ),
    "attention": Part(
        worker="kernels",
        keys=tuple(
            f"timed {way} {row} 512"
            for row, way in itertools.product(
                ("vit_b", "vit_h"), (*WAYS, *(f"layer_norm_{way}" for way in (*NORMS, "xla")))
            )
        ),
        small=("timed by_head tiny 128", "timed layer_norm_xla tiny 128"),
    ),
    "rows": Part(
        worker="rows",
        keys=missing_rows,
        small=("self-test",),
        needs=(*TRAINS, "experiments.together"),
        limit=900,
        env=SHARED,
    ),
}

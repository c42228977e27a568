"""What a frozen encoder makes of each picture before its text: computed once, then read from disk.

Text enters at block `model.inject_from`; up to there a frozen encoder gives the same numbers in
every epoch, as long as pictures are not varied. They lie in `data.cache_features`, one file of
numbers and one that says whose they are. Another run of the same pictures and weights uses them
again; a computation that was stopped goes on.
"""

import hashlib
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float, Int

from dit_jax import config as configs
from dit_jax import storage
from dit_jax.lease import Lease
from dit_jax.models import params as parameters
from dit_jax.models.architecture import PATCH, Architecture
from dit_jax.models.params import Params
from dit_jax.ops.arrays import Array
from dit_jax.ops.mesh import use_mesh
from dit_jax.ops.pixels import normalize
from dit_jax.ops.platform import compiler_options
from dit_jax.strict import flatten
from dit_jax.train.placement import hosts
from dit_jax.train.run import Run
from dit_jax.train.stop import Stop, Stopped
from dit_jax.train.workdir import read_json, write_json

NUMBERS, ABOUT = "features.bin", "features.json"
LOOKED_AT = 8  # pictures, whatever their number
NEW = ("injector.", "prob_text.")  # parameters of the encoder that come with the text


def check(config: configs.Config) -> None:
    """Raise ValueError where features would not be the same in every epoch, or where none are."""
    flat = flatten(config)
    wrong = {
        "model.freeze": "image_encoder" not in config.freeze() and "expected image_encoder in it",
        "model.inject_from": not config.architecture().inject_from and "expected 1 or more",
        "data.on_error": config.data.on_error != "stop" and "expected stop",
        **{
            f"data.augmentation.{key}": flat[f"data.augmentation.{key}"] and "expected 0 or false"
            for key in ("scales", "jitter_p", "blur_p", "flip_p")
        },
    }
    for key, expected in wrong.items():
        if expected:
            raise ValueError(
                f"data.cache_features keeps what a frozen encoder makes of unvaried pictures, and"
                f" {key} is {flat[key]}; {expected}."
            )
    if storage.parse(config.data.cache_features) is not None:
        raise ValueError(
            f"data.cache_features is {config.data.cache_features}; expected a folder of this"
            " machine, where it is read at random."
        )
    if jax.process_count() > 1:
        raise ValueError("data.cache_features works in one process; expected it empty on many.")


class Features:
    """Features of the pictures that `batch["index"]` names, from a folder on disk."""

    def __init__(self, run: Run, params: Params, stop: Stop):
        """Computes what is not there yet; raises Stopped where it is to stop before that.

        Raises ValueError where the folder holds others', OSError where the disk is too small, or
        another run computes features there.
        """
        arch, folder = run.model.arch, Path(run.config.data.cache_features).expanduser()
        pictures = run.batches.image_ids()
        _, first, self._picture = np.unique(pictures, return_index=True, return_inverse=True)
        side = arch.image_size // PATCH
        shape, dtype = (len(first), side, side, arch.vit.width), jnp.dtype(arch.dtype)
        about = identity(pictures, params, arch) | {"shape": list(shape)}
        about["pixels"] = _some_pixels(run, first)
        done = _known(folder, about)
        if not done:
            _check_space(folder, math.prod(shape) * dtype.itemsize)
        if done < len(first):
            with Lease(folder, purpose="computing features") as lease:
                done = _known(folder, about)  # by now
                logging.info("Computing features of %d pictures, once.", len(first) - done)
                table = np.memmap(folder / NUMBERS, dtype, "r+" if done else "w+", shape=shape)
                for rows in _computed(run, params, first[done:]):
                    lease.check()
                    table[done : done + len(rows)] = rows
                    table.flush()
                    done += len(rows)
                    write_json(folder / ABOUT, about | {"done": done})
                    if done < len(first) and (stop.asked or stop.late):
                        raise Stopped
        self._table = np.memmap(folder / NUMBERS, dtype, "r", shape=shape)

    def __call__(self, index: Int[np.ndarray, " b"]) -> Float[np.ndarray, "b h w d"]:
        return self._table[self._picture[index]]


def identity(pictures: Int[np.ndarray, " n"], params: Params, arch: Architecture) -> dict[str, Any]:
    """What tells these features from others: pictures, weights, where text enters, precision."""
    weights = hashlib.sha256()
    for path, value in sorted(parameters.flatten(params["image_encoder"]).items()):
        if not path.startswith(NEW):
            weights.update(path.encode() + np.asarray(value).tobytes())
    return {
        "pictures": hashlib.sha256(pictures.tobytes()).hexdigest(),
        "weights": weights.hexdigest(),
        "blocks": arch.inject_from,
        "dtype": arch.dtype,
        "products": arch.products,
    }


def _some_pixels(run: Run, referents: Int[np.ndarray, " n"]) -> str:
    """A hash of a few pictures as the encoder sees them: their numbers alone do not tell drawings
    of another seed, another folder of COCO's numbers, or files that are turned otherwise."""
    digest = hashlib.sha256()
    for place in np.unique(np.linspace(0, len(referents) - 1, LOOKED_AT).round().astype(int)):
        image, content = run.batches.picture(int(referents[place]))
        digest.update(content.tobytes() + image.tobytes())
    return digest.hexdigest()


def _known(folder: Path, about: dict[str, Any]) -> int:
    """How many pictures' features are there; raises ValueError where they are not ours."""
    if not (folder / ABOUT).is_file():
        return 0
    found = read_json(folder / ABOUT)
    if other := [key for key, value in about.items() if found.get(key) != value]:
        raise ValueError(
            f"{folder} holds features of other {', '.join(other)}; expected another folder in"
            " data.cache_features, or an empty one."
        )
    return found["done"]


def _check_space(folder: Path, needed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"data.cache_features needs {needed / 1e9:.3g} GB in {folder}, and {free / 1e9:.3g} GB"
            " are free."
        )


def _computed(
    run: Run, params: Params, referents: Int[np.ndarray, " n"]
) -> Iterator[Float[np.ndarray, "b h w d"]]:
    """Features of the referents' pictures, a batch after another."""
    graph, mesh = run.model.graph, run.model.mesh

    def before_text(params: Params, batch: dict[str, Array]) -> Array:
        model = parameters.merge(graph, params)
        with use_mesh(mesh):
            return model.image_encoder.before_text(normalize(batch["image"], batch["content"]))

    with use_mesh(mesh):
        program = jax.jit(before_text, compiler_options=compiler_options())
    share = hosts.share(mesh)
    for batch in run.batches.unvaried(referents, run.config.eval.batch_size):
        placed = {key: share.place(batch[key], mesh=mesh) for key in ("image", "content")}
        yield np.asarray(program(params, placed))[batch["valid"]]

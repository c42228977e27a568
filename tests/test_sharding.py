"""Meshes: every parameter has a place, and eight devices compute what one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P
from runs import config_of, shallow, shrink, train_step_of

from dit_jax import config as configs
from dit_jax.models import params as parameters
from dit_jax.train import sharding

# (data, fsdp, tensor): what the parameters must be split along
MESHES = {"data": (8, 1, 1), "fsdp": (2, 4, 1), "tensor": (2, 2, 2)}
ROOT = Path(__file__).resolve().parents[1]


def mesh_of(data, fsdp, tensor):
    return AbstractMesh((data, fsdp, tensor), sharding.AXES, axis_types=(AxisType.Auto,) * 3)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("image_encoder.blocks.0.attn.qkv.kernel", (768, 2304), P("fsdp", "tensor")),
        ("image_encoder.blocks.0.attn.qkv.bias", (2304,), P("tensor")),
        ("image_encoder.blocks.0.attn.proj.kernel", (768, 768), P("tensor", "fsdp")),
        ("image_encoder.blocks.0.mlp.lin2.kernel", (3072, 768), P("tensor", "fsdp")),
        ("image_encoder.pos_embed", (1, 64, 64, 768), P(None, None, None, "fsdp")),
        ("text_encoder.embeddings.word_embeddings.embedding", (30522, 768), P("tensor", "fsdp")),
        ("image_encoder.neck.norm1.scale", (256,), P(None)),
        ("mask_decoder.iou_token", (1, 256), P(None, None)),
    ],
)
def test_table(name, shape, expected):
    assert sharding.spec(name, shape, mesh_of(1, 2, 2), whole=[]) == expected


def test_what_does_not_divide_stays_whole_and_is_named():
    whole = []
    name = "image_encoder.blocks.0.attn.qkv.kernel"
    assert sharding.spec(name, (129, 387), mesh_of(1, 2, 2), whole=whole) == P(None, None)
    assert whole == [f"{name}[129, 387] along tensor", f"{name}[129, 387] along fsdp"]


def test_every_parameter_has_a_row():
    """Names depend on the injection and on whether the text is widened."""
    for row in ("crossatt_vit_b", "crossatt_ffn_vit_b", "edit_static_vit_b", "ldit_vit_l"):
        for path in parameters.flatten(parameters.structure(shallow(row))[1]):
            sharding._rule(path)
    with pytest.raises(ValueError, match=r"image_encoder.adapter.matrix matches no row"):
        sharding._rule("image_encoder.adapter.matrix")


def test_meshes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"is -1 × 3 × 1; expected a product of 1"):
        sharding.make_mesh(configs.Mesh(data=-1, fsdp=3, tensor=1), jax.devices()[:1])
    mesh = sharding.make_mesh(configs.Mesh(data=-1, fsdp=1, tensor=1), jax.devices()[:1])
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1, "tensor": 1}
    with pytest.raises(ValueError, match=r"optim.batch_size / optim.accumulate is 8; expected"):
        sharding.check_batches(config_of(), mesh_of(16, 1, 1))


@pytest.fixture(scope="module")
def on_eight_devices(tmp_path_factory):
    """The results of this file, run as a program that sees eight devices."""
    out = tmp_path_factory.mktemp("eight")
    flags = {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [sys.executable, __file__, str(out)]
    subprocess.run(command, env=os.environ | flags | paths, cwd=ROOT, check=True, timeout=300)
    return out


@pytest.mark.parametrize("mesh", MESHES)
def test_eight_devices_compute_what_one_does(on_eight_devices, mesh):
    one, many = (dict(np.load(on_eight_devices / f"{name}.npz")) for name in ("one", mesh))
    # By tree, not by tensor: the key biases' true gradient is 0, so theirs is rounding alone.
    scales = {tree: largest(one, tree) for tree in ("loss", "grad_norm", "params", "mu")}
    for key, value in one.items():
        limit = 1e-5 * scales[key.split(".")[0]]
        np.testing.assert_allclose(many[key], value, rtol=0, atol=limit, err_msg=key)


def largest(values, tree):
    return max(np.abs(v).max() for key, v in values.items() if key.split(".")[0] == tree)


@pytest.mark.parametrize("mesh", MESHES)
def test_parameters_are_split(on_eight_devices, mesh):
    placed = json.loads((on_eight_devices / f"{mesh}.json").read_text())
    _, fsdp, tensor = MESHES[mesh]
    for tree in ("trainable", "mu", "ema"):
        share = placed[f"{tree}.image_encoder.blocks.0.mlp.lin1.kernel"]
        assert share == 1 / (fsdp * tensor)
        assert placed[f"{tree}.image_encoder.blocks.0.norm1.scale"] == 1.0
    assert placed["batch"] == 1 / (MESHES[mesh][0] * fsdp)


def three_steps(shape, devices, out: Path, name: str) -> None:
    """What three steps come to, and the share of each array that a device holds."""
    from dit_jax.train import step as steps
    from dit_jax.train.run import Run

    data, fsdp, tensor = shape
    # A key's bias has no gradient; with Adam's usual ε, rounding noise would take full steps.
    settings = dict(optim__eps=1e-4, model__presence=True)
    config = config_of(mesh__data=data, mesh__fsdp=fsdp, mesh__tensor=tensor, **settings)
    run = Run.of(config, out, devices=devices)
    placement, train_step = train_step_of(run)
    state = run.first_state(placement)
    for _ in range(3):
        batch = steps.place_batch(next(run.batches), run.model.mesh)
        state, metrics = train_step(state, batch, jax.random.key(0))
    run.batches.close()
    values = {f"params.{k}": v for k, v in parameters.flatten(state.trainable).items()}
    values |= {f"mu.{k}": v for k, v in parameters.flatten(state.opt_state.mu).items()}
    values |= {key: metrics[key] for key in ("loss", "grad_norm")}
    np.savez(out / f"{name}.npz", **jax.device_get(values))
    trees = {"trainable": state.trainable, "mu": state.opt_state.mu, "ema": state.ema}
    arrays = {
        f"{t}.{k}": v for t, tree in trees.items() for k, v in parameters.flatten(tree).items()
    }
    shares = {k: share(v) for k, v in (arrays | {"batch": batch["image"]}).items()}
    (out / f"{name}.json").write_text(json.dumps(shares))


def share(array: jax.Array) -> float:
    return array.addressable_shards[0].data.size / array.size


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        sharding.SMALLEST_SHARDED = 2**10  # the test's parameters are small
        three_steps((1, 1, 1), jax.devices()[:1], folder, "one")
        for mesh_name, mesh_shape in MESHES.items():
            three_steps(mesh_shape, jax.devices(), folder, mesh_name)

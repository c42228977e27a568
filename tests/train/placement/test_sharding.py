"""Meshes: every parameter has a place; eight devices, in one process or two, equal one."""

import functools
import json
import os
import re
import socket
import subprocess
import sys
from unittest import mock

import jax
import mesh_worker
import numpy as np
import pytest
from compiler import COMPILES_FASTER
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P
from places import PYTHONPATH, SUPPORT, TREES
from runs import config_of, shallow, small_runs

from dit_jax import config as configs
from dit_jax.models import params as parameters
from dit_jax.models.architecture import Injection
from dit_jax.ops.attention import dispatch
from dit_jax.train.placement import sharding

WORKER = SUPPORT / "mesh_worker.py"
# Strategies, as (data, fsdp, tensor). Programs for several devices take long to compile, in every
# process anew, so one method runs on the product of all, in one process; `make proof` runs it in
# two, and every pair of a method and a strategy. `test_hosts.py` has two processes.
MESHES = {"data": (8, 1, 1), "fsdp": (1, 8, 1), "tensor": (4, 1, 2), "product": (2, 2, 2)}
PRODUCT = MESHES["product"]


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
        sharding.make_mesh(configs.Mesh(data=-1, fsdp=3, tensor=1, slices=1), jax.devices()[:1])
    mesh = sharding.make_mesh(configs.Mesh(data=-1, fsdp=1, tensor=1, slices=1), jax.devices()[:1])
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1, "tensor": 1}
    with pytest.raises(ValueError, match=r"optim.batch_size / optim.accumulate is 8; expected"):
        sharding.check_batches(config_of().optim, config_of().eval, mesh_of(16, 1, 1))


def chips(slices, *, each=4):
    """Those of a TPU that is not here, of all slices in turn."""
    return [
        mock.NonCallableMock(
            spec=jax.Device,
            **dict(id=i, slice_index=i % slices, process_index=i // 4, core_on_chip=0),
            **dict(
                platform="tpu", device_kind="TPU", coords=(i // slices % 2, i // slices // 2, 0)
            ),
        )
        for i in range(slices * each)
    ]


def test_slices_share_the_batch_and_nothing_else():
    mesh = sharding.make_mesh(configs.Mesh(data=-1, fsdp=2, tensor=1, slices=2), chips(2))
    assert dict(mesh.shape) == {"data": 4, "fsdp": 2, "tensor": 1}
    rows = [[chip.slice_index for chip in row] for row in mesh.devices[:, :, 0]]
    assert rows == [[0, 0], [0, 0], [1, 1], [1, 1]]


def test_slices_that_do_not_fit():
    mesh = functools.partial(configs.Mesh, data=-1, tensor=1)
    for said, there in ((1, 2), (2, 1), (2, 4)):
        expected = f"mesh.slices is {said}; expected {there}, those of the devices."
        with pytest.raises(ValueError, match=expected):
            sharding.make_mesh(mesh(fsdp=2, slices=said), chips(there))
    with pytest.raises(ValueError, match="mesh.slices is 2, and mesh.data 1; expected a multiple"):
        sharding.make_mesh(mesh(fsdp=8, slices=2), chips(2))


@pytest.mark.parametrize("shape", [(1, 8, 1), (2, 2, 2), (1, 4, 2)])
@pytest.mark.parametrize("tree", sorted(TREES.glob("*.txt")), ids=lambda path: path.stem)
def test_no_large_parameter_of_any_row_stays_whole(tree, shape):
    """At real size: nothing falls back to a copy on every device."""
    mesh, whole = mesh_of(*shape), []
    for line in tree.read_text().splitlines()[1:]:
        name, extents, *_ = line.split()
        extents = tuple(map(int, extents.split("×")))
        spec = sharding.spec(name, extents, mesh, whole=whole)
        assert np.prod(extents) < sharding.SMALLEST_SHARDED or "fsdp" in spec, name
    assert not whole


@pytest.fixture(scope="module")
def alone(programs, tmp_path_factory):
    """What L-DIT computes on one device, in this process."""
    out = tmp_path_factory.mktemp("alone")
    with small_runs(programs):
        mesh_worker.main(str(out), json.dumps([("one", "layer_wise", (1, 1, 1))]))
    return out / "one.npz"


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.proof)])
def eight(request, tmp_path_factory):
    """L-DIT on eight devices of one process, or of two."""
    case = (mesh_worker.STOPPED, "layer_wise", PRODUCT)
    return work(tmp_path_factory.mktemp("eight"), [case], processes=request.param)


@pytest.fixture(scope="module")
def every_strategy(tmp_path_factory):
    """L-DIT under every strategy on eight devices of one process."""
    cases = [(name, "layer_wise", shape) for name, shape in MESHES.items()]
    return work(tmp_path_factory.mktemp("every"), cases, processes=1)


@pytest.fixture(scope="module")
def every_pair(tmp_path_factory):
    """Every method under every strategy, in two processes."""
    alone = [(f"one-{injection}", injection, (1, 1, 1)) for injection in Injection]
    pairs = [(f"{i}-{name}", i, shape) for i in Injection for name, shape in MESHES.items()]
    out = work(tmp_path_factory.mktemp("pairs"), alone, processes=1)
    return work(out, pairs, processes=2)


def work(out, cases, *, processes, **variables):
    """Run `mesh_worker.py`, in so many processes that have eight devices together."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    count = f"--xla_force_host_platform_device_count={8 // processes}"
    env = os.environ | {
        "XLA_FLAGS": f"{count} {COMPILES_FASTER}",
        "PYTHONPATH": PYTHONPATH,
        "JAX_PLATFORMS": "cpu",
        **variables,
    }
    start = [sys.executable, str(WORKER), str(out), json.dumps(cases)]
    several = [[str(port), str(processes), str(rank)] for rank in range(processes)]
    pipes = dict(env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    started = [
        subprocess.Popen(start + (more if processes > 1 else []), **pipes) for more in several
    ]
    said = [one.communicate(timeout=3600)[0] for one in started]
    assert [one.returncode for one in started] == [0] * processes, said
    return out


@pytest.mark.proof
@pytest.mark.parametrize("back_end", ["pallas", "by_head"])
def test_eight_devices_compute_what_one_does(alone, tmp_path, back_end):
    """The small model's attention is plain; larger ones run in back ends that XLA cannot split."""
    forced = {dispatch.FORCE: back_end}
    work(tmp_path, [("split", "layer_wise", PRODUCT)], processes=1, **forced)
    assert_equal(alone, tmp_path / "split.npz")
    assert_split(tmp_path, "split", PRODUCT)


@pytest.mark.proof
@pytest.mark.parametrize("mesh", MESHES)
def test_every_strategy_computes_the_same(alone, every_strategy, mesh):
    assert_equal(alone, every_strategy / f"{mesh}.npz")
    assert_split(every_strategy, mesh, MESHES[mesh])


@pytest.mark.proof
def test_a_loop_over_blocks_is_split_too(tmp_path):
    cases = [("one", "layer_wise", (1, 1, 1)), ("split", "layer_wise", PRODUCT)]
    work(tmp_path, [(*case, "scan") for case in cases], processes=1)
    assert_equal(tmp_path / "one.npz", tmp_path / "split.npz")
    assert_split(tmp_path, "split", PRODUCT)


def test_processes_compute_what_one_device_does(alone, eight):
    assert_equal(alone, eight / f"{mesh_worker.STOPPED}.npz")
    assert_split(eight, mesh_worker.STOPPED, PRODUCT)


def test_what_processes_saved_one_device_goes_on_from(alone, eight, programs):
    with small_runs(programs), mesh_worker.small():
        run = mesh_worker.run_of("layer_wise", (1, 1, 1))
        found = mesh_worker.go_on(run, eight / mesh_worker.STOPPED)
    gradients = {k: v for k, v in np.load(alone).items() if k.startswith("grads.")}
    np.savez(eight / "gone_on.npz", **found, **gradients)
    assert_equal(alone, eight / "gone_on.npz")


@pytest.mark.proof
def test_tensor_reaches_across_processes(alone, tmp_path):
    shape = (1, 1, 8)
    work(tmp_path, [("across", "layer_wise", shape)], processes=2)
    assert_equal(alone, tmp_path / "across.npz")
    assert_split(tmp_path, "across", shape)


@pytest.mark.proof
@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("injection", Injection)
def test_every_method_under_every_strategy(every_pair, injection, mesh):
    assert_equal(every_pair / f"one-{injection}.npz", every_pair / f"{injection}-{mesh}.npz")
    assert_split(every_pair, f"{injection}-{mesh}", MESHES[mesh])


def assert_equal(one, many):
    """By tree, not by tensor: the key biases' true gradient is 0, so theirs is rounding alone."""
    one, many = dict(np.load(one)), dict(np.load(many))
    assert one.keys() == many.keys()
    scales: dict[str, float] = {}
    for key, value in one.items():
        tree = key.split(".")[0]
        scales[tree] = max(scales.get(tree, 0.0), float(np.abs(value).max()))
    for key, value in one.items():
        limit = 1e-5 * scales[key.split(".")[0]]
        np.testing.assert_allclose(many[key], value, rtol=0, atol=limit, err_msg=key)


def assert_split(folder, case, shape):
    """Every array lies as the table says, which leaves nothing large whole."""
    shares = json.loads((folder / f"{case}.json").read_text())
    data, fsdp, tensor = shape
    assert shares.pop("batch") == 1 / (data * fsdp)
    sizes = {key: value.shape for key, value in np.load(folder / f"{case}.npz").items()}
    for key, share in shares.items():
        tree, _, name = key.partition(".")
        if tree not in ("params", "mu", "ema"):
            continue
        across = re.search(rf"\.{sharding.LAYERS_IN}\.|attn\.proj\.kernel", name)
        large = np.prod(sizes[key]) >= 2**10 and (len(sizes[key]) > 1 or not across)
        assert share <= 1 / ((tensor if across else 1) * (fsdp if large else 1)), key

"""TensorBoard's curves are continued without gaps or doubles, whatever a kill left of them."""

import struct

import jax.numpy as jnp
import numpy as np
from tensorboardX.proto import event_pb2

from dit_jax.train.logs.nonfinite import NonFinite
from dit_jax.train.logs.progress import MetricWriter

TAG = "train/loss"


def writer(workdir, *, start):
    about = dict(every=1, batch_size=4, failures=NonFinite(3), names=lambda index: [])
    return MetricWriter(workdir, start=start, total=9, **about)


def log(report, steps):
    for step in steps:
        metrics = {key: jnp.float32(step) for key in ("loss", "lr", "grad_norm")}
        report.step(step, metrics, index=np.arange(4))


def events(workdir):
    """All events of a folder's files, in the order in which they were written."""
    for path in sorted((workdir / "tensorboard").glob("events.*")):  # named by the second
        data = path.read_bytes()
        while len(data) >= 12:
            (length,) = struct.unpack("<Q", data[:8])
            yield event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def curve(workdir):
    """Step → value of every point, in the order in which they were written."""
    values = ((event.step, v) for event in events(workdir) for v in event.summary.value)
    return [(step, value.simple_value) for step, value in values if value.tag == TAG]


def test_a_kill_loses_no_point_and_doubles_none(tmp_path):
    """Killed after step 5, whose last checkpoint is that of step 3; continued from there."""
    killed = writer(tmp_path, start=0)
    log(killed, range(1, 6))
    killed.to_disk()
    with writer(tmp_path, start=3) as again:
        log(again, range(4, 10))
        again.to_disk()
    assert curve(tmp_path) == [(step, float(step)) for step in range(1, 10)]
    killed.__exit__(None, None, None)

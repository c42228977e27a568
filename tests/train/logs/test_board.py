"""TensorBoard's curves: on disk with every checkpoint, and continued without gaps or doubles."""

import struct
import time

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
    """Step → value, as TensorBoard shows it: a start at a step drops what was there from it on."""
    shown = []
    for event in events(workdir):
        if event.session_log.status == event_pb2.SessionLog.START:
            shown = [point for point in shown if point[0] < event.step]
        shown += [(event.step, v.simple_value) for v in event.summary.value if v.tag == TAG]
    return shown


def test_a_kill_loses_no_point_and_doubles_none(tmp_path):
    """Killed after step 5, whose last checkpoint is that of step 3; continued from there."""
    killed = writer(tmp_path, start=0)
    log(killed, range(1, 4))
    killed.to_disk()  # as before every checkpoint
    assert curve(tmp_path) == [(1, 1.0), (2, 2.0), (3, 3.0)]
    log(killed, range(4, 6))
    time.sleep(1.1)  # no two starts share a second
    with writer(tmp_path, start=3) as again:
        log(again, range(4, 10))
        again.flush()
    assert curve(tmp_path) == [(step, float(step)) for step in range(1, 10)]
    killed.__exit__(None, None, None)

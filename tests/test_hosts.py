"""Two processes that share an evaluation write the bytes that one writes."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

from dit_jax.train import hosts

WORKER = Path(__file__).with_name("host_worker.py")


def score(workdir, *, processes):
    """Run the workers; returns what each printed, and the files that were written."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    env = os.environ | {"PYTHONPATH": f"{WORKER.parent}:{WORKER.parents[1]}"}
    env |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    started = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(port), str(processes), str(rank), str(workdir)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    said = [worker.communicate(timeout=240) for worker in started]
    assert [worker.returncode for worker in started] == [0] * processes, said
    return [out for out, _ in said], {p.name: p.read_bytes() for p in (workdir / "eval").iterdir()}


def test_two_processes_score_as_one(tmp_path):
    alone, expected = score(tmp_path / "one", processes=1)
    together, found = score(tmp_path / "two", processes=2)
    assert {"shapes-val-dit.json", "shapes-val-gres.json", "shapes-val-lavt.json"} < set(expected)
    assert found == expected
    tables = ["".join(re.findall(r"^(?:split|val) .*\n", said, re.M)) for said in together]
    assert tables == [alone[0], ""]  # the first process speaks for both


def test_numbers_above_32_bits_survive():
    table = np.array([[1, 2**40 + 1], [-1, -(2**62)], [2**63 - 1, 0]], np.int64)
    np.testing.assert_array_equal(hosts.gather(table), table)

"""Real photographs, real expressions, through the command line: what a user of RefCOCO would run.

`make proof`: both take minutes.
"""

import json
import subprocess
import sys
import time

import pytest
from places import ROOT

SPLIT = "val"
pytestmark = pytest.mark.proof


def launch(shared, workdir, config, *settings, limit):
    """Runs launch.py on mini_refcoco; returns its output and the seconds it took."""
    folder = shared / "data"
    fixed = [
        f"--config.data.source={folder / 'mini_refcoco'}",
        f"--config.data.cache_dir={workdir / 'records'}",
        f"--config.model.vocab={folder / 'bert_vocab/vocab.txt'}",
        f"--config.data.train_split={SPLIT}",
        f"--config.data.eval_splits={SPLIT},",
        "--config.data.leaks=keep",  # trains on what it scores, on purpose
        "--allow-leak",
    ]
    command = [sys.executable, "launch.py", f"--config={config}", f"--workdir={workdir}"]
    start = time.monotonic()
    done = subprocess.run(
        [*command, *fixed, *settings], cwd=ROOT, capture_output=True, text=True, timeout=limit
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, time.monotonic() - start


def scores(workdir, protocol):
    return json.loads((workdir / "eval" / f"refcoco-{SPLIT}-{protocol}.json").read_text())


def test_tiny_memorises_16_real_expressions(shared, tmp_path):
    """mIoU ≥ 80 on what it was trained on, within ten minutes on two cores."""
    out, seconds = launch(
        shared,
        tmp_path,
        "configs/memorise.py",
        limit=1200,
    )
    print(out, f"{seconds:.0f} s")
    result = scores(tmp_path, "original")
    assert result["n"] == 16 and result["mIoU"] >= 80, result
    assert seconds < 600


def test_vit_b_trains_and_scores_at_512_px(shared, tmp_path):
    """`configs/ldit_vit_b.py` with random weights: three steps and a score."""
    out, seconds = launch(
        shared,
        tmp_path,
        "configs/ldit_vit_b.py:official",
        "--config.optim.batch_size=2",
        "--config.optim.max_steps=3",
        "--config.eval.batch_size=2",
        "--config.data.eval_limit=4",
        "--config.train.log_every=1",
        limit=1800,
    )
    print(out, f"{seconds:.0f} s")
    losses = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [entry["train/loss"] for entry in losses if "train/loss" in entry]
    assert len(losses) == 3 and all(0 < loss < 100 for loss in losses)
    for protocol in ("dit", "original"):
        assert scores(tmp_path, protocol)["n"] == 4
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert list((tmp_path / "pictures").glob("*.png"))

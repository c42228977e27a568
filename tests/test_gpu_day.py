"""A day with a GPU: what is asked, when it ends, how it goes on, and the page of what came out."""

import importlib
import json
import re
import signal
import sys
import time

import numpy as np
import pytest
from places import PYTHONPATH
from safetensors.numpy import save

from benchmarks import kills
from benchmarks.gpu_day import __main__ as command
from benchmarks.gpu_day import kernels, page, parts, rows, runner
from benchmarks.gpu_day.parts import PARTS, Part
from benchmarks.gpu_day.runner import Asked, Ledger
from dit_jax import variants
from dit_jax.ops.platform import Target, planned_for
from dit_jax.ops.rematerialise import POLICIES
from experiments import miniature

WORKERS = sorted({part.worker for part in PARTS.values()})


def test_flags():
    options = command.parsed(["--minutes=4", "--parts=run, kills", "--self-test"])
    assert (options.minutes, options.parts, options.self_test) == (4.0, ["run", "kills"], True)
    assert command.parsed([]).parts == list(PARTS)


@pytest.mark.parametrize(
    ("words", "said"),
    [("--parts=speed,sped", "no part is called sped; expected"), ("--minutes=0.5", "too short")],
)
def test_wrong_flags(words, said, capsys):
    with pytest.raises(SystemExit):
        command.parsed([words])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_starts_as_it_says(name, monkeypatch, capsys):
    if name == "torch_speed":
        pytest.importorskip("torch")
    worker = importlib.import_module(f"benchmarks.gpu_day.{name}")
    assert f"python -m benchmarks.gpu_day.{name} --only " in worker.__doc__
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        worker.main()
    assert ended.value.code == 0 and "--only" in capsys.readouterr().out


def test_keys_name_what_there_is():
    with planned_for(Target("gpu")):
        for key in PARTS["kernels"].asked(small=False):
            assert callable(kernels.comparison(key)[0])
    for key in (*PARTS["speed"].keys, *PARTS["speed"].small):
        row, what, remat = key.split()
        assert row in variants.VARIANTS and what in parts.WHAT and remat in (*POLICIES, "fp8")
    named = {key.split()[2] for key in PARTS["torch"].keys}
    assert named <= page.WHO.keys()
    for part in PARTS.values():
        for small in (False, True):
            keys = part.asked(small=small)
            assert keys == tuple(dict.fromkeys(keys))


def test_rows_that_have_no_result(monkeypatch, tmp_path):
    line = {"row": "default_vit_b", "splits": {}}
    lines = [json.dumps(line | {"seed": seed}) for seed in miniature.SEEDS]
    lines += [json.dumps({"row": "ldit_vit_b", "seed": 1})]
    (tmp_path / "known.jsonl").write_text("\n".join(lines))
    monkeypatch.setattr(miniature, "RESULTS", tmp_path / "known.jsonl")
    missing = rows.missing()
    assert missing.keys() == set(miniature.ROWS) - {"default_vit_b"}
    assert missing["ldit_vit_b"] == [0, 2] and missing["edit_vit_b"] == [0, 1, 2]
    assert PARTS["rows"].asked(small=False) == tuple(missing)


WORKER = """
import json, os, signal, sys, time
for key in sys.argv[1:]:
    print("a word besides", flush=True)
    if key == "dies":
        os.kill(os.getpid(), signal.SIGSEGV)
    if key == "hangs":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    print(json.dumps({"key": key, "ms": 1.5}), flush=True)
    if key == "forgets":
        break
"""


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Workers that answer at once, but for three keys."""
    monkeypatch.setattr(runner, "LEAST", 0.0)
    monkeypatch.setattr(runner, "GRACE", 0.1)
    commands = []

    def worker(self, part, keys):
        commands.append(keys)
        return [sys.executable, "-S", "-c", WORKER, *keys]

    monkeypatch.setattr(Asked, "command", worker)
    asked = Asked(work=tmp_path, out=tmp_path, deadline=time.monotonic() + 60, env={})
    asked.commands = commands
    return asked


def part(*keys, **settings):
    return Part(worker="none", keys=keys, small=keys[:1], **settings)


def test_what_dies_leaves_the_others(asked, tmp_path):
    ledger = Ledger(tmp_path / "day.jsonl")
    asked.part("speed", part("a", "dies", "b", "forgets", "c"), small=False, ledger=ledger)
    told = [json.loads(line) for line in ledger.path.read_text().splitlines()]
    assert told == ledger.lines
    assert {line["key"]: line.get("ms") for line in told} == dict(
        a=1.5, dies=None, b=1.5, forgets=1.5, c=None
    )
    assert [line["error"] for line in told if "error" in line] == [
        "its process ended with status -11",
        "its process ended with status 0",
    ]
    assert "a word besides" in (tmp_path / "log.txt").read_text()
    # Another call has nothing left to ask, and a third key is asked alone.
    again = Ledger(ledger.path)
    asked.part("speed", part("a", "dies", "d"), small=False, ledger=again)
    assert asked.commands[-1] == ["d"] and len(again.lines) == 6


def test_what_hangs_is_given_up(asked, tmp_path):
    ledger = Ledger(tmp_path / "day.jsonl")
    asked.part("speed", part("hangs", "a", limit=0.7), small=False, ledger=ledger)
    hung, answered = ledger.lines
    assert hung["error"] == "no answer within 0.7 s" and answered["ms"] == 1.5


def test_it_ends_in_time_and_is_asked_again(asked, tmp_path):
    asked.deadline = time.monotonic() + 1.5
    ledger = Ledger(tmp_path / "day.jsonl")
    asked.part("speed", part("a", "hangs", "b"), small=False, ledger=ledger)
    assert time.monotonic() < asked.deadline + 5.0
    assert [line["key"] for line in ledger.lines] == ["a"]
    assert ledger.left("speed", ("a", "hangs", "b")) == ["hangs", "b"]
    asked.part("speed", part("b"), small=False, ledger=ledger)
    assert len(asked.commands) == 1  # too late to start another


def test_a_worker_ends_with_its_command(asked, tmp_path):
    before, run = signal.getsignal(signal.SIGTERM), part("hangs")
    runner.end_with_me()
    try:
        with (
            (tmp_path / "log.txt").open("w") as log,
            pytest.raises(SystemExit, match="143"),
            asked.started(run, ["hangs"], log) as process,
        ):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert process.poll() is not None
    process.stdout.close()


def test_what_is_lacking_is_said_once(asked, tmp_path):
    ledger = Ledger(tmp_path / "day.jsonl")
    for _ in range(2):
        lacks = part("a", needs=("json", "no_such_package"))
        asked.part("run", lacks, small=False, ledger=ledger)
    assert ledger.lines == [{"part": "run", "skipped": "No module named 'no_such_package'"}]
    assert not asked.commands


def test_half_a_line_is_measured_again(tmp_path):
    path = tmp_path / "day.jsonl"
    path.write_text('{"part": "speed", "key": "a"}\n{"part": "speed", "k')
    ledger = Ledger(path)
    assert ledger.left("speed", ("a", "b")) == ["b"]
    ledger.add({"part": "speed", "key": "b"})
    assert ledger.left("speed", ("a", "b")) == ledger.left("torch", ()) == []
    assert len(Ledger(path).lines) == 2


def test_another_folder_starts_from_what_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
    card = "NVIDIA H100 80GB HBM3"
    known = command.opened(tmp_path / "results", card)
    assert known.path.name == "gpu_h100.jsonl" and not known.lines
    known.add({"part": "speed", "key": "a"})
    other = command.opened(tmp_path / "out", card)
    assert other.lines == known.lines and other.path.parent.name == "out"
    other.add({"part": "speed", "key": "b"})
    assert len(command.opened(tmp_path / "out", card).lines) == 2
    assert not command.opened(tmp_path / "out", "NVIDIA A100-SXM4-80GB").lines


def test_the_self_test_wants_all_answers(tmp_path):
    ledger = Ledger(tmp_path / "day.jsonl")
    ledger.add({"part": "torch", "skipped": "No module named 'torch'"})
    ledger.add({"part": "run", "key": PARTS["run"].small[0]})
    command.report(ledger, ["torch", "run"])
    ledger.add({"part": "rows", "key": "self-test", "error": "TypeError: x"})
    with pytest.raises(SystemExit, match="no answer to self-test, kill -9 at 64 px; .*log.txt"):
        command.report(ledger, ["torch", "run", "kills", "rows"])


def lines_of(part, **answers):
    return [{"part": part, "key": key.replace("__", " "), **say} for key, say in answers.items()]


B, H = "ldit_vit_b__", "ldit_vit_h__"
DAY = [
    {"part": "machine", "card": "NVIDIA H200", "about": "One machine.", "command": "python -m x"},
    *lines_of(
        "kernels",
        packed__vit_b__512__text__bfloat16={"errors": [0.004, 0.012], "fault": None},
        cudnn__vit_h__1024__none__bfloat16={"errors": [], "fault": "ValueError: too wide"},
    ),
    *lines_of(
        "speed",
        **{
            f"{B}training__none": {"ms": 100.0, "batch": 64, "GiB": 23.34},
            f"{B}training__fp8": {"ms": 50.0, "batch": 64, "GiB": 20.0},
            f"{H}training__none": {"error": "out of memory", "batch": 64, "GiB": 97.3},
            f"{H}training__scan": {"ms": 800.0, "batch": 64, "GiB": None},
        },
    ),
    *lines_of(
        "torch",
        **{
            f"{B}training__folded": {"ms": 200.0, "batch": 64, "GiB": 30.8},
            f"{B}training__cudnn": {"ms": 160.0, "batch": 32, "GiB": 31.4},
        },
    ),
    *lines_of("attention", timed__packed__vit_b__512={"forward_ms": 1.234, "both_ms": 5.678}),
    *lines_of(
        "run",
        quickstart={"command": "a", "oIoU": {"val": 67.31}, "pictures_per_s": 284.4, "s": 301.2},
        mini={"command": "b", "oIoU": {"val": 90.0}, "pictures_per_s": 284.4, "s": None},
    ),
    {"part": "rows", "skipped": "No module named 'grain'"},
]


def test_the_page():
    text = page.text(DAY)
    assert text.startswith("# Measured on one NVIDIA H200\n\n    python -m x\n\nOne machine. Batch")
    assert "names 1 of 2: cudnn vit_h 1024 none bfloat16." in text
    assert "| packed vit_b 512 text bfloat16 | 0.012 | agrees |" in text
    assert "| cudnn vit_h 1024 none bfloat16 | – | ValueError: too wide |" in text
    # 640 pictures a second; 36.5 % at 548.4, by benchmarks/results/accelerator_h200.md.
    (row,) = re.findall(r"\| ldit_vit_b \| training \| dit_jax \| (.*) \|", text)
    *others, mfu, gib = row.split(" | ")
    assert others == ["64", "100.0", "640"] and gib == "23.3"
    assert float(mfu.removesuffix(" %")) == pytest.approx(36.5 * 640 / 548.4, abs=0.1)
    assert "| ldit_vit_h | training | dit_jax, `remat=scan` | 64 | 800.0 | 80 |" in text
    # Other arithmetic: neither bfloat16's MFU nor compared with PyTorch's bfloat16.
    assert "| training | dit_jax, products of 8 bits | 64 | 50.0 | 1280 | – | 20.0 |" in text
    # By pictures a second, not by milliseconds: 640 beside 320 and 200.
    assert "ldit_vit_b, training: dit_jax is 2.00 times as fast as the fastest PyTorch." in text
    assert "`ldit_vit_h training none`: out of memory (97.3 GiB)." in text
    assert "| packed | vit_b | 512 | 1.23 | 5.68 |" in text
    assert (
        "301 s, compilation included; 284 pictures/s." in text and "| val | 74.1 | 67.3 |" in text
    )
    assert "`b`, from data to scores: in several starts" in text and "| val | – | 90.0 |" in text
    assert "`rows` was skipped: No module named 'grain'." in text
    assert re.findall("`(.*)`: not yet", text) == ["kills"]
    asked = {name for names in page.SECTIONS for name in names.split()}
    assert asked == set(re.findall("`(.*)`: not yet", page.text(DAY[:1]))) == set(PARTS)


def test_the_page_of_kills_and_rows():
    same = {"met": "training", "results": 55, "different": []}
    assert "all 55 results are bit for bit" in page.kills([same], "")
    apart = {"undisturbed_different": ["a"], "apart": 0.002, "undisturbed_apart": 0.003}
    said = page.kills([same | apart | {"different": ["a", "b"]}], "")
    assert "2 of 55 results have other bits" in said and "0.002 apart" in said
    assert "differ in 1, and their weights by 0.003" in said
    scores = {"oIoU": {"0": {"val": 60.0, "testA": 50.0}, "1": {"val": 61.0, "testA": 51.0}}}
    assert "| ldit | 2 | val 60.5, testA 50.5 |" in page.rows([{"key": "ldit"} | scores], "")


def test_half_the_batch_where_it_does_not_fit():
    torch = pytest.importorskip("torch")
    from benchmarks.gpu_day import torch_speed

    def run(count):
        if count > 16:
            raise torch.cuda.OutOfMemoryError
        return 1.0

    assert torch_speed.fitting(run, 64) == (16, 1.0)


class Runs:
    """Runs that leave what a table says of their folders."""

    def __init__(self, monkeypatch, left):
        self.finished, self.left = [], left
        monkeypatch.setattr(kills, "outcome", lambda folder: left[folder.name])
        monkeypatch.setattr(kills, "moment", lambda folder: "training")

    def finish(self, workdir):
        self.finished.append(workdir.name)

    def kill_when(self, workdir, ripe):
        return not ripe()


def weights(value):
    return save({"w": np.array([1.0, value], np.float32)})


def test_one_kill_says_how_far_apart_the_runs_are(monkeypatch, tmp_path):
    name = "model_final/model.safetensors"
    whole, other, third = ({name: weights(v), "scores": b"1"} for v in (2.0, 2.5, 2.25))
    runs = Runs(monkeypatch, {"whole": whole, "killed": dict(whole)})
    told = kills.once(runs, tmp_path)
    assert told == {"met": "training", "results": 2, "different": []}
    assert runs.finished == ["whole", "killed"]
    runs = Runs(monkeypatch, {"whole": whole, "killed": other, "again": third})
    told = kills.once(runs, tmp_path)
    assert told["different"] == told["undisturbed_different"] == [name]
    assert (told["apart"], told["undisturbed_apart"]) == (0.5, 0.25)


@pytest.mark.proof
def test_the_self_test(tmp_path, monkeypatch):
    """Tiny shapes through every part, as `make bench` does on a CPU."""
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    command.main(["--self-test", "--minutes=9", f"--work={tmp_path}"])
    lines = Ledger(tmp_path / "self-test" / "gpu_cpu.jsonl").lines
    for name, each in PARTS.items():
        skipped = [line for line in lines if line["part"] == name and "skipped" in line]
        answered = {line["key"] for line in lines if line["part"] == name and "key" in line}
        assert skipped or answered == set(each.small), name

"""The benchmarks start as the docs say, from a checkout that is not installed."""

import re
import subprocess
import sys

import jax
import pytest
from places import ROOT

from benchmarks import cpu_peers, page, tpu
from benchmarks.hlo import Traffic
from dit_jax.models import params as parameters
from dit_jax.train import optim

FOLDER = ROOT / "benchmarks"
# The rows of its table, and the commands in it.
PAGE = [line for line in (FOLDER / "README.md").read_text().splitlines() if line.startswith("| ")]
FLAG = re.compile(r"--\w+")
COMMANDS = sorted(p.stem for p in FOLDER.glob("*.py") if "__main__" in p.read_text())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_starts(name):
    if re.search(r"^import torch$", (FOLDER / f"{name}.py").read_text(), re.MULTILINE):
        pytest.importorskip("torch")
    assert f"python -m benchmarks.{name} " in (FOLDER / f"{name}.py").read_text()
    command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    flags = [flag for line in PAGE if f"benchmarks.{name} " in line for flag in FLAG.findall(line)]
    assert all(flag in done.stdout for flag in flags), flags


@pytest.mark.parametrize("name", [*COMMANDS, "gpu_day"])
def test_each_command_answers_a_question(name):
    assert any(f"`python -m benchmarks.{name}" in line for line in PAGE), name


def test_each_page_belongs_to_a_question():
    """And `make bench` runs what has a star."""
    linked = set(re.findall(r"\(results/([\w.]+)\)", "\n".join(PAGE)))
    assert linked == {path.name for path in (FOLDER / "results").glob("*.md")}
    starred = [re.search(r"`(python -m [^`]+)`", line)[1] for line in PAGE if "★" in line]
    made = re.findall(r"\$\(RUN\) (-m benchmarks.*)", (ROOT / "Makefile").read_text())
    assert len(made) == len(starred)
    for words, row in zip(made, starred, strict=True):
        assert row.startswith(f"python {words}")


def test_a_page_keeps_its_notes(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks/x.py", "--rounds=2"])
    for figure in (1, 2):
        with page.Page("x", "A question") as made:
            made.add(f"{figure} s")
        if figure == 1:
            made.path.write_text(made.path.read_text() + "\n## Notes\n\nThe first was 1 s.\n")
    assert made.path.read_text().startswith("# A question\n\n    python -m benchmarks.x --rounds=2")
    assert made.path.read_text().endswith("\n2 s\n\n## Notes\n\nThe first was 1 s.\n")
    with pytest.raises(ValueError), page.Page("x", "A question"):
        raise ValueError("no figure")
    assert "2 s" in made.path.read_text()


def test_the_step_beside_pytorch_is_one_of_ours():
    setting = cpu_peers.Setting("ldit_vit_b", 64, 1, training=True, kept=True, cores=1, depth=1)
    graph, params = parameters.structure(cpu_peers.architecture(setting))
    trainable, frozen = optim.partition(params, ())
    start = jax.eval_shape(lambda x: (x, optim.direction(cpu_peers.rules()).init(x)), trainable)
    step = cpu_peers.jax_update(graph, cpu_peers.rules())
    after, loss = jax.eval_shape(step, start, frozen, cpu_peers.example(setting))
    assert loss.shape == () and after == start


@pytest.mark.proof
def test_the_loop_is_timed_beside_its_step(tmp_path):
    call = f"startup.loop_and_step(Path({str(tmp_path)!r}), steps=2, rounds=1)"
    code = f"from pathlib import Path; from benchmarks import startup; print(min({call}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0 and float(done.stdout.strip().splitlines()[-1][1:-1]) > 0


PROGRAM = """
%inside (p: bf16[8,4]) -> bf16[64,4] {
  %p = bf16[8,4]{1,0} parameter(0)
  ROOT %gather.1 = bf16[64,4]{1,0:T(8,128)} all-gather(%p), channel_id=1, replica_groups=[1,8]<=[8]
}
%goes.on (p: bf16[8,4]) -> bf16[64,4] {
  %p.1 = bf16[8,4]{1,0} parameter(0)
  ROOT %gather.2 = bf16[64,4]{1,0:T(8,128)} all-gather(%p), channel_id=1, replica_groups=[1,8]<=[8]
}
%turn (q: (s32[], f32[5,16], bf16[8,4])) -> (s32[], f32[5,16], bf16[8,4]) {
  %q = (s32[], f32[5,16]{1,0}, bf16[8,4]{1,0}) parameter(0)
  %all = f32[5,16]{1,0} get-tuple-element(%q), index=1
  %own = bf16[8,4]{1,0} get-tuple-element(%q), index=2
  %near = f32[16]{0:T(128)S(1)} fusion(%all), kind=kLoop, calls=%slice
  %start = (bf16[8,4]{1,0}, bf16[64,4]{1,0:S(1)}) custom-call(%own), called_computations={%inside}
  %done = bf16[64,4]{1,0:S(1)} fusion(%start), calls=%goes.on
  %sum = f32[16]{0:S(1)} all-reduce(%near), channel_id=2, replica_groups={{0,1},{2,3}}
  ROOT %next = (s32[], f32[5,16]{1,0}, bf16[8,4]{1,0}) tuple(%all, %own)
}
%limit (q: (s32[], f32[5,16], bf16[8,4])) -> pred[] {
  %five = s32[] constant(5)
  ROOT %less = pred[] compare(%five, %five), direction=LT
}
ENTRY %main (x: f32[5,16], w: bf16[8,4]) -> f32[5,16] {
  %x = f32[5,16]{1,0} parameter(0)
  %w = bf16[8,4]{1,0} parameter(1)
  %begin = (s32[], f32[5,16]{1,0}, bf16[8,4]{1,0}) tuple(%x, %w)
  %sent = (f32[4,4]{1,0}, u32[], token[]) send(%x), attributes={_xla_megascale_target="{}"}
  %end = (s32[], f32[5,16]{1,0}, bf16[8,4]{1,0}) while(%begin), condition=%limit, body=%turn
  ROOT %out = f32[5,16]{1,0} add(%x, %x)
}
"""


def test_what_a_program_moves():
    """Loops as often as they run, an overlapped collective once, own memories never."""
    found = Traffic.of(PROGRAM)
    inside = {"all-gather": (5, 5 * 512), "all-reduce": (5, 5 * 64)}
    assert found.collectives == inside | {"between slices": (1, 64)}
    assert found.links == 5 * (512 * 7 / 8 + 64)
    # Each turn reads its row of five and the piece of the weights, which starts with a copy of it.
    assert found.hbm == 5 * (64 + 64 + 64 + 64) + 2 * 320 + 64


TRAINED = [case for case in tpu.cases() if case.what == "train" and case.name in tpu.answers()]


@pytest.mark.parametrize("case", TRAINED, ids=lambda case: case.name)
def test_the_count_is_near_what_tpus_compiler_takes(case):
    found = tpu.answers()[case.name]
    compiled = found["arguments"] + found["temporary"]
    assert tpu.counted(case) == pytest.approx(compiled, rel=0.15)


def test_the_page_of_tpus_is_of_its_answers():
    written, made = (
        text.split("\n| ", 1)[1] for text in (tpu.PAGE.read_text(), tpu.page(tpu.answers()))
    )
    assert written == made, "run python -m benchmarks.tpu"


def test_a_roofline():
    """The slowest of three decides: four pictures a chip, a second of links, half of the others."""
    case = tpu.Case("ldit_vit_b", "train", "v5e-256", "fsdp")
    compute, hbm, links = tpu.PEAKS["v5e"]
    needs = dict(flops=compute / 2, hbm=hbm / 2, links=links)
    assert tpu.roofline(case, needs) == (4.0, "links")

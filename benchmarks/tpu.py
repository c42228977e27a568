"""What TPU's compiler says of the programs, slice by slice. No TPU is needed, nothing runs.

    pip install "jax[tpu]==0.10.2"
    python -m benchmarks.tpu                       # what is not in the results yet; hours
    python -m benchmarks.tpu --only="ldit_vit_h | train"

Each program is compiled in a process of its own, at the lowest priority, the most wanted first. Its
answer is a line of benchmarks/results/tpu.jsonl, from which benchmarks/results/tpu.md is made.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import logging
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.hlo import Traffic
from benchmarks.page import machine
from dit_jax import plan
from dit_jax.config import Config
from dit_jax.configs import base
from dit_jax.models import flops
from dit_jax.models import params as parameters
from dit_jax.plan import command, compile, memory
from dit_jax.predict.programs import programs_of
from dit_jax.train import abstract
from dit_jax.train import step as steps
from dit_jax.train.placement import sharding

RESULTS = Path(__file__).parent / "results"
ANSWERS, PAGE = RESULTS / "tpu.jsonl", RESULTS / "tpu.md"

# bfloat16 operations, bytes of HBM and bytes over all of a chip's links, a second: Google's pages
# of each generation, docs.cloud.google.com/tpu/docs/v5e, /v5p and /v6e.
PEAKS = {
    "v5e": (197e12, 819e9, 1600e9 / 8),
    "v5p": (459e12, 2765e9, 4800e9 / 8),
    "v6e": (918e12, 1600e9, 3200e9 / 8),
}
WHERE = ("compute", "HBM", "links")
SLICES = ("v5e-8", "v5e-16", "v5p-16", "v6e-8", "v5e-256", "v6e-16", "v5e-64", "v5p-64")
SEVERAL = "2x v5e-16"
TRAINED = ("ldit_vit_b", "ldit_vit_h", "default_vit_b", "edit_vit_b", "ldit_vit_l", "edit_vit_h")
ANSWERING = ("ldit_vit_b", "ldit_vit_h")
BATCH, A_CHIP = 64, 4  # the paper's, and on slices that are too large for it
INSIDE = 8  # chips that share parameters where the mesh is both; four of a slice of eight
REFERENTS, EPOCHS = 42_404, 40  # RefCOCO's training split, the paper's recipe


@dataclasses.dataclass(frozen=True)
class Case:
    row: str
    what: str  # "train"; "evaluate", its scoring; "predict", a picture and a sentence on one chip
    slice: str  # "v5e-8"; "2x v5e-16" are two of 16 chips each
    mesh: str  # "fsdp" (inside a slice), "data" or "both"

    @property
    def name(self) -> str:
        return f"{self.row} | {self.what} | {self.slice} | {self.mesh}"

    @property
    def slices(self) -> int:
        return int(self.slice.split("x ")[0]) if "x " in self.slice else 1

    @property
    def generation(self) -> str:
        return self.slice.split("x ")[-1].split("-")[0]

    @property
    def chips(self) -> int:
        return int(self.slice.split("-")[1]) * self.slices

    @property
    def batch(self) -> int:
        return 1 if self.what == "predict" else max(BATCH, A_CHIP * self.chips)

    def config(self) -> Config:
        inside = self.chips // self.slices
        fsdp = {"fsdp": inside, "data": 1, "both": min(INSIDE, inside // 2)}[self.mesh]
        values = base.recipe(self.row, "paper")
        values.model.update(dtype="bfloat16", remat="scan")
        values.optim.update(batch_size=self.batch)
        values.eval.update(batch_size=self.batch)
        values.mesh.update(fsdp=fsdp, slices=self.slices)
        return Config.from_dict(values)


def cases() -> Iterator[Case]:
    """Each model on each slice, before the next mesh; the smaller models first."""
    for mesh in ("fsdp", "both", "data"):
        for row in TRAINED:
            yield from (Case(row, "train", where, mesh) for where in SLICES)
        for row in ANSWERING:
            yield from (Case(row, "evaluate", where, mesh) for where in SLICES)
    yield from (Case(row, "train", SEVERAL, "fsdp") for row in ANSWERING)
    for row in ANSWERING:
        yield from (Case(row, "predict", f"{one}-1", "data") for one in PEAKS)


def lowered(case: Case, config: Config, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
    if case.what == "train":
        return compile.lower(config, mesh)
    arch = config.architecture()
    graph, shapes = parameters.structure(arch)
    places = sharding.shardings(shapes, mesh)
    params = jax.tree.map(
        lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), shapes, places
    )
    rows = abstract.batch(arch, mesh, rows=case.batch)
    if case.what == "evaluate":
        answer = steps.make_predict_step(graph, mesh=mesh, placement=places)
        return jax.jit(lambda *given: vars(answer(*given))).lower(params, rows)
    programs = programs_of(arch, mesh.devices.flat[0])
    of_words = (1, arch.text_tokens, arch.bert.width)
    features = jax.ShapeDtypeStruct(of_words, jnp.bfloat16, sharding=NamedSharding(mesh, P()))
    nothing = dict.fromkeys(("points", "labels", "point_mask", "boxes", "masks"))

    def answer(params, rows, features):
        words = dict(features=features, attention_mask=rows["attention_mask"])
        picture = {key: rows[key] for key in ("image", "content")}
        embedding = programs.embed(params, picture | words)
        return programs.decode(params, embedding, nothing | words, multimask=False)

    return jax.jit(answer).lower(params, rows, features)


def ask(case: Case) -> dict:
    """The compiler's answer, as a line of the results."""
    config = case.config()
    where = plan.find(case.generation, case.chips, slices=case.slices)
    mesh = sharding.make_mesh(config.mesh, where.devices)
    started = time.perf_counter()
    try:
        compiled, program = compile.ask(lambda: lowered(case, config, mesh), where)
    except jax.errors.JaxRuntimeError as error:
        compiled, program = compile.Compiled(refused=str(error).strip().splitlines()[0]), None
    answer = dict(
        name=case.name,
        minutes=(time.perf_counter() - started) / 60,
        cpu_minutes=time.process_time() / 60,
        versions={name: importlib.metadata.version(name) for name in ("jax", "libtpu")},
        refused=compiled.refused,
    )
    if program is None:
        return answer
    traffic = Traffic.of(program.as_text())
    arch = config.architecture()
    work = flops.forward(arch)
    if case.what == "train":  # blocks run forward twice
        parts = flops.parts(arch)
        work = flops.training(arch, freeze=config.freeze()) + parts["blocks"] + parts["injector"]
    return answer | dict(
        arguments=compiled.arguments,
        temporary=compiled.temporary,
        program=program.memory_analysis().generated_code_size_in_bytes,
        flops=work * case.batch / case.chips,
        hbm=traffic.hbm,
        links=traffic.links,
        collectives=traffic.collectives,
    )


def roofline(case: Case, answer: dict) -> tuple[float, str]:
    """Images a second and chip if nothing but one of `WHERE` took time, and which."""
    needs = (answer["flops"], answer["hbm"], answer["links"])
    seconds = [need / peak for need, peak in zip(needs, PEAKS[case.generation], strict=True)]
    longest = max(seconds)
    return case.batch / case.chips / longest, WHERE[seconds.index(longest)]


def counted(case: Case) -> int:
    """Bytes a chip, as `--mode=plan` counts them today."""
    config = case.config()
    mesh = command.mesh_of(config, case.chips)
    return memory.estimate(config, mesh, attention=memory.expected(config), tpu=True).total


def hours(case: Case, speed: float) -> str:
    """Of training on RefCOCO by the paper's recipe, at half of so many images a second and chip."""
    return f"{REFERENTS * EPOCHS / (speed / 2 * case.chips) / 3600:.2f}"


def answers() -> dict[str, dict]:
    lines = ANSWERS.read_text().splitlines() if ANSWERS.is_file() else []
    return {answer["name"]: answer for answer in map(json.loads, lines)}


TEXT = """# TPU's compiler, asked about every program

    python -m benchmarks.tpu

Nothing here has run on a TPU: these are the compiler's answers, and arithmetic. bfloat16,
`remat=scan`, 512 px, recipe `paper`. GB are 10⁹ bytes a chip: state and batch + what else a step
needs, by the compiler, and beside it what `--mode=plan` counts; the program itself lies in HBM too.
Operations are counted from the model's shapes, blocks that run twice twice. HBM and collectives are
read from the optimised program, loops as often as they run: what each instruction reads and writes
in HBM, an upper bound; and each kind of collective, how often and the bytes of its results, and
what a chip sends to other slices, over a network that the roofline leaves out.
Images/s are those of one chip if the slowest of compute, HBM and links took all the time; hours are
of 40 epochs of RefCOCO's 42,404 referents at half of that, without scoring. Not results.
A chip's peaks: v5e 197 TFLOP/s, 819 GB/s, 200 GB/s over links; v5p 459, 2765, 600; v6e 918, 1600,
400 ([v5e](https://docs.cloud.google.com/tpu/docs/v5e),
[v5p](https://docs.cloud.google.com/tpu/docs/v5p),
[v6e](https://docs.cloud.google.com/tpu/docs/v6e)). Minutes are of a processor, for all of it.
"""
HEAD = (
    "program",
    "slice",
    "mesh",
    "batch",
    "GB, compiler",
    "counted",
    "program",
    "TFLOP",
    "HBM GB",
)
HEAD += ("links GB", "collectives: times, MB", "images/s a chip, at most", "by")
HEAD += ("hours at half of it", "minutes")


def page(known: dict[str, dict]) -> str:
    listed = list(cases())
    rows = [line(case, known[case.name]) for case in listed if case.name in known]
    versions = sorted({" with libtpu ".join(a["versions"].values()) for a in known.values()})
    about = f"jax {', '.join(versions)}; {machine()} {len(rows)} of {len(listed)} were asked about."
    table = ["| " + " | ".join(cells) + " |" for cells in (HEAD, ["---"] * len(HEAD), *rows)]
    return "\n".join([TEXT, about, "", *table]) + "\n"


def line(case: Case, answer: dict) -> list[str]:
    bytes_counted = f"{counted(case) / plan.GB:.2f}" if case.what == "train" else ""
    cells = [f"{case.row}, {case.what}", case.slice, case.mesh, str(case.batch)]
    if answer["refused"]:
        empty = [""] * (len(HEAD) - len(cells) - 3)
        return [*cells, answer["refused"], bytes_counted, *empty, f"{answer['cpu_minutes']:.0f}"]
    speed, by = roofline(case, answer)
    sent = (f"{kind} {n}, {size / 1e6:.0f}" for kind, (n, size) in answer["collectives"].items())
    gigabytes = [answer[key] / plan.GB for key in ("arguments", "temporary", "program")]
    return [
        *cells,
        f"{sum(gigabytes[:2]):.2f} = {gigabytes[0]:.2f} + {gigabytes[1]:.2f}",
        bytes_counted,
        f"{gigabytes[2]:.2f}",
        f"{answer['flops'] / 1e12:.2f}",
        f"{answer['hbm'] / 1e9:.1f}",
        f"{answer['links'] / 1e9:.2f}",
        "; ".join(sent),
        f"{speed:.0f}",
        by,
        hours(case, speed) if case.what == "train" else "",
        f"{answer['cpu_minutes']:.0f}",
    ]


def main(only: str) -> None:
    os.nice(19 - os.nice(0))
    jax.config.update("jax_platforms", "cpu")  # the machine's own; libtpu would look for a TPU
    for case in cases():
        if case.name.startswith(only) and case.name not in answers():
            print(case.name, flush=True)
            subprocess.run(
                [sys.executable, "-m", "benchmarks.tpu", "--case", case.name], check=True
            )
    PAGE.write_text(page(answers()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="programs, by how their names start")
    parser.add_argument("--case", help="one program, in this process")
    arguments = parser.parse_args()
    logging.set_verbosity(logging.ERROR)  # small parameters that stay whole
    if arguments.case:
        answer = ask(next(case for case in cases() if case.name == arguments.case))
        with ANSWERS.open("a") as file:
            file.write(json.dumps(answer) + "\n")
    else:
        main(arguments.only)

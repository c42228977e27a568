"""What a run leaves for people: its report, where its numbers come from, traces and names in it."""

import collections
import contextlib
import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from runs import FIVE_STEPS, compiling_once, config_of, small_runs

from dit_jax.plan import compile
from dit_jax.strict import flatten
from dit_jax.train import loop
from dit_jax.train.logs import curves, provenance, report
from dit_jax.train.placement import compile_cache
from dit_jax.train.placement import sharding as places
from dit_jax.weights import directory


@pytest.fixture(autouse=True, scope="module")
def kept(programs):
    """Every program of a run is in the folder that all tests share."""
    with small_runs(programs):
        compile_cache.keep_compiled("", programs)
        yield


def config_with(**changes):
    """Top-level values, besides those of `config_of`."""
    return dataclasses.replace(config_of(**FIVE_STEPS), **changes)


@pytest.fixture(scope="module")
def workdir(kept, tmp_path_factory):
    """A run that was traced, and started again after its end."""
    jax.clear_caches()  # what other tests compiled may not be in the folder
    folder = tmp_path_factory.mktemp("runs") / "short"
    config = config_with(profile_steps="2:4")
    loop.train(config, folder)
    loop.train(config, folder)
    return folder


def test_every_start_is_noted(workdir):
    first, second = provenance.starts(workdir)
    assert (first["step"], second["step"]) == (0, 5)
    assert first["packages"]["jax"] == jax.__version__
    assert first["mesh"] == {"data": jax.device_count(), "fsdp": 1, "tensor": 1}
    assert first["devices"]["kind"] == jax.devices()[0].device_kind
    assert first["config"]["optim.max_steps"] == 5
    assert first["config"]["profile_steps"] == "2:4"


def test_models_say_where_they_come_from(workdir):
    said = directory.read_provenance(workdir / "model")
    assert said["step"] in (3, 5)
    assert said["config"]["model.variant"] == "tiny"
    assert {"git", "packages", "devices", "mesh", "dataset", "leaks"} <= said.keys()


def test_a_damaged_record_is_not_overwritten(tmp_path):
    path = tmp_path / provenance.RUNS
    mesh = places.make_mesh(config_with().mesh)
    for text in ("[{", '{"a": 1}', "[1]"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"run.json is damaged: it is "):
            provenance.note_start(tmp_path, flatten(config_with()), mesh, step=0)
        assert path.read_text() == text


def test_revision(tmp_path):
    """Of a fresh repository, before and after a change; none outside of one."""
    assert provenance.revision(tmp_path) is None
    git = lambda *words: provenance._git(tmp_path, *words)  # noqa: E731
    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("-c", "user.name=n", "-c", "user.email=e@e", "commit", "-m", "first")
    clean = provenance.revision(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", clean["commit"]) and not clean["dirty"]
    (tmp_path / "a").write_text("2")
    assert provenance.revision(tmp_path) == clean | {"dirty": True}


def test_the_report(workdir):
    text = (workdir / report.REPORT).read_text()
    lines = report.read_lines(workdir / report.JSONL)
    best = max(line["val-original/oIoU"] for line in lines if "val-original/oIoU" in line)
    assert f"| val | original | {best:.2f} |" in text
    assert "images/s (median of " in text
    assert "no peak is known for this device, so no MFU" in text
    assert "    optim.max_steps = 5" in text
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (workdir / target).is_file(), target
    assert text.count("![") == 2
    with Image.open(workdir / report.CURVES) as picture:
        assert picture.width > 1000


def test_a_report_of_a_known_device(tmp_path):
    """Half the peak is half the peak; a broken last line and missing pictures do no harm."""
    config = config_with()
    start = {
        "time": "2026-01-01T00:00:00+00:00",
        "step": 0,
        "git": None,
        "command": ["launch.py"],
        "devices": {"kind": "TPU v5p", "count": 4},
        "mesh": {"data": 4, "fsdp": 1, "tensor": 1},
        "packages": {"jax": "0"},
    }
    (tmp_path / provenance.RUNS).write_text(json.dumps([start]))
    work = report.flops.training(config.architecture())
    rate = 4 * 459e12 / work / 2
    line = json.dumps({"step": 1, "train/images_per_s": rate})
    (tmp_path / report.JSONL).write_text(f'{line}\n{{"step": 2, "tr')
    report.write(tmp_path, flatten(config), arch=config.architecture(), freeze=(), scored=())
    text = (tmp_path / report.REPORT).read_text()
    assert ": 50.0% of the devices' bfloat16 peak (MFU)." in text
    assert "Not evaluated yet." in text and "Pictures" not in text


def test_the_best_is_of_the_evaluations_that_count(tmp_path):
    """Scores of before, which meant something else, stay in `metrics.jsonl`."""
    scores = ((2, 90.0), (4, 80.0), (4, 20.0), (6, 10.0))  # step 4 was scored anew
    lines = [{"step": step, "val-dit/oIoU": score} for step, score in scores]
    assert "| val | dit | 20.00 | – | 4 |" in report._scores(lines, tmp_path, {4, 6})
    assert "Not evaluated yet." in report._scores(lines, tmp_path, ())


def test_curves_are_smoothed_without_a_start_at_zero():
    assert curves.smooth([2.0, 2.0, 2.0]) == pytest.approx([2.0] * 3)
    values = curves.smooth(list(np.random.default_rng(0).normal(5, 1, 200)))
    assert np.std(values[50:]) < 0.5


def test_traces(workdir):
    assert list((workdir / "profile").rglob("*.xplane.pb"))


@pytest.mark.parametrize("text", ["10", "3:3", "0:2", "a:b", "5:2", "1:2:3"])
def test_steps_that_are_no_range(text):
    with pytest.raises(ValueError, match="profile_steps is .* expected FIRST:END"):
        config_with(profile_steps=text)


SCOPES = (
    *("image_encoder/patch_embed", "image_encoder/blocks.1/attn", "image_encoder/blocks.1/mlp"),
    *("image_encoder/injector.1", "image_encoder/neck", "text_encoder/layer.0", "prompt_encoder"),
    *("mask_decoder", "loss", "clip", "adam", "ema"),
)


@pytest.fixture(scope="module")
def program(kept):
    config = config_with()
    mesh = places.make_mesh(config.mesh, jax.devices()[:1])
    text = compile.lower(config, mesh).as_text(debug_info=True)
    # Gradients are named transpose(jvp(image_encoder))/blocks.1/attn.
    return re.sub(r"transpose\(|jvp\(|\)", "", text)


@pytest.mark.parametrize("scope", SCOPES)
def test_the_program_names_the_models_components(program, scope):
    assert f"/{scope}/" in program


@pytest.mark.proof
def test_the_second_start_compiles_nothing(workdir, tmp_path, monkeypatch):
    """Misses of the cache that the run above filled."""
    jax.clear_caches()
    monkeypatch.setattr(loop, "write_report", lambda run: None)
    with cache_events() as events:
        loop.train(config_with(), tmp_path / "again")
    assert events["cache_hits"] > 3 and events["cache_misses"] == 0


def test_the_start_of_a_run_that_was_renamed_or_copied_compiles_nothing(monkeypatch, tmp_path):
    monkeypatch.delenv(compile_cache.VARIABLE)

    def start(workdir):
        compile_cache.keep_compiled("", workdir)
        with cache_events() as events:
            jax.jit(lambda x: x * 3 + 1)(np.float32(len("a program"))).block_until_ready()
        return events["cache_hits"], events["cache_misses"]

    first, copied, renamed = (tmp_path / name for name in ("first", "copied", "deeper/renamed"))
    with compiling_once(tmp_path):
        assert start(first) == (0, 1)
        shutil.copytree(first, copied)
        assert start(copied) == (1, 0)
        renamed.parent.mkdir()
        assert start(first.rename(renamed)) == (1, 0)


@contextlib.contextmanager
def cache_events():
    """What happens in JAX's cache of programs, counted by JAX itself."""
    events = collections.Counter()

    def count(name, **_):
        events[name.removeprefix("/jax/compilation_cache/")] += 1

    jax.monitoring.register_event_listener(count)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_listener(count)


def test_where_programs_are_kept(monkeypatch, tmp_path):
    monkeypatch.delenv(compile_cache.VARIABLE, raising=False)
    assert compile_cache.folder("", tmp_path) == tmp_path / "compiled"
    assert compile_cache.folder("off", tmp_path) is None
    assert str(compile_cache.folder("shared/xla", tmp_path)) == "shared/xla"
    monkeypatch.setenv(compile_cache.VARIABLE, "elsewhere")
    assert str(compile_cache.folder("off", tmp_path)) == "elsewhere"

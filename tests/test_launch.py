"""The command line, as people call it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import launched
from PIL import Image
from places import PYTHONPATH, ROOT, SUPPORT
from runs import FIVE_STEPS, config_of, flags_of, small_runs

import dit_jax
from dit_jax import cli as command
from dit_jax.data import prepare
from dit_jax.eval import score
from dit_jax.figures import __main__ as figures
from dit_jax.train.trained import load
from dit_jax.weights import hub


@pytest.fixture(scope="module")
def flags():
    """The run of a small model that tests of training share, scored on two splits."""
    return flags_of(**FIVE_STEPS, data__eval_splits=("val", "testA"))


@pytest.fixture(scope="module")
def trained(flags, tmp_path_factory):
    """A run in a process of its own, as people start it."""
    workdir = tmp_path_factory.mktemp("run")
    command = [sys.executable, SUPPORT / "small_launch.py", *flags, f"--workdir={workdir}"]
    how = dict(cwd=ROOT, env=os.environ | {"PYTHONPATH": PYTHONPATH}, capture_output=True)
    done = subprocess.run(command, **how, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "Trained 5 steps." in done.stdout
    return workdir, done.stdout


def test_help_and_refusals_need_no_jax():
    """They come at once: JAX takes seconds to import, and NumPy a tenth of one."""
    asked = "import sys, dit_jax.cli as cli; status = cli.run(['launch.py', '--mode=nothing'])"
    program = f"{asked}; sys.exit(status if not {{'jax', 'numpy'}} & {{*sys.modules}} else 9)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1 and "--mode is 'nothing'" in done.stderr


def test_train(trained):
    workdir, said = trained
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == [1, 2, 3, 4, 5]
    scores = json.loads((workdir / "eval" / "shapes-val-dit.json").read_text())
    assert scores["n"] == 8
    assert scores["protocol"] == "dit"
    words = {"vocab.txt", "tokenizer_config.json"}
    assert {"config.json", "manifest.json", "model.safetensors"} | words == {
        path.name for path in (workdir / "model").iterdir()
    }
    noted = json.loads((workdir / "model" / "manifest.json").read_text())["scores"]
    assert noted["shapes-val-dit"]["oIoU"] == scores["oIoU"]
    assert noted["shapes-testA-original"]["n"] == 8
    with Image.open(workdir / "pictures" / "step_000003.png") as picture:
        assert picture.width > 1000
    assert "oIoU" in said


def test_eval_agrees(trained, flags, programs, tmp_path):
    """Of the run's folder and of its exported model: the scores that training ended with."""
    workdir, _ = trained
    name = "eval/shapes-testA-original.json"
    before = (workdir / name).read_text()
    (workdir / name).unlink()
    with small_runs(programs):
        of_run = launched("--mode=eval", *flags, f"--workdir={workdir}")
        model = f"--model={workdir / 'model'}"
        of_model = launched("--mode=eval", *flags, f"--workdir={tmp_path}", model)
    assert of_run.returncode == of_model.returncode == 0, of_run.stderr + of_model.stderr
    assert (workdir / name).read_text() == (tmp_path / name).read_text() == before
    assert of_model.stdout == of_run.stdout


def test_a_runs_directory_is_known_to_hold_its_best_checkpoint(trained, programs):
    """So that what it was calibrated to counts for both."""
    workdir, _ = trained
    with small_runs(programs):
        found = load(config_of(**FIVE_STEPS), workdir, model_dir=None)
    assert found.folder == workdir / "model"


def test_help():
    done = launched("--help")
    assert done.returncode == 0
    assert "--workdir" in done.stdout and "python launch.py --config=" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config.optim.lrr=1"], "unknown key 'lrr' in --config.optim.lrr=1; .* key is lr."),
        (["--config.optim.batch_size=many"], "--config.optim.batch_size=many"),
        (["--config.mesh.fsdp=3"], "mesh.data × mesh.fsdp × mesh.tensor is -1 × 3 × 1"),
        (["--mode=eval"], "holds no checkpoints; train first or give --model=DIR."),
        (["--mode=eval", "--model=nowhere"], "nowhere is no model directory"),
        (["--mode=probe", "--coordinator=a:1"], "--mode=probe does not read --coordinator."),
        (["--mode=calibrate", "--process_id=0"], "--mode=calibrate does not read --process_id."),
        (["--config=configs/nope.py:x"], "error: no such config file: configs/nope.py."),
        (["--config=configs/paper.py"], "no row is named; expected configs/paper.py:ROW"),
        (["--config.data.eval_splits=val,testC"], "unknown split 'testC' of shapes"),
    ],
)
def test_mistakes(tmp_path, arguments, sentence):
    failed = launched("--config=configs/quickstart.py", f"--workdir={tmp_path / 'w'}", *arguments)
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert re.search(sentence, failed.stderr), failed.stderr
    assert not (tmp_path / "w" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (
            ModuleNotFoundError("PyTorch files need PyTorch."),
            1,
            "error: PyTorch files need PyTorch.",
        ),
        (ValueError("two\nlines"), 1, "error: two lines"),
        (KeyboardInterrupt(), 130, "Interrupted; nothing that was saved is lost."),
    ],
)
def test_errors_are_one_line(monkeypatch, capsys, error, status, sentence):
    def fail(arguments):
        raise error

    monkeypatch.setattr(command, "parse", fail)
    assert command.run(["launch.py"]) == status
    assert capsys.readouterr().err == sentence + "\n"


QUICK = Path("configs", "quickstart.py")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("x = 1", "FILE has no get_config(); expected a file like configs/quickstart.py."),
        ("def get_config(:", "FILE is no Python file: line 1: invalid syntax."),
        ("import nowhere", "FILE, line 1: ModuleNotFoundError: No module named 'nowhere'."),
        ('{"a": null}', "FILE, line 1: NameError: name 'null' is not defined."),
        ("def get_config():\n  return {}['a']", "FILE, line 2: KeyError: 'a'."),
        ("def get_config():\n  open('no/where')", "FILE, line 2: FileNotFoundError: [Errno 2] No"),
        ("def get_config():\n  return 3", "FILE gives 3 as its config; expected a ConfigDict."),
        ("def get_config():\n  raise ValueError('expected a row.')", "expected a row.\n"),
    ],
)
@pytest.mark.parametrize("key", [[], ["--config.optim.lr=1"]])
def test_a_config_file_with_a_mistake(tmp_path, monkeypatch, content, sentence, key):
    monkeypatch.delitem(sys.modules, "config_config", raising=False)  # as in a new process
    file = tmp_path / "mine.py"
    file.write_text(content)
    failed = launched("--mode=plan", f"--config={file}", *key)
    if content.endswith("return 3") and key:
        sentence = "--config could not be read:"
    if "open(" in content and not key:
        sentence = "FILE cannot be read: [Errno 2] No such file"
    said = "error: " + sentence.replace("FILE", str(file))
    assert (failed.returncode, failed.stderr.startswith(said)) == (1, True), failed.stderr
    assert failed.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--config=configs/quickstart"], f"configs/quickstart. Did you mean {QUICK}?"),
        (["--config=quickstrat.py", "--config.optim.lr=1"], f"quickstrat.py. Did you mean {QUICK}"),
        (["--config", "configs/quickstart"], f"configs/quickstart. Did you mean {QUICK}?"),
        (["--config="], "no such config file: ''."),
        (["--config.optim.lr=1"], "--config.optim.lr=1 changes a config; expected --config=FILE"),
        (["--config=configs/quickstart.py:x"], "takes nothing behind a colon"),
        (["--workdir=w", "plan"], "unexpected argument 'plan'; … =value. A mode stands first."),
    ],
)
def test_which_config_file_is_meant(words, sentence):
    failed = launched("--mode=plan", *words)
    assert failed.returncode == 1
    assert all(part in failed.stderr for part in sentence.split(" … ")), failed.stderr
    assert failed.stderr.count("\n") == 1


def test_help_and_words_that_are_no_command():
    assert launched("help").stdout == launched("--help").stdout != ""
    failed = launched("pepare", "--dataset=x")
    assert "the command is 'pepare'; expected" in failed.stderr
    assert failed.stderr.endswith("(nearest: prepare).\n")


def test_the_version(capsys):
    assert command.run(["dit-jax", "--version"]) == 0
    assert capsys.readouterr().out == f"dit_jax {dit_jax.__version__}\n"
    assert {"Segmenter", "load", "__version__"} <= set(dir(dit_jax))


def test_a_home_folder_and_a_bare_mode(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    words = ["--workdir=~/runs", "--config.data.source=~/photos", "--text=~ sign", "--port=1"]
    expected = ["--workdir=/home/somebody/runs", "--config.data.source=/home/somebody/photos"]
    assert [command._expanded(word) for word in words] == [*expected, "--text=~ sign", "--port=1"]
    seen = []
    monkeypatch.setattr(command, "main", lambda argv: 0)
    monkeypatch.setattr(command, "parse", lambda argv: seen.extend(argv))
    assert command.run(["launch.py", "predict", "--out=a"]) == 0
    assert seen == ["launch.py", "--mode=predict", "--out=a"]


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (score, ["~/a.jsonl", "--truth=~/t", "--json=~/j", "--markdown=~/m"]),
        (prepare, ["--dataset=folder", "--source=~/a", "--out=~/o", "--images=~/i", "--vocab=~/v"]),
        (figures, ["curves", "~/a", "--out=~/o"]),
        (figures, ["overlay", "--model=m", "--text=t", "--image=~/a", "--out=~/o"]),
    ],
)
def test_a_home_folder_of_programs(program, words, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    found = str(vars(program._parser().parse_args(words)))
    assert "~" not in found and found.count("/home/somebody/") == sum("~" in w for w in words)
    assert hub.local("~/model") == Path("/home/somebody/model")


@pytest.mark.parametrize("program", command.PROGRAMS)
def test_a_bare_program(program, capsys):
    with pytest.raises(SystemExit, match="0"):
        command.run(["launch.py", program, "--help"])
    assert "usage: " in capsys.readouterr().out


def test_neither_mode_nor_program(capsys):
    assert command.run(["launch.py", "predic"]) == 1
    assert "the command is 'predic'; expected one of" in capsys.readouterr().err


def test_devices_that_are_not_here(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    program = "import sys; from dit_jax import cli; sys.exit(cli.run(['dit-jax', 'figures', 'x']))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    (said,) = done.stderr.splitlines()
    assert said.startswith("error: JAX_PLATFORMS is 'cuda', and this Python finds no such device")
    assert "pip install 'dit_jax[cuda]'" in said

"""What comes from outside, broken in thousands of ways: an answer, or a refusal in one sentence.

Pictures, arrays, texts, points, lists of pairs, predictions, model directories and the JSON files
beside checkpoints. Every case also watches that nothing is run and nothing is written elsewhere.
`make proof` draws twenty times as many.
"""

import contextlib
import json
import os
import shutil
import string
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import broken
import numpy as np
import pytest
from broken import PIXELS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from quickly import compiled_quickly
from runs import config_of
from small_models import write_model

from dit_jax import Segmenter
from dit_jax.data.pixels import pictures
from dit_jax.data.pixels.decode import decode_image
from dit_jax.data.pixels.picture_size import picture_size
from dit_jax.eval.prediction_files import read as read_predictions
from dit_jax.models.architecture import from_json, to_json
from dit_jax.predict import command, pairs
from dit_jax.predict.outputs import file_name
from dit_jax.predict.prompts import Prompt
from dit_jax.predict.requests import Question
from dit_jax.strict import flatten
from dit_jax.train import checkpoint, workdir

AT_LEAST = 2000  # cases of all tests together
OFTEN = 20  # times as many in a proof
REFUSALS = (ValueError, OSError)
LONGEST = 4000  # characters of a sentence
RUNS_CODE = {
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork"),
    *("pickle.find_class", "ctypes.dlopen", "socket.connect"),
}
CHANGES_FILES = {
    *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "shutil.rmtree"),
}
CASES: Counter[str] = Counter()  # how many cases each test has run

_watching: list[Path] = []  # the folder that may be written to, while anything is watched
_seen: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def quick(programs):
    with compiled_quickly(programs):
        yield


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    """What the properties work with."""
    model = write_model(tmp_path_factory.mktemp("model") / "ldit")
    folder = tmp_path_factory.mktemp("scratch")
    segmenter = Segmenter.from_pretrained(model, batch_size=1)
    segmenter(PIXELS, "the red star")  # XLA loads what it needs
    pictures.rgb(Image.new("LAB", (3, 2)))  # and so does Pillow, which may compile it first
    copy = shutil.copytree(model, folder / "model")
    (copy / "manifest.json").unlink(missing_ok=True)  # which would tell of any change
    return SimpleNamespace(
        model=model,
        segmenter=segmenter,
        config=config_of(),
        folder=folder,
        copy=copy,
        weights=(copy / "model.safetensors").read_bytes(),
    )


@contextlib.contextmanager
def answered_or_refused(test: str, folder: Path) -> Iterator[None]:
    """One case: nothing, or a refusal in one sentence; nothing run or written outside `folder`."""
    CASES[test] += 1
    _seen.clear()
    _watching.append(folder.resolve())
    try:
        yield
    except REFUSALS as error:
        check_sentence(error)
    finally:
        _watching.pop()
    assert not _seen, f"{test}: {_seen}"


def check_sentence(error: Exception) -> None:
    first, *rest = str(error).split("\n")
    assert first.isprintable() and first and len(str(error)) < LONGEST, repr(str(error))
    # A file with several mistakes lists them, a line each.
    assert not rest or first.endswith(" mistakes:"), repr(str(error))
    assert all(line.isprintable() for line in rest), repr(str(error))


def _audit(event: str, arguments: tuple) -> None:
    """Notes what must not happen; an audit hook stays for good, so it looks only while watching."""
    if not _watching:
        return
    if event in RUNS_CODE:
        _seen.append(f"{event} {arguments!r:.200}")
    elif event in CHANGES_FILES or (event == "open" and _writes(arguments)):
        target = arguments[0]
        if isinstance(target, (str, bytes, os.PathLike)):
            path = Path(os.path.abspath(os.fsdecode(target)))
            if not path.resolve().is_relative_to(_watching[-1]):
                _seen.append(f"{event} {path}")


def _writes(arguments: tuple) -> bool:
    _, mode, flags = arguments
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    by_mode = isinstance(mode, str) and any(letter in mode for letter in "wax+")
    return by_mode or (isinstance(flags, int) and bool(flags & writing))


sys.addaudithook(_audit)


def pictures_as_files(at, data):
    rgb = pictures.rgb(data)
    assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3
    decode_image(data, name="x")
    height, width = picture_size(data, name="x")
    assert height * width == rgb.shape[0] * rgb.shape[1]


def pictures_as_values(at, value):
    rgb = pictures.rgb(value)
    assert rgb.dtype == np.uint8 and rgb.shape[2] == 3 and rgb.flags.c_contiguous and rgb.size


def texts(at, text):
    at.segmenter.check(Question(PIXELS, "x", text))


def answers(at, text):
    (found,) = at.segmenter(PIXELS, text)
    assert found.mask.shape == PIXELS.shape[:2] and np.isfinite(found.probability).all()


def prompts(at, points, box):
    found = Prompt.of(points, box, picture=at.segmenter.open(PIXELS))
    assert all(0 <= x < 17 and 0 <= y < 13 and label in (0, 1) for x, y, label in found.points)


def questions(at, image, text, points, box):
    at.segmenter([image, PIXELS], text, points=points, box=box)


def lines_of_pairs(at, data):
    (at.folder / "pairs.jsonl").write_bytes(data)
    assert all(task.texts for task in pairs.read(at.folder / "pairs.jsonl"))


def lines_of_answers(at, data):
    (at.folder / "answers.jsonl").write_bytes(data)
    for line in read_predictions(at.folder / "answers.jsonl"):
        assert line.mask().dtype == bool
        line.truth(), line.nothing(), line.number("sent_id"), line.text("text")


def names_of_files(at, image, text):
    name = file_name(7, image, text)
    assert set(name) <= set(string.ascii_lowercase + string.digits + "-") and len(name) < 100


def written_files(at, name, text):
    """The whole command, on a picture that is called anything."""
    folder = at.folder / "written"
    folder.mkdir(exist_ok=True)
    (folder / "photo.png").write_bytes(broken.encoded("PNG"))
    line = {"image": f"{name}/../photo.png" if name else "photo.png", "text": text, "id": name}
    (folder / "pairs.jsonl").write_text(json.dumps(line) + "\n")
    file = folder / "pairs.jsonl"
    command.predict(at.model, folder / "out", pairs_file=file, overwrite=True, skip_broken=True)


def architectures(at, values):
    arch = from_json(values)
    assert arch.image_size <= 4096 and from_json(to_json(arch)) == arch


def model_directories(at, name, data):
    sound = (at.copy / name).read_bytes()
    (at.copy / name).write_bytes(data)
    try:
        Segmenter.from_pretrained(at.copy)
    finally:
        (at.copy / name).write_bytes(sound)


def scores_of_checkpoints(at, data):
    (at.folder / "scores.json").write_bytes(data)
    found = checkpoint.read_scores(at.folder / "scores.json")
    assert all(type(step) is int and type(score) is float for step, score in found.items())


def configs_of_runs(at, data):
    (at.folder / "config.json").write_bytes(data)
    workdir.check_same(at.folder, flatten(at.config))


FILES = broken.damaged([broken.encoded(kind) for kind in broken.KINDS]) | st.binary(max_size=60)
NAMES = broken.TEXT | st.sampled_from(["../..", "/etc", "a/../../b", "~", "C:\\x", "-"])
SCORES, CONFIG = {"500": 61.5, "1000": -1.0}, {"optim.lr": 1e-3, "model.presence": False}
# property → how many cases, and what each is drawn from
PROPERTIES = {
    pictures_as_files: (500, lambda at: (FILES,)),
    pictures_as_values: (200, lambda at: (broken.IMAGE,)),
    texts: (300, lambda at: (broken.TEXT,)),
    answers: (40, lambda at: (broken.TEXT,)),
    prompts: (200, lambda at: (broken.POINTS, broken.BOX)),
    questions: (100, lambda at: (broken.IMAGE, broken.VALUE, broken.VALUE, broken.VALUE)),
    lines_of_pairs: (250, lambda at: (broken.lines(broken.PAIR),)),
    lines_of_answers: (250, lambda at: (broken.lines(broken.ANSWER),)),
    names_of_files: (150, lambda at: (NAMES, st.none() | broken.TEXT)),
    written_files: (25, lambda at: (NAMES, broken.TEXT)),
    architectures: (250, lambda at: (broken.architectures(),)),
    model_directories: (
        150,
        lambda at: (
            st.tuples(st.just("model.safetensors"), broken.weights(at.weights))
            | st.tuples(st.just("config.json"), broken.configurations())
            | st.tuples(st.just("vocab.txt"), st.binary(max_size=200))
        ),
    ),
    scores_of_checkpoints: (100, lambda at: (broken.lines(SCORES),)),
    configs_of_runs: (100, lambda at: (broken.lines(CONFIG),)),
}


def run(which, at, *, factor):
    count, strategies = PROPERTIES[which]
    drawn = strategies(at)
    drawn = st.tuples(*drawn) if isinstance(drawn, tuple) else drawn

    @settings(
        max_examples=count * factor,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn)
    def check(case):
        with answered_or_refused(which.__name__, at.folder):
            which(at, *case)

    check()


@pytest.mark.parametrize("which", PROPERTIES, ids=lambda which: which.__name__)
def test_an_answer_or_a_sentence(which, at):
    run(which, at, factor=1)


@pytest.mark.proof
@pytest.mark.parametrize("which", PROPERTIES, ids=lambda which: which.__name__)
def test_an_answer_or_a_sentence_often(which, at):
    run(which, at, factor=OFTEN)


def test_there_were_enough_cases(request):
    ran = {item.callspec.id for item in request.session.items if hasattr(item, "callspec")}
    if not {which.__name__ for which in PROPERTIES} <= ran:
        pytest.skip("only some of the properties were run")
    assert sum(CASES.values()) >= AT_LEAST, CASES

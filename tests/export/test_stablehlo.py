"""The exported program against the Python API: the same masks, on machines without this package."""

import ast
import dataclasses
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_line import launched
from exporting import BERT, SMALL, TEXTS, VIT, drawn, made_of, random_params, runner, said_to_need
from jax import export as jax_export
from PIL import Image
from quickly import environment
from runs import compiling_once
from small_models import some

import dit_jax
from dit_jax import vocabulary
from dit_jax.data.pixels.pictures import rgb
from dit_jax.data.shapes.dataset import VOCAB
from dit_jax.data.tokenizer import Tokenizer
from dit_jax.eval.metrics import iou
from dit_jax.export import formats, run, stablehlo
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture, Injection
from dit_jax.ops.attention import anywhere, dispatch
from dit_jax.weights import directory, manifest


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with compiling_once(tmp_path_factory.mktemp("xla")):
        yield


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    arch = Architecture(VIT, BERT, Injection.LAYER_WISE, presence=True, **SMALL)
    folder = tmp_path_factory.mktemp("model") / "small"
    about = dict(vocab=VOCAB, provenance={"source": "drawn at random"}, license="Apache-2.0")
    directory.save(folder, arch, random_params(arch), **about)
    promise = manifest.Calibration(0.83, 0.05, 19, "shapes", "val", {})  # nearly always "nothing"
    manifest.note_calibration(folder, promise, of=manifest.read(folder))
    return folder


@pytest.fixture(scope="module")
def exported(model_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "one"
    formats.export(model_dir, out, form="stablehlo")
    return out


@pytest.fixture(scope="module")
def segmenter(exported):
    return runner(exported).Segmenter(exported)


@pytest.fixture(scope="module")
def python(model_dir):
    return dit_jax.Segmenter.from_pretrained(model_dir)


def agree(said, expected):
    for i, answer in enumerate(expected):
        assert said["mask"][i].shape == answer.mask.shape
        assert iou(said["mask"][i], answer.mask) >= 0.999
        assert np.abs(said["probability"][i] - answer.probability).max() < 0.01
        assert said["score"] is said[answer.score_kind]
        assert abs(said["score"][i] - answer.score) < 0.01
        assert abs(said["presence"][i] - answer.presence) < 0.01
        assert said["nothing"][i] == answer.nothing == (answer.presence < 0.83)
    return np.mean([answer.mask.mean() for answer in expected])


@pytest.mark.parametrize(
    "size", [(48, 64), (256, 191), (64, 64), (128, 128), (1, 1), (3, 250), (250, 3), (300, 400)]
)
def test_masks_are_those_of_the_python_api(segmenter, python, size):
    image = drawn(*size)
    covered = agree(segmenter(image, TEXTS), python(image, TEXTS))
    assert 0.1 < covered < 0.9 or min(size) < 10


@pytest.mark.parametrize("count", [1, pytest.param(23, marks=pytest.mark.proof)])
def test_real_photographs(exported, python, shared, count):
    paths = sorted((shared / "data" / "photos").glob("*.jpg"))
    paths += sorted((shared / "data/mini_refcoco/images/train2014").glob("*.jpg"))
    paths = paths[:count]
    assert len(paths) == count
    module = runner(exported)
    module.STEP = 2048  # compiles once
    segmenter = module.Segmenter(exported)
    for path in paths:
        image = np.asarray(Image.open(path).convert("RGB"))
        agree(segmenter(image, TEXTS), python(image, TEXTS))


def test_words_that_are_not_read_are_those_of_the_python_api(segmenter, python, caplog):
    texts = ["the red star", "a \u661f star", "\u661f " + "the red star near " * 6]
    said, expected = (ask(drawn(64, 64), texts) for ask in (segmenter, python))
    assert said["cut"] == [one.cut for one in expected]
    assert said["unknown"] == [one.unknown for one in expected] == [(), ("\u661f",), ("\u661f",)]
    assert said["cut"] == ["", "", "near " + ("the red star near " * 3).strip()]
    assert [record.name for record in caplog.records] == ["root", "absl"]  # once a call
    for text, message in {"\u661f": "knows no word of the", "": "is empty, expected"}.items():
        for ask in (segmenter, python):
            with pytest.raises(ValueError, match=message):
                ask(drawn(64, 64), [text])


@pytest.mark.parametrize("lower", [True, False])
def test_the_runner_spells_as_the_vocabulary_says(tmp_path, lower):
    """It reads a piece a line too: U+2028 ends none."""
    pieces = [*vocabulary.SPECIAL, "\u2028", "Red", "red", "caf\u00e9", "cafe"]
    (tmp_path / "words.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
    (tmp_path / "out").mkdir()
    vocabulary.write(tmp_path / "words.txt", tmp_path / "out")
    found = run.words(tmp_path / "out").encode("Red caf\u00e9").ids
    assert found == ([2, 7, 9, 3] if lower else [2, 6, 8, 3])
    assert found == next(Tokenizer(tmp_path / "words.txt").uncut(["Red caf\u00e9"]))


def test_it_is_compiled_once_a_bucket(exported):
    segmenter = runner(exported).Segmenter(exported)
    for height, width in ((200, 256), (90, 33), (1, 255)):
        segmenter(drawn(height, width), TEXTS)
    assert segmenter.program.run._cache_size() == 1
    segmenter(drawn(257, 257), TEXTS)
    assert segmenter.program.run._cache_size() == 2


def test_pictures_of_several_sizes_in_one_batch(segmenter, exported):
    """And whatever lies around them in the array is never seen."""
    sizes = [(90, 120), (200, 31), (256, 256)]
    batch = np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3), dtype=np.uint8)
    for row, size in zip(batch, sizes, strict=True):
        row[: size[0], : size[1]] = drawn(*size)
    words = Tokenizer(exported / "vocab.txt", 20)
    text = words(["the red circle"] * 3)
    said = jax.device_get(segmenter.program.run({}, batch, np.array(sizes, np.int32), *text))
    for i, (h, w) in enumerate(sizes):
        alone = segmenter(drawn(h, w), ["the red circle"])
        np.testing.assert_array_equal(said["mask"][i, :h, :w], alone["mask"][0])
        assert not said["mask"][i, h:].any() and not said["mask"][i, :, w:].any()
        assert not said["probability"][i, h:].any() and not said["probability"][i, :, w:].any()


def test_one_program_for_three_platforms_and_any_size(exported):
    program = jax_export.deserialize(bytearray((exported / "segment.stablehlo").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    shapes = [str(aval.shape).replace(" ", "") for aval in program.in_avals]
    assert shapes == ["(b,h,w,3)", "(b,2)", "(b,20)", "(b,20)"]
    assert not (exported / "weights.safetensors").exists()
    assert "image_encoder" in program.mlir_module() and ".py" not in program.mlir_module()


@pytest.mark.parametrize("injection", some(Injection.E2E_CARRIED, Injection.CROSS_ATTENTION_FFN))
def test_every_method_is_a_program(injection):
    arch = Architecture(VIT, BERT, injection, mask_padding=True, **SMALL)
    program = stablehlo.make(arch, params_lib.flatten(random_params(arch)), inside=True)
    shapes = {aval.str_short() for aval in program.out_avals}
    assert shapes == {"bool[b,h,w]", "float32[b,h,w]", "float32[b]"}


def test_the_folder(exported, model_dir):
    noted = manifest.verify(exported)
    words = {"vocab.txt", "tokenizer_config.json"}
    assert noted.files.keys() == {"segment.stablehlo", "run.py", "from_pillow.py"} | words
    assert noted.provenance == {"source": "drawn at random"} and noted.license == "Apache-2.0"
    card = (exported / "README.md").read_text()
    assert "python run.py photo.jpg" in card and "$" not in card
    writer = version("jaxlib")
    assert noted.packages["jaxlib"] == writer and noted.packages["jax"] == version("jax")
    assert f"jaxlib {writer} wrote the program. Releases of jaxlib up to six months newer" in card
    assert (exported / "vocab.txt").read_bytes() == (model_dir / "vocab.txt").read_bytes()


def test_the_runner_needs_little(exported):
    """One of jax and onnxruntime, where its program runs; Pillow only as a command."""
    tree = ast.parse((exported / "run.py").read_text())
    assert imported(tree.body) == {"numpy", "tokenizers"}
    parts = {node.name: imported(ast.walk(node)) for node in tree.body if hasattr(node, "name")}
    assert {name: found for name, found in parts.items() if found} == {
        "StableHlo": {"jax"},
        "Onnx": {"onnxruntime"},
        "read": {"from_pillow", "PIL"},
    }
    every = {"numpy", "tokenizers", "jax", "onnxruntime", "PIL"}
    assert imported(ast.walk(tree)) == every | {"from_pillow"}
    beside = ast.parse((exported / "from_pillow.py").read_text())
    assert imported(ast.walk(beside)) == {"numpy", "PIL"}


def imported(nodes):
    """Packages outside of Python's own library."""
    names = {
        (node.module if isinstance(node, ast.ImportFrom) else alias.name).split(".")[0]
        for node in nodes
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    return names - set(sys.stdlib_module_names)


def test_the_runner_as_people_call_it(exported, python, programs, tmp_path):
    image = drawn(60, 90)
    Image.fromarray(image).save(tmp_path / "photo.png")
    alone = made_of(tmp_path / "venv", said_to_need(exported, "stablehlo"))
    command = [alone, "-Es", exported / "run.py", "photo.png", *TEXTS]
    how = dict(cwd=tmp_path, env=environment(programs), capture_output=True, text=True)
    done = subprocess.run(command, **how, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("photo-1.png: the red circle, confidence ")
    answers = python(image, TEXTS)
    assert done.stdout.count("so: nothing is meant") == sum(one.nothing for one in answers) == 1
    for number, expected in enumerate(answers, 1):
        mask = np.asarray(Image.open(tmp_path / f"photo-{number}.png"))
        assert mask.dtype == bool and iou(mask, expected.mask) >= 0.999


def test_the_runner_reads_pictures_as_the_segmenter_does(exported, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(exported)
    monkeypatch.delitem(sys.modules, "from_pillow", raising=False)  # of another folder
    exif, bits = Image.Exif(), np.random.default_rng(0).integers(0, 4096, (6, 9), np.uint16)
    exif[0x0112] = 6
    Image.fromarray(drawn(60, 90)).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(bits).save(tmp_path / "deep.png", exif=exif)
    for name, size in (("turned.jpg", (90, 60, 3)), ("deep.png", (9, 6, 3))):
        found = runner(exported).read(tmp_path / name)
        assert found.shape == size
        np.testing.assert_array_equal(found, rgb(tmp_path / name))
    said = f"{tmp_path / 'deep.png'} has 16 bits, of which 12 are used; 4095 is read as white.\n"
    assert capsys.readouterr().err == said
    assert sys.modules.pop("from_pillow").__file__ == str(exported / "from_pillow.py")


@pytest.mark.parametrize(
    ("picture", "text", "said"),
    [
        ("gone.png", "a circle", "No such file or directory: 'gone.png'"),
        ("vocab.txt", "a circle", "cannot identify image file"),
        ("photo.png", " ", "an expression of [' '] is empty"),
    ],
)
def test_what_the_command_cannot_do(exported, tmp_path, monkeypatch, picture, text, said):
    Image.fromarray(drawn(20, 20)).save(tmp_path / "photo.png")
    (tmp_path / "vocab.txt").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run.py", picture, text])
    monkeypatch.syspath_prepend(exported)
    with pytest.raises(SystemExit, match=f"^error: .*{re.escape(said)}"):
        runpy.run_path(str(exported / "run.py"), run_name="__main__")
    sys.modules.pop("from_pillow", None)


def test_what_the_runner_cannot_be_asked(segmenter):
    picture = np.zeros((4, 5, 3), np.uint8)
    for odd in (picture / 255, picture[..., 0], picture[None], picture[:0], picture[..., :2]):
        with pytest.raises(ValueError, match=r"array of .*; expected uint8 .H, W, 3.\.$"):
            segmenter(odd, TEXTS)
    for texts in ("red", []):
        with pytest.raises(ValueError, match="expected a list of expressions"):
            segmenter(picture, texts)
    with pytest.raises(ValueError, match="surrogates"):
        segmenter(picture, ["red \ud800"])
    with pytest.raises(ValueError, match="is empty, expected at least one word"):
        segmenter(drawn(20, 20), ["the red circle", " "])


def test_weights_beside_a_program_that_cannot_hold_them(
    model_dir, segmenter, tmp_path, monkeypatch
):
    """Of a model that was trained with products of 8 bits, which not every device has."""
    arch, params = directory.read(model_dir)
    arch = dataclasses.replace(arch, products="fp8")
    directory.save(tmp_path / "trained", arch, params, vocab=model_dir / "vocab.txt")
    monkeypatch.setattr(stablehlo, "INSIDE", 1000)
    formats.export(tmp_path / "trained", tmp_path / "out", form="stablehlo")
    assert (tmp_path / "out" / "segment.stablehlo").stat().st_size < 400_000
    beside = runner(tmp_path / "out").Segmenter(tmp_path / "out")
    image = drawn(70, 80)
    said, expected = beside(image, TEXTS), segmenter(image, TEXTS)
    assert said.keys() == expected.keys()
    for name in ("mask", "probability", "score", "presence"):
        np.testing.assert_allclose(said[name], expected[name], atol=1e-5)


@pytest.mark.parametrize("text", [0, 5])
def test_long_attention_for_any_platform(monkeypatch, text):
    """Head by head on a CPU, at once elsewhere; the batch is a symbol."""
    monkeypatch.setattr(anywhere, "LONG", 1)
    rng = np.random.default_rng(0)
    shapes = [(2, 3, 16, 8), (2, 3, 16 + text, 8), (2, 3, 16 + text, 8), (2, 3, 16, 4)]
    q, k, v, rel = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    key_mask = np.arange(16 + text)[None] > np.array([[0], [1]])

    def attend(q, k, v, rel, key_mask):
        return dispatch.attend(q, k, v, rel=(rel, rel), key_mask=key_mask)

    scope = jax_export.SymbolicScope()
    symbolic = [
        jax.ShapeDtypeStruct(
            jax_export.symbolic_shape(f"b,{','.join(map(str, x.shape[1:]))}", scope=scope), x.dtype
        )
        for x in (q, k, v, rel, key_mask)
    ]
    with dispatch.use_back_end("anywhere"):
        program = jax_export.export(jax.jit(attend), platforms=stablehlo.PLATFORMS)(*symbolic)
    found = jax.jit(program.call)(q, k, v, rel, key_mask)
    expected = attend(*map(jnp.asarray, (q, k, v, rel, key_mask)))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_model_directory_again(model_dir, tmp_path):
    (tmp_path / "eval").mkdir()
    score = {"dataset": "shapes", "split": "val", "protocol": "original", "n": 8, "oIoU": 61.25}
    score |= {"reported": ["oIoU"], "mIoU": 50.0}
    (tmp_path / "eval" / "shapes-val-original.json").write_text(json.dumps(score))
    noted = formats.export(
        model_dir, tmp_path / "out", form="safetensors", license="CC-BY-4.0", scored=tmp_path
    )
    assert noted == manifest.verify(tmp_path / "out")
    assert noted.license == "CC-BY-4.0"
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    assert "| shapes | val | original | 61.25 | 8 |" in card
    assert 'dit_jax.load("out")' in card
    before, after = (directory.read(folder) for folder in (model_dir, tmp_path / "out"))
    assert before[0] == after[0]
    jax.tree.map(np.testing.assert_array_equal, before[1], after[1])


def test_what_a_killed_export_left_goes_with_the_next(model_dir, tmp_path, monkeypatch):
    here, killed = tmp_path / "here" / "out", tmp_path / "killed" / "out"

    def die(*arguments):
        shutil.copytree(here.parent, killed.parent)
        raise InterruptedError

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(directory, "write_tensors", die)
        formats.export(model_dir, here, form="safetensors")
    assert len(list(killed.parent.iterdir())) == 4  # two unfinished folders, and their leases
    os.utime(killed.parent / ".out.lease", (0, 0))
    formats.export(model_dir, killed, form="safetensors")
    assert list(killed.parent.iterdir()) == [killed]


def test_refusals(model_dir, tmp_path):
    def refused(match, *, model=model_dir, out=tmp_path / "out", **settings):
        with pytest.raises((ValueError, OSError), match=match):
            formats.export(model, out, **({"form": "stablehlo"} | settings))
        assert not (tmp_path / "out").exists()

    sam = Architecture(VIT, None, Injection.NONE, **SMALL)
    directory.save(tmp_path / "sam", sam, params_lib.init(sam))
    silent = Architecture(VIT, BERT, Injection.NONE, **SMALL)
    directory.save(tmp_path / "silent", silent, params_lib.init(silent))
    refused("--format is 'onxn'; expected .*nearest: onnx", form="onxn")
    refused("plain SAM, which reads no text", model=tmp_path / "sam")
    refused("silent has no vocab.txt", model=tmp_path / "silent")
    refused("nowhere is no model directory", model=tmp_path / "nowhere")
    refused("sam is not empty", out=tmp_path / "sam")
    refused("which needs no base; expected a pack", base=tmp_path / "sam")
    refused("expected --base=DIR", form="pack")
    refused("holds no scores", scored=tmp_path)


def test_command(model_dir, tmp_path):
    command = ["--mode=export", f"--model={model_dir}", "--format=safetensors"]
    command += [f"--out={tmp_path / 'out'}", "--license=MIT"]
    done = launched(*command)
    assert done.returncode == 0, done.stderr
    assert "4 files" in done.stdout and manifest.verify(tmp_path / "out").license == "MIT"
    again = launched(*command)
    assert again.returncode == 1 and again.stderr.startswith("error: ")
    assert again.stderr.count("\n") == 1 and "is not empty" in again.stderr

"""The ONNX program in onnxruntime against the Python API. `make onnx` runs this: see there."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exporting import BERT, SMALL, TEXTS, VIT, drawn, made_of, random_params, runner, said_to_need
from PIL import Image
from places import ROOT

from dit_jax.data.shapes.dataset import VOCAB
from dit_jax.data.tokenizer import Tokenizer
from dit_jax.eval.metrics import iou
from dit_jax.export import formats, program
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture, Injection
from dit_jax.weights import directory, manifest

pytest.importorskip("jax2onnx", reason="writing ONNX has an environment of its own: `make onnx`")
from dit_jax.export import onnx as onnx_export

SIZES = [(48, 64), (427, 640), (200, 64), (64, 64), (1, 1), (3, 250)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    arch = Architecture(VIT, BERT, Injection.LAYER_WISE, presence=True, **SMALL)
    folder = tmp_path_factory.mktemp("onnx")
    about = dict(vocab=VOCAB, provenance={"source": "drawn at random"})
    directory.save(folder / "model", arch, random_params(arch), **about)
    promise = manifest.Calibration(0.76, 0.05, 19, "shapes", "val", {})  # "nothing" of some sizes
    manifest.note_calibration(folder / "model", promise, of=manifest.read(folder / "model"))
    formats.export(folder / "model", folder / "out", form="onnx")
    return folder / "out"


@pytest.fixture(scope="module")
def python(exported):
    """`program.make`, which tests/export/test_stablehlo.py holds to the Python API."""
    arch, params = directory.read(exported.parent / "model")
    segment = jax.jit(program.make(arch, presence_threshold=0.76))
    words = Tokenizer(VOCAB, arch.text_tokens)
    params = jax.tree.map(jnp.asarray, params)

    def answer(image, texts):
        (h, w), b = image.shape[:2], len(texts)
        padded = np.pad(image, ((0, 640 - h), (0, 640 - w), (0, 0)))
        said = segment(params, np.stack([padded] * b), np.array([[h, w]] * b), *words(texts))
        return {k: np.asarray(v)[:, :h, :w] if v.ndim == 3 else v for k, v in said.items()}

    return answer


@pytest.mark.parametrize("size", SIZES)
def test_masks_are_those_of_the_python_api(exported, python, size):
    segmenter = runner(exported).Segmenter(exported)
    for texts in (TEXTS, TEXTS[:1]):
        image = drawn(*size)
        said, expected = segmenter(image, texts), python(image, texts)
        assert said.keys() == expected.keys() | {"score", "cut", "unknown"}
        assert said["score"] is said["confidence"]
        for i in range(len(texts)):
            assert iou(said["mask"][i], expected["mask"][i]) >= 0.999
        np.testing.assert_array_equal(said["nothing"], expected["nothing"])
        for name in ("probability", "confidence", "presence"):
            np.testing.assert_allclose(said[name], expected[name], rtol=0, atol=1e-4)


def test_real_photographs(exported, python, shared):
    segmenter = runner(exported).Segmenter(exported)
    for path in sorted((shared / "data/mini_refcoco/images/train2014").glob("*.jpg"))[:20]:
        image = np.asarray(Image.open(path).convert("RGB"))
        said, expected = segmenter(image, TEXTS), python(image, TEXTS)
        for i in range(len(TEXTS)):
            assert iou(said["mask"][i], expected["mask"][i]) >= 0.999


@pytest.mark.parametrize("injection", list(Injection))
def test_logits_of_every_method(injection):
    """Where no picture is resized, to 1e-4 of the largest logit."""
    arch = Architecture(VIT, BERT, injection, mask_padding=True, iou_trained=True, **SMALL)
    params = random_params(arch)
    _, jax2onnx = onnx_export._packages()
    model = onnx_export.translate(jax2onnx, arch, params_lib.flatten(params))
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString())
    rng = np.random.default_rng(0)
    for b in (1, 3):
        canvas = rng.integers(0, 256, (b, 64, 64, 3), dtype=np.uint8)
        box = np.array([[0, 0, 64, 64], [8, 0, 48, 64], [0, 20, 64, 24]], np.int32)[:b]
        ids, mask = Tokenizer(VOCAB, 20)([*TEXTS, "a circle"][:b])
        given = dict(canvas=canvas, content=box, input_ids=ids, attention_mask=mask)
        logits, iou = session.run(["logits", "predicted_iou"], given)
        images = onnx_export.normalize(canvas, box)
        expected = params_lib.merge(
            params_lib.structure(arch)[0], jax.tree.map(jnp.asarray, params)
        )(images, ids, mask)
        for found, wanted in ((logits, expected.logits), (iou, expected.iou)):
            assert found.shape == wanted.shape
            assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_the_folder(exported):
    noted = manifest.verify(exported)
    words = {"vocab.txt", "tokenizer_config.json"}
    assert noted.files.keys() == {"segment.onnx", "run.py", "from_pillow.py"} | words
    assert "python run.py photo.jpg" in (exported / "README.md").read_text()


def test_parameters_beside_a_program_that_cannot_hold_them(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "INSIDE", 1000)
    formats.export(exported.parent / "model", tmp_path / "out", form="onnx")
    assert (tmp_path / "out" / "segment.onnx.data").stat().st_size > 100_000
    image = drawn(50, 60)
    found, expected = (
        runner(folder).Segmenter(folder)(image, TEXTS) for folder in (tmp_path / "out", exported)
    )
    np.testing.assert_array_equal(found["mask"], expected["mask"])


def test_the_runner_as_people_call_it(exported, python, tmp_path):
    image = drawn(60, 90)
    Image.fromarray(image).save(tmp_path / "photo.png")
    alone = made_of(tmp_path / "venv", said_to_need(exported, "onnx"))
    command = [alone, "-Es", exported / "run.py", "photo.png", *TEXTS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("photo-1.png: the red circle, confidence ")
    for number, expected in enumerate(python(image, TEXTS)["mask"], 1):
        mask = np.asarray(Image.open(tmp_path / f"photo-{number}.png"))
        assert iou(mask, expected) >= 0.999


def test_command(exported, tmp_path):
    root = ROOT
    model = exported.parent / "model"
    command = ["launch.py", "--mode=export", "--format=onnx", f"--model={model}"]
    done = subprocess.run(
        [sys.executable, *command, f"--out={tmp_path / 'out'}"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "5 files" in done.stdout
    manifest.verify(tmp_path / "out")

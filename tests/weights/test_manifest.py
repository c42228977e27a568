"""A folder that is handed on: what its manifest promises, and how a broken promise is told."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import dit_jax
from dit_jax import Segmenter
from dit_jax.eval import report
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture, Bert, Injection, Vit
from dit_jax.vocabulary import SPECIAL
from dit_jax.weights import directory, manifest

VIT = Vit(depth=2, width=32, heads=2, global_blocks=(1,), window=3, grid=4)
BERT = Bert(vocab=40, depth=1, width=32, heads=1, mlp_width=48, positions=24)
ARCH = Architecture(
    VIT, BERT, Injection.LAYER_WISE, text_layer=1, decoder_width=64, decoder_mlp_width=64
)
UNUSED = {"lang_encoder.bert.pooler.dense.bias": np.ones(3, np.float32)}
SCORES = {"shapes-val-original": {"protocol": "original", "oIoU": 61.25, "n": 8}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A directory with every file that there can be."""
    folder = tmp_path_factory.mktemp("saved")
    (folder / "words.txt").write_text("\n".join(SPECIAL))
    directory.save(
        folder / "model",
        ARCH,
        params_lib.init(ARCH),
        vocab=folder / "words.txt",
        unused=UNUSED,
        provenance={"source": "seg_best.pth"},
        license="CC-BY-4.0",
        scores=SCORES,
    )
    return folder / "model"


@pytest.fixture
def model_dir(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def problem(folder):
    """The sentence with which `dit_jax.load` refuses a folder."""
    with pytest.raises((ValueError, OSError)) as refused:
        dit_jax.load(folder)
    message = str(refused.value)
    assert "\n" not in message and message.endswith(".") and message.count(". ") == 0, message
    return message


def test_it_says_what_is_known(saved):
    found = manifest.read(saved)
    listed = {"config.json", "model.safetensors", "vocab.txt", "unused.safetensors"}
    listed |= {"tokenizer_config.json"}
    assert found.files.keys() == listed
    assert found.bytes == sum((saved / name).stat().st_size for name in listed)
    assert found.provenance == {"source": "seg_best.pth"}
    assert (found.license, found.scores) == ("CC-BY-4.0", SCORES)
    assert found.packages.keys() == {"dit_jax", "flax", "jax", "jaxlib", "numpy", "safetensors"}


def test_the_key_licence_of_version_0_1_is_read(model_dir):
    path, expected = model_dir / "manifest.json", manifest.read(model_dir)
    path.write_text(path.read_text().replace('"license"', '"licence"'))
    assert manifest.read(model_dir) == expected


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "vocab.txt", "unused.safetensors"]
)
@pytest.mark.parametrize("where", [0, 0.5, -1])
def test_a_flipped_bit_names_the_file(model_dir, name, where):
    content = bytearray((model_dir / name).read_bytes())
    content[int(where * len(content)) if where > 0 else where] ^= 1
    (model_dir / name).write_bytes(content)
    assert f"{name} is damaged: its SHA-256 is " in problem(model_dir)


def test_bits_in_every_kilobyte_are_looked_at(model_dir):
    weights = model_dir / "model.safetensors"
    whole = weights.read_bytes()
    for place in range(0, len(whole), 1 + len(whole) // 40):
        weights.write_bytes(whole[:place] + bytes([whole[place] ^ 128]) + whole[place + 1 :])
        assert "model.safetensors is damaged" in problem(model_dir)
    weights.write_bytes(whole)
    dit_jax.load(model_dir)


def test_a_missing_file_is_named(model_dir):
    for name in ("vocab.txt", "unused.safetensors"):
        content = (model_dir / name).read_bytes()
        (model_dir / name).unlink()
        assert f"{name} is missing, and manifest.json lists it" in problem(model_dir)
        (model_dir / name).write_bytes(content)
    (model_dir / "model.safetensors").unlink()
    assert "it has no model.safetensors" in problem(model_dir)


def test_half_a_file_is_named_without_hashing_it(model_dir, monkeypatch):
    weights = model_dir / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    monkeypatch.setattr(manifest, "sha256", None)
    assert "model.safetensors is damaged: it has" in problem(model_dir)


def test_an_older_directory_loads_as_it_did(model_dir):
    with_manifest = directory.read_contents(model_dir)
    (model_dir / "manifest.json").unlink()
    without = directory.read_contents(model_dir)
    assert with_manifest.architecture == without.architecture
    assert with_manifest.provenance == without.provenance
    for now, before in (
        (with_manifest.tensors, without.tensors),
        (with_manifest.unused, without.unused),
    ):
        assert now.keys() == before.keys()
        assert all(np.array_equal(now[name], before[name]) for name in now)
    manifest.note_scores(model_dir, SCORES)
    assert manifest.read(model_dir) is None


def test_a_calibration_is_added_later(model_dir):
    """To the manifest alone; without one, it is written as version 0.1 reads it."""
    path, before = model_dir / "manifest.json", manifest.read(model_dir)
    assert "calibration" not in json.loads(path.read_text())
    assert manifest.presence_threshold(model_dir) is None
    promise = manifest.Calibration(0.9, 0.05, 19, "shapes", "val", {"shapes-testA": {"masks": 1}})
    manifest.note_calibration(model_dir, promise, of=before)
    manifest.note_scores(model_dir, {})
    assert manifest.verify(model_dir) == dataclasses.replace(before, calibration=promise)
    assert manifest.presence_threshold(model_dir) == 0.9
    for change, message in (
        ({"threshold": 1.5}, "calibration.threshold is 1.5, expected"),
        ({"threshold": "0.5"}, "calibration.threshold is '0.5' of type str"),
        ({"checks": None}, "calibration.checks is None"),
    ):
        values = json.loads(path.read_text())
        values["calibration"] |= change
        (model_dir / "manifest.json").write_text(json.dumps(values))
        assert message in problem(model_dir)
        values["calibration"] = dataclasses.asdict(promise)
        path.write_text(json.dumps(values))


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_named(tmp_path, number):
    """The manifest vouches for the bytes; what they say is looked at all the same."""
    flat = params_lib.flatten(params_lib.init(ARCH))
    name = "mask_decoder.iou_token"
    flat[name] = np.array(flat[name])
    flat[name].flat[-1] = number
    about = dict(unused={"pooler": np.full(3, number, np.float32)})  # which no model reads
    directory.save(tmp_path / "a", ARCH, params_lib.unflatten(flat), **about)
    expected = f"holds NaN or infinity in {name}; expected finite numbers."
    assert problem(tmp_path / "a").endswith(expected)
    for read in (directory.read_contents, Segmenter.from_pretrained):
        with pytest.raises(ValueError, match="model.safetensors holds NaN or infinity in mask_dec"):
            read(tmp_path / "a")


def test_what_people_add_is_theirs(model_dir):
    (model_dir / "README.md").write_text("mine")
    (model_dir / "notes").mkdir()
    (model_dir / "notes" / "today.txt").write_text("mine")
    dit_jax.load(model_dir)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: "{", "is not JSON"),
        (lambda m: "[" * 100_000, "is not JSON"),
        (lambda m: [], "is no manifest of format 1"),
        (lambda m: m | {"format": 2}, "is no manifest of format 1"),
        (lambda m: {k: v for k, v in m.items() if k != "files"}, "and files differ"),
        (lambda m: m | {"files": []}, "expected keys and values"),
        (lambda m: m | {"files": {"config.json": {"bytes": 3}}}, "missing keys: files.config.json"),
        (
            lambda m: m | {"files": {"a": {"bytes": "3", "sha256": ""}}},
            "files.a.bytes is '3' of type str",
        ),
        (
            lambda m: m | {"files": {"../secret": {"bytes": 0, "sha256": ""}}},
            "'../secret' lies outside the folder",
        ),
        (
            lambda m: m | {"files": {"/etc/passwd": {"bytes": 0, "sha256": ""}}},
            "'/etc/passwd' lies outside the folder",
        ),
    ],
)
def test_a_damaged_manifest_is_one_sentence(model_dir, change, message):
    path = model_dir / "manifest.json"
    changed = change(json.loads(path.read_text()))
    path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    assert message in problem(model_dir)
    assert "remove manifest.json" in problem(model_dir)


def test_scores_are_added_later(model_dir):
    later = report.headlines(
        "refcoco",
        "testA",
        {"dit": {"reported": ["oIoU"], "oIoU": 70.123456, "mIoU": 1.0, "n": 5657}},
    )
    manifest.note_scores(model_dir, later)
    found = manifest.verify(model_dir)
    assert found.scores == SCORES | {
        "refcoco-testA-dit": {
            "dataset": "refcoco",
            "split": "testA",
            "protocol": "dit",
            "n": 5657,
            "oIoU": 70.1235,
        }
    }
    assert dataclasses.replace(found, scores={}).files == found.files


def test_big_files_are_read_in_pieces(tmp_path):
    """Hashing 256 MiB takes no memory to speak of."""
    import tracemalloc

    with (tmp_path / "big").open("wb") as file:
        file.truncate(256 << 20)
    tracemalloc.start()
    found = manifest.describe(tmp_path / "big")
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    assert found.bytes == 256 << 20
    assert found.sha256.startswith("a6d72ac7690f53be")

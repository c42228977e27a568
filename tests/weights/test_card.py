"""The model card says what is known, asks for the rest, and makes nothing up."""

import re

import pytest

from dit_jax.export import formats
from dit_jax.models.architecture import Injection
from dit_jax.variants import VARIANTS, architecture
from dit_jax.weights import card as model_card
from dit_jax.weights.manifest import File, Manifest

ARCH = architecture(VARIANTS["ldit_vit_b"])
FILES = {"model.safetensors": File(839_645_376, "0" * 64)}
BARE = Manifest(files=FILES)
FULL = Manifest(
    files=FILES,
    provenance={
        "step": 75_000,
        "dataset": "refcoco",
        "split": "train",
        "leaks": {"policy": "drop", "dropped_referents": 0, "overlap": {}},
    },
    license="Apache-2.0",
    scores={
        "refcoco-val-dit": {
            "dataset": "refcoco",
            "split": "val",
            "protocol": "dit",
            "n": 10834,
            "oIoU": 71.98,
            "mIoU": None,
        },
        "refcoco-testA-gres": {"dataset": "refcoco", "split": "testA", "n": 5657, "gIoU": 70.0},
    },
    packages={"dit_jax": "0.1.0", "jax": "0.10.2", "jaxlib": "0.10.1"},
)


def fill(manifest, *, form="safetensors", arch=ARCH):
    return model_card.fill(manifest, name="street", form=form, arch=arch, parameters=209_911_344)


def test_what_is_known_is_said():
    card = fill(FULL)
    head = card.split("---\n")[1]
    assert "license: apache-2.0\n" in head and "pipeline_tag: image-segmentation\n" in head
    assert "layer-wise deep instruction tuning (L-DIT)" in card
    assert "ViT of 12 blocks, 768 wide, and layer 12 of BERT" in card
    assert "209.9 million parameters, computed in float32" in card
    assert "| data set | split | protocol | oIoU | gIoU | n |" in card
    assert "| refcoco | val | dit | 71.98 | – | 10834 |" in card
    assert "| refcoco | testA | – | – | 70.00 | 5657 |" in card
    assert "- step: 75000" in card and '- leaks: {"policy": "drop"' in card
    assert "| `model.safetensors` | 839,645,376 |" in card


def test_what_is_not_known_is_not_made_up():
    card = fill(BARE)
    assert "license: unknown\n" in card
    assert "Not scored." in card and "Nobody noted it." in card and "Not stated." in card


def test_people_are_asked_where_no_reader_sees_it():
    asked = re.findall(r"<!-- To be written by .*?-->", fill(FULL), flags=re.DOTALL)
    assert len(asked) == 2


@pytest.mark.parametrize("form", [*formats.FORMATS, formats.PACK])
@pytest.mark.parametrize("presence", [False, True])
@pytest.mark.parametrize("injection", list(Injection))
def test_every_model_in_every_form(injection, presence, form):
    arch = architecture(VARIANTS["tiny"], presence=presence)
    arch = type(arch)(**{**vars(arch), "injection": injection, "text_projection": None})
    card = fill(FULL, form=form, arch=arch)
    assert "$" not in card and "None" not in card
    assert ("always answers" in card) != presence

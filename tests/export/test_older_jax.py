"""A program that an older JAX wrote: this one reads it, as docs/deploy.md says.

It lies beside this file, without parameters. To write it anew, where the model's parameters
changed, in an environment with requirements-dev.txt and then an older JAX:

    pip install jax==0.10.0 jaxlib==0.10.0
    PYTHONPATH=.:tests/support python tests/export/test_older_jax.py
"""

import dataclasses
import lzma
from pathlib import Path

import jax
import numpy as np
from exporting import BERT, SMALL, TEXTS, VIT, drawn, random_params, runner
from quickly import compiled_quickly

from dit_jax.data.shapes.dataset import VOCAB
from dit_jax.export import formats, stablehlo
from dit_jax.models import params as params_lib
from dit_jax.models.architecture import Architecture, Injection
from dit_jax.weights import directory

WRITTEN = Path(__file__).with_name("written_by_jax_0.10.0.xz")
ONE_BLOCK = dataclasses.replace(VIT, depth=1, global_blocks=(0,))
ARCH = Architecture(ONE_BLOCK, BERT, Injection.LAYER_WISE, **SMALL)


def test_its_masks_are_those_of_this_jax(programs, tmp_path, monkeypatch):
    monkeypatch.setattr(stablehlo, "INSIDE", 0)
    directory.save(tmp_path / "model", ARCH, random_params(ARCH), vocab=VOCAB, provenance={})
    out = tmp_path / "out"
    formats.export(tmp_path / "model", out, form="stablehlo")
    said = []
    with compiled_quickly(programs):
        for program in (
            (out / stablehlo.PROGRAM).read_bytes(),
            lzma.decompress(WRITTEN.read_bytes()),
        ):
            (out / stablehlo.PROGRAM).write_bytes(program)
            answers = runner(out).Segmenter(out)(drawn(70, 80), TEXTS)
            said.append({key: x for key, x in answers.items() if isinstance(x, np.ndarray)})
    now, then = said
    assert 0.1 < now["mask"].mean() < 0.9
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), then, now)


if __name__ == "__main__":
    program = stablehlo.make(ARCH, params_lib.flatten(random_params(ARCH)), inside=False)
    WRITTEN.with_name(f"written_by_jax_{jax.__version__}.xz").write_bytes(
        lzma.compress(program.serialize(), preset=9)
    )

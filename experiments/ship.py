"""Put a trained model into the package, in half precision, with its card.

    python -m experiments.ship mini_sam runs/mini_sam/model --scores=runs/mini_sam

What the package holds is found by name: `Segmenter.from_pretrained("mini_sam")`,
`--config.model.init.sam=mini_sam`.
"""

import argparse
from pathlib import Path

from dit_jax.eval import report
from dit_jax.models import params as parameters
from dit_jax.weights import card, directory, hub, manifest

LICENSE = "Apache-2.0"
LIMITS = """\
It was made from drawn scenes alone (`dit_jax.data.shapes`): six shapes in eight colours, three
textures and two sizes on plain grounds. It knows nothing of photographs."""
ABOUT = {
    "mini": 'A small L-DIT for words, points and boxes at 128 × 128 pixels; it can say "not here".',
    "mini_sam": "A small SAM for points and boxes at 128 × 128 pixels, trained as SAM was.",
    "mini_bert": "A small BERT, trained on masked words of the drawn scenes' expressions.",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=ABOUT)
    parser.add_argument("model", type=Path, help="model directory")
    parser.add_argument("--scores", type=Path, help="workdir whose eval/*.json are its scores")
    options = parser.parse_args()
    ship(options.name, options.model, scored=options.scores, out=hub.SHIPPED / options.name)


def ship(name: str, model: Path, *, scored: Path | None, out: Path) -> None:
    """Writes the folder `out` from a model directory, and scores of it that `scored` holds."""
    found = directory.read_contents(model)
    vocab = directory.vocab_path(model) if (model / "vocab.txt").is_file() else None
    scores = {} if scored is None else report.read_headlines(scored)
    about = dict(provenance=found.provenance, license=LICENSE, half=True, overwrite=True)
    if found.architecture is None:
        directory.save_text_encoder(out, found.bert, found.tensors, vocab=vocab, **about)
    else:
        params = parameters.unflatten(found.tensors)
        directory.save(out, found.architecture, params, vocab=vocab, scores=scores, **about)
    count = sum(tensor.size for tensor in found.tensors.values())
    (out / manifest.CARD).write_text(
        f"# {name}\n\n{ABOUT[name]} {count / 1e6:.2f} million parameters, kept in float16.\n\n"
        f"{LIMITS}\n\n## Made by\n\n{card.listed(found.provenance, otherwise='')}\n\n"
        f"## Scores\n\n{card.score_table(scores)}\n\n## License\n\n{LICENSE}\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()

"""Models on disk: directories, what vouches for them, packs of what training changed.

In and out: `config.json`, `model.safetensors`, `vocab.txt`. Read `directory`, which reads and
writes them; `manifest` holds checksums and where a folder is from; `packs` writes only what
training changed; `card` fills in the model card; `hub` takes names on Hugging Face's hub for paths,
`push` sends a model there.
"""

from dit_jax.weights import card, directory, hub, manifest, packs
from dit_jax.weights.directory import load

__all__ = ["card", "directory", "hub", "load", "manifest", "packs"]

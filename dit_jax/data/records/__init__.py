"""Array records: `Annotations` and their pictures, written once, read by position.

In: `Annotations`. Out: a folder that `Records` reads as a Source, with a manifest. Read `folder`,
the whole story (`build`): `plan` says which build it is, `write` writes shards that a killed build
can continue, `format` is one record as bytes. `read` reads and verifies.
"""

from dit_jax.data.records.folder import build
from dit_jax.data.records.format import existing, folder_name, manifest, sha256
from dit_jax.data.records.plan import check_reading
from dit_jax.data.records.read import Records, verify

__all__ = [
    "Records",
    "build",
    "check_reading",
    "existing",
    "folder_name",
    "manifest",
    "sha256",
    "verify",
]

"""Array records: `Annotations` and their pictures, written once, read by position.

In: `Annotations`. Out: a folder that `Records` reads as a Source, with a manifest. Read `folder`,
the whole story (`build`): `plan` says which build it is, `write` writes shards that a killed build
can continue, `format` is one record as bytes. `read` reads and verifies; `bucket` brings what lies
in one.
"""

from dit_jax.data.records import bucket
from dit_jax.data.records.folder import build, build_in
from dit_jax.data.records.format import existing, folder_name, manifest, sha256
from dit_jax.data.records.plan import check_reading, check_same
from dit_jax.data.records.read import Records, verify

__all__ = [
    "Records",
    "bucket",
    "build",
    "build_in",
    "check_reading",
    "check_same",
    "existing",
    "folder_name",
    "manifest",
    "sha256",
    "verify",
]

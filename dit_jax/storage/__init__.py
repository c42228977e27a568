"""Buckets in place of folders: `gs://bucket/key` and `s3://bucket/key`, wherever a path is named.

Commands read and write files of this machine; here is what brings them from buckets and back. In:
paths and names. Out: paths of copies here (`local`, `written`). Checkpoints and compiled programs
alone go to a bucket directly (`direct`). Read `copies` first; `names` says what a copy's path is,
and `objects` asks the stores.

Object stores have no rename and cannot append. What holds in a bucket:

* An object is whole or not there, and is what was written last: the store's own promise.
* A folder with a manifest (a model directory, an export, records) is replaced object by object.
  Its `config.json` and `manifest.json` are taken away first and written last, and without them it
  is no such folder. A checkpoint counts when its last object is there, `commit_success.txt`.
* The other files of a run (metrics, scores, report, curves) are those of the last `push`: before
  every checkpoint, once a minute, at the end. So what belongs to a checkpoint is there before it.
* One writer a folder, as far as `dit_jax.lease` can tell.
"""

from dit_jax.storage.copies import local, publish, pull, push, written
from dit_jax.storage.names import (
    Name,
    cache,
    check,
    copy_of,
    direct,
    named,
    origin,
    parse,
    places_in,
    shown,
)
from dit_jax.storage.objects import (
    create,
    fetch,
    listing,
    modified,
    move,
    read,
    remove,
    room_for,
    write,
)

__all__ = [
    "Name",
    "cache",
    "check",
    "copy_of",
    "create",
    "direct",
    "fetch",
    "listing",
    "local",
    "modified",
    "move",
    "named",
    "origin",
    "parse",
    "places_in",
    "publish",
    "pull",
    "push",
    "read",
    "remove",
    "room_for",
    "shown",
    "write",
    "written",
]

"""Names of places in buckets, and paths that say which place they are a copy of.

A copy lies at ROOT/of-buckets/IDENTITY/SCHEME/BUCKET/KEY. So every path inside it leads back, and
those who write files below need not know that their folder is a bucket's.
"""

import dataclasses
import importlib.util
import os
import re
from pathlib import Path

# Scheme → the package that is needed, and its extra, which is also what epath calls the store.
SCHEMES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}
COPIES = "of-buckets"
# A path object makes one slash of two.
NAME = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*):/(?P<slash>/?)(?P<key>.*)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Name:
    """An object or a folder; `key` is "bucket/folder/file"."""

    scheme: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.key}"

    def __truediv__(self, inside: str) -> "Name":
        return Name(self.scheme, f"{self.key}/{inside}" if inside else self.key)


def parse(place: str | os.PathLike) -> Name | None:
    """None for a path of this machine; raises ValueError for another scheme, or no bucket."""
    text = os.fspath(place)
    found = NAME.fullmatch(text)
    if found is None or (found["scheme"] not in SCHEMES and not found["slash"]):
        return None
    key = found["key"].strip("/")
    if found["scheme"] not in SCHEMES or not key or ".." in key.split("/"):
        raise ValueError(f"{text} is no place; expected a path, gs://BUCKET/… or s3://BUCKET/….")
    return Name(found["scheme"], key)


def check(place: str | os.PathLike) -> None:
    """Raise ValueError as `parse` does, ModuleNotFoundError where a bucket's package is missing."""
    name = parse(place)
    if name is not None:
        package, extra = SCHEMES[name.scheme]
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"{name} needs {package}: pip install 'dit_jax[{extra}]'.")


def cache(folder: str | os.PathLike = "") -> Path:
    """A folder of this host for copies; "" is the user's."""
    usual = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.abspath(Path(folder or Path(usual, "dit_jax")).expanduser()))


def places_in(text: str) -> list[str]:
    """Everything with a scheme, but for names on the hub, which has weights alone."""
    found = re.findall(r"\b[a-z][a-z0-9+.-]*://[^\s)'\"]*", text)
    return [place for place in found if not place.startswith("hf://")]


def copy_of(name: Name, identity: str, *, root: str | os.PathLike = "") -> Path:
    """Where a copy lies in a `cache`."""
    return cache(root) / COPIES / identity / name.scheme / name.key


def root_of(path: Path) -> Path:
    """What `copy_of` was given as `root`, of a path in a copy."""
    return Path(*path.parts[: path.parts.index(COPIES)])


def origin(path: str | os.PathLike) -> Name | None:
    """What a path in a copy is a copy of; None of every other path."""
    parts = Path(path).parts
    if COPIES not in parts:
        return None
    scheme, *key = parts[parts.index(COPIES) + 2 :] or ("",)
    return Name(scheme, "/".join(key)) if scheme in SCHEMES and key else None


def direct(path: str | os.PathLike) -> os.PathLike:
    """Where Orbax and JAX are to write what belongs at `path`: an epath in a bucket, or itself."""
    name = parse(path) or origin(path)
    if name is None:
        return Path(path)
    import fsspec.config
    from etils import epath

    # Of a folder's listing that epath remembered, TensorStore's objects would be missing.
    fsspec.config.conf.setdefault(SCHEMES[name.scheme][1], {})["use_listings_cache"] = False
    return epath.Path(str(name))


def named(path: str | os.PathLike) -> str:
    """A path as its user knows it."""
    return str(origin(path) or path)


def shown(text: str) -> str:
    """A sentence with the names of places in buckets instead of their copies' paths."""
    return re.sub(rf"[^\s'\"(=]*/{COPIES}/[^/\s]+/({'|'.join(SCHEMES)})/", r"\1://", text)

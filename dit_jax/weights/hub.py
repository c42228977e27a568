"""Names on Hugging Face's hub in place of paths: `hf://org/name[@revision][/file]`.

Wherever weights or a model directory are named, `local` gives their place on this machine: the
hub's own cache, which works offline too, or the copy of what lies in a bucket. Nothing pickled is
fetched unless its file is named.
"""

import dataclasses
import os
import re
import sys
from pathlib import Path
from typing import Any

from dit_jax import storage

SHIPPED = Path(__file__).with_name("shipped")  # models that come with the package, by name
SCHEME = "hf://"
PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
REVISION = r"refs/(?:pr|convert)/\w+|[^/@]+"
# A path object makes one slash of two.
NAME = re.compile(
    rf"hf:/{{1,2}}(?P<repo>{PART}/{PART})(?:@(?P<revision>{REVISION}))?(?:/(?P<file>.+))?"
)
WEIGHTS, BESIDE = "*.safetensors", ("*.json", "*.txt")
FILES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")


@dataclasses.dataclass(frozen=True)
class Name:
    """What a name on the hub says."""

    repo: str  # "org/name"
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        revision, file = self.revision and f"@{self.revision}", self.file and f"/{self.file}"
        return f"{SCHEME}{self.repo}{revision or ''}{file or ''}"


def parse(named: str | os.PathLike) -> Name | None:
    """None for a path; raises ValueError for `hf://` and something else than a name."""
    text = os.fspath(named)
    if not text.startswith("hf:/"):
        return None
    found = NAME.fullmatch(text.rstrip("/"))
    if found is None or (found["file"] and ".." in Path(found["file"]).parts):
        raise ValueError(f"{text} is no name on the hub; expected hf://org/name[@revision][/file].")
    return Name(**found.groupdict())


def local(named: str | os.PathLike) -> Path:
    """The file or folder that is meant: a path as it is, a name on the hub or in a bucket as its
    copy here.

    `~` is the user's folder. A bare name that is no path may be one of `SHIPPED`; `org/name` is
    then taken as a name on the hub, and that is said. Raises ValueError, OSError or
    ModuleNotFoundError, in a sentence, where there is nothing to have.
    """
    name = parse(named)
    if name is not None:
        return _download(name)
    if storage.parse(named):
        beside = BESIDE if Path(named).suffix in FILES else ()  # else a folder, or a vocabulary
        return storage.local(named, beside=beside)
    path = Path(os.path.expanduser(named))
    if len(path.parts) == 1 and not path.exists() and (SHIPPED / path / "config.json").is_file():
        return SHIPPED / path
    bare = re.fullmatch(rf"{PART}/{PART}", os.fspath(named))
    # Where the first part is a folder here, the second is a slip of the pen.
    if not bare or path.exists() or path.parent.exists() or path.suffix in FILES:
        return path
    name = Name(os.fspath(named))
    print(f"{named} is no file or folder here; taken as {name}.", file=sys.stderr)
    return _download(name)


def _download(name: Name) -> Path:
    """The copy in the hub's cache, fetched where it is not yet there."""
    hub = package()
    parent = f"{Path(name.file).parent.as_posix()}/" if name.file and "/" in name.file else ""
    wanted = [name.file] if name.file else [WEIGHTS]
    try:
        folder = hub.snapshot_download(
            name.repo,
            revision=name.revision,
            allow_patterns=wanted + [parent + pattern for pattern in BESIDE],
            ignore_patterns=None if parent else ["*/*"],
            endpoint=os.environ.get("HF_ENDPOINT"),
        )
    except failures(hub) as error:
        raise _refusal(name, hub.errors, error) from error
    path = Path(folder) / (name.file or "")
    if not path.exists():
        raise FileNotFoundError(f"{Name(name.repo, name.revision)} has no file {name.file}.")
    if path.is_dir() and not any(path.glob(WEIGHTS)):
        raise FileNotFoundError(
            f"{name} holds no safetensors at its top. What is pickled is fetched only by its name:"
            f" {name}/pytorch_model.bin, for one."
        )
    return path


def _refusal(name: Name, errors: Any, error: Exception) -> Exception:
    """Why there is no copy, in a sentence."""
    repo = Name(name.repo)
    if isinstance(error, errors.GatedRepoError):
        return ValueError(f"{repo} is gated: ask for it on its page, then `hf auth login`.")
    if isinstance(error, errors.RevisionNotFoundError):
        return ValueError(f"{repo} has no revision {name.revision}.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return FileNotFoundError(
            f"there is no {repo} on the hub, or it is private: `hf auth login`; nor is there a"
            f" file or folder {name.repo} here."
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        why = "HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached"
        return ConnectionError(f"{name} is not in the hub's cache here, and {why}.")
    return ConnectionError(f"{name} cannot be had: {type(error).__name__}: {one_line(error)}")


def failures(package: Any) -> tuple[type[Exception], ...]:
    """What goes wrong on the way: files, names, answers of the hub, the network beneath it."""
    network = package.errors.HfHubHTTPError.__base__  # of httpx, whatever its name is this year
    return OSError, ValueError, network


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def package() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "names on the hub need huggingface_hub: pip install 'dit_jax[hub]'."
        ) from error
    return huggingface_hub

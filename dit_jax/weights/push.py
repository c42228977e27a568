"""A model directory sent to Hugging Face's hub, with its card.

    dit-jax push models/street hf://org/street

`Segmenter.from_pretrained("hf://org/street")` reads it there.
"""

import argparse
import os
import re
import sys
from pathlib import Path

from dit_jax import storage
from dit_jax.models import params as params_lib
from dit_jax.weights import card as cards
from dit_jax.weights import directory, hub, manifest


def push(model_dir: Path | str, named: str, *, private: bool = False) -> str:
    """Sends a model directory with its card, and returns its address.

    Only the files of its manifest are sent. Raises ValueError or OSError, in a sentence, where the
    directory is damaged, its card has no metadata block, or the hub does not take it.
    """
    folder, name = Path(model_dir), hub.parse(named)
    if name is None or name.file:
        raise ValueError(f"{named} is no repository on the hub; expected hf://org/name[@revision].")
    noted = manifest.verify(folder)
    if noted is None:
        raise ValueError(f"{folder} has no {manifest.MANIFEST}; write it anew with --mode=export.")
    card = _card(folder, noted, name)
    listed = (*noted.files, manifest.MANIFEST)
    package = hub.package()
    try:
        api = package.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        api.create_repo(name.repo, private=private or None, exist_ok=True)  # None: as usual
        sent = api.create_commit(
            name.repo,
            [
                package.CommitOperationAdd(manifest.CARD, card.encode()),
                *(package.CommitOperationAdd(path, folder / path) for path in listed),
            ],
            commit_message="A model of dit_jax",
            revision=name.revision,
        )
    except hub.failures(package) as error:
        raise ConnectionError(
            f"{folder} was not sent to {name}: {type(error).__name__}: {hub.one_line(error)}"
        ) from error
    return str(sent.repo_url)


def _card(folder: Path, noted: manifest.Manifest, name: hub.Name) -> str:
    """The card that lies there, or one filled in from the manifest."""
    path = folder / manifest.CARD
    if not path.is_file():
        arch, params = directory.read(folder)
        count = sum(leaf.size for leaf in params_lib.flatten(params).values())
        how = dict(form="int8" if arch.weights == "int8" else "safetensors", at=str(name))
        title = name.repo.split("/")[1]
        return cards.fill(noted, name=title, arch=arch, parameters=int(count), **how)
    text = path.read_text(encoding="utf-8")
    if not re.match(r"---\n.*?^license: .*?^---\n", text, re.DOTALL | re.MULTILINE):
        raise ValueError(
            f"{path} does not begin with a metadata block (---, license: …, ---), which the hub"
            " reads; move it away, and one is written."
        )
    return text


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="dit-jax push", description="Send a model directory to Hugging Face's hub."
    )
    found.add_argument("model", metavar="MODEL", help="as --mode=export writes it")
    found.add_argument("name", metavar="hf://ORG/NAME", help="where to; may end in @revision")
    found.add_argument("--private", action="store_true", help="make a new repository private")
    return found


def main(argv: list[str] | None = None) -> int:
    """Runs one push; a failure is one sentence on standard error and exit status 1."""
    options = parser().parse_args(argv)
    try:
        folder = storage.local(Path(options.model).expanduser())
        print(push(folder, options.name, private=options.private))
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(f"push: {storage.shown(str(error))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

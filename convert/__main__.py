"""Command line of the converter.

python -m convert sam  sam_vit_b_01ec64.pth   models/sam_vit_b
python -m convert bert bert-base-uncased      models/bert_base
python -m convert dit  seg_best.pth           models/ldit_vit_b  --vocab vocab.txt
python -m convert assemble ldit_vit_b models/start --sam=sam_vit_b_01ec64.pth --bert=BERT_FOLDER
python -m convert reverse --format=dit models/ldit_vit_b out.pth
"""

import argparse
import os
import sys
from pathlib import Path

from dit_jax import storage, vocabulary
from dit_jax.convert import names, sources, transfer
from dit_jax.convert.assemble import assemble, open_bert
from dit_jax.convert.checkpoint import Checkpoint
from dit_jax.convert.reverse import FORMATS, reverse
from dit_jax.convert.sources import say
from dit_jax.models.architecture import Architecture, Bert, Injection
from dit_jax.models.params import flatten, unflatten
from dit_jax.strict import one_of
from dit_jax.variants import VARIANTS, architecture
from dit_jax.weights import directory, hub


def main(argv: list[str] | None = None) -> int:
    """Runs one conversion; a failure is one sentence on standard error and exit status 1."""
    arguments = parser().parse_args(argv)
    for key in ("source", "bert", "vocab", "out"):
        if named := getattr(arguments, key, None):  # a shell leaves ~ in --sam=~/… alone
            setattr(arguments, key, type(named)(os.path.expanduser(named)))
    try:
        for key in ("source", "bert"):
            if named := getattr(arguments, key, None):
                setattr(arguments, f"{key}_name", _name(named))
                setattr(arguments, key, hub.local(named))
        if getattr(arguments, "vocab", None):
            arguments.vocab = storage.local(arguments.vocab)
        with storage.written(arguments.out) as arguments.out:
            _check_apart(arguments)
            arguments.run(arguments)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        source, message = storage.named(arguments.source), storage.shown(str(error))
        said = source in message or arguments.command == "assemble"  # which has two, and names them
        named = message if said else f"{source}: {message}"
        print(f"convert {arguments.command}: {named}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="python -m convert" if __name__ == "__main__" else "dit-jax convert",
        description="PyTorch checkpoints to model directories and back.",
    )
    commands = root.add_subparsers(dest="command", required=True)
    for name, run, summary in (
        ("sam", sam, "Meta's SAM (ViT-B, L or H)"),
        ("bert", bert, "a BERT encoder, PyTorch or safetensors"),
        ("dit", dit, "a checkpoint of the released DIT code"),
    ):
        command = commands.add_parser(name, help=summary)
        command.set_defaults(run=run)
        command.add_argument(
            "source", metavar="SRC", help=".pth, .bin, .safetensors, a folder of them, or hf://…"
        )
        command.add_argument("out", metavar="OUT_DIR", help="model directory to write")
        command.add_argument("--overwrite", action="store_true", help="replace OUT_DIR")
        command.add_argument("--key", help="which of several models in SRC: a key or prefix")
        if name != "bert":
            command.add_argument("--image-size", type=int, help="pixels a side of the canvas")
            command.add_argument(
                "--global-blocks",
                type=_blocks,
                metavar="2,5,8,11",
                help="blocks that attend globally, where tables leave it open; or none",
            )
        if name != "sam":
            command.add_argument(
                "--text-heads", type=int, help="BERT heads; default: as config.json beside SRC says"
            )
            command.add_argument("--vocab", type=Path, help="vocab.txt; default: beside SRC")
        if name == "dit":
            command.add_argument(
                "--text-layer", type=int, help="BERT layer that is read; default 1"
            )
            command.add_argument(
                "--variant",
                type=Injection,
                choices=list(Injection),
                metavar="NAME",
                help="where tensors cannot tell: layer_wise (L-DIT) or e2e (E-DIT)",
            )
    command = commands.add_parser("assemble", help="SAM and BERT with fresh DIT parameters")
    command.set_defaults(run=assembled)
    command.add_argument("row", metavar="ROW", help="a row of dit_jax/variants.py")
    command.add_argument("out", metavar="OUT_DIR", help="model directory to write")
    command.add_argument("--sam", required=True, metavar="FILE_OR_FOLDER", dest="source")
    command.add_argument("--bert", required=True, metavar="FILE_OR_FOLDER")
    command.add_argument("--vocab", type=Path, help="vocab.txt; default: beside BERT")
    command.add_argument("--text-layer", type=int, help="BERT layer that is read; default: last")
    command.add_argument("--seed", type=int, default=0, help="of the fresh parameters")
    command.add_argument("--overwrite", action="store_true", help="replace OUT_DIR")
    command = commands.add_parser("reverse", help="a model directory back to PyTorch")
    command.set_defaults(run=reversed_)
    command.add_argument(
        "--format",
        choices=FORMATS,
        required=True,
        help="the released code's model, Meta's SAM, or a folder for Hugging Face's SamModel",
    )
    command.add_argument("--wrap", action="store_true", help='write {"state_dict": …}')
    command.add_argument("source", metavar="MODEL_DIR")
    command.add_argument("out", metavar="OUT", help="a .pth; of hf-sam a folder")
    command.add_argument("--overwrite", action="store_true", help="replace a folder OUT")
    return root


def sam(arguments: argparse.Namespace) -> None:
    arch, found = sources.sam(
        arguments.source,
        image_size=arguments.image_size,
        global_blocks=arguments.global_blocks,
        key=arguments.key,
    )
    _finish(arguments, arch, found)


def dit(arguments: argparse.Namespace) -> None:
    arch, found = sources.dit(
        arguments.source,
        variant=arguments.variant,
        text_layer=arguments.text_layer,
        text_heads=arguments.text_heads,
        image_size=arguments.image_size,
        global_blocks=arguments.global_blocks,
        key=arguments.key,
    )
    _finish(arguments, arch, found)


def bert(arguments: argparse.Namespace) -> None:
    config, found = sources.bert(arguments.source, heads=arguments.text_heads, key=arguments.key)
    filled = transfer.fill(transfer.text_targets(config), found)
    directory.save_text_encoder(
        arguments.out,
        config,
        filled.tensors,
        vocab=_vocab(arguments.vocab, arguments.source, config),
        unused=filled.unused,
        provenance={"source": arguments.source_name, "format": "bert"},
        overwrite=arguments.overwrite,
    )
    _report(arguments, config, found, filled)


def assembled(arguments: argparse.Namespace) -> None:
    one_of("ROW", arguments.row, tuple(VARIANTS))
    bert, tensors = open_bert(arguments.bert)
    layer = bert.depth if arguments.text_layer is None else arguments.text_layer
    arch = architecture(VARIANTS[arguments.row], bert=bert, text_layer=layer)
    params = assemble(arch, sam=arguments.source, bert=None, seed=arguments.seed)
    noted = {"sam": arguments.source_name, "bert": arguments.bert_name}
    directory.save(
        arguments.out,
        arch,
        unflatten(flatten(params) | tensors),
        vocab=_vocab(arguments.vocab, arguments.bert, bert),
        provenance={"source": noted, "format": "assembled"},
        overwrite=arguments.overwrite,
    )
    print(f"{storage.named(arguments.out)}: {arch}")


def reversed_(arguments: argparse.Namespace) -> None:
    how = dict(form=arguments.format, wrap=arguments.wrap, overwrite=arguments.overwrite)
    count = reverse(arguments.source, arguments.out, **how)
    print(f"{storage.named(arguments.out)}: {count} tensors")


def _finish(arguments: argparse.Namespace, arch: Architecture, found: Checkpoint) -> None:
    filled = transfer.fill(transfer.targets(arch), found)
    directory.save(
        arguments.out,
        arch,
        unflatten(filled.tensors),
        vocab=_vocab(arguments.vocab, arguments.source, arch.bert) if arch.bert else None,
        unused=filled.unused,
        provenance={"source": arguments.source_name, "format": arguments.command},
        overwrite=arguments.overwrite,
    )
    _report(arguments, arch, found, filled)


def _report(arguments: argparse.Namespace, model: object, found: Checkpoint, filled) -> None:
    for name in filled.unused:
        print(f"kept aside: {found.theirs(name)} ({names.reason_to_ignore(name)})")
    print(f"{storage.named(arguments.out)}: {model}")


def _check_apart(arguments: argparse.Namespace) -> None:
    """Raises ValueError where OUT is a folder that holds what is read: it would be gone."""
    out = storage.named(os.path.realpath(arguments.out))
    for read in (getattr(arguments, key, None) for key in ("source", "bert", "vocab")):
        inside = read and Path(storage.named(os.path.realpath(read))).is_relative_to(out)
        if inside and arguments.out.is_dir():
            raise ValueError(
                f"{read} lies in {arguments.out}, which would be replaced; name another folder."
            )


def _name(named: str) -> str:
    """What a source is called where it is noted: without folders, but all of a name on the hub.

    What is no UTF-8 in a file's name becomes U+FFFD: no file of a model could hold it.
    """
    return str(hub.parse(named) or os.fsencode(Path(named).name).decode(errors="replace"))


def _blocks(text: str) -> tuple[int, ...]:
    """`2,5,8,11`, or `none`."""
    words = [] if text == "none" else text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is neither numbers as in 2,5,8,11 nor none")
    return tuple(sorted(set(map(int, words))))


def _vocab(given: Path | None, source: Path, bert: Bert) -> Path | None:
    """The vocabulary that was given, or the one in or beside the source, or none.

    Raises ValueError where it is none, or has pieces for another table of embeddings.
    """
    if given is not None and not given.is_file():
        raise FileNotFoundError(f"no such vocabulary: {given}.")
    path = given or vocabulary.find(source)
    if path is None:
        say(f"{source}: no vocab.txt beside it; without its words no text can be read: --vocab.")
        return None
    found = vocabulary.fitting(path, bert.vocab, source=source)
    pieces, rows = found.size, bert.vocab
    if pieces < rows:
        say(f"{path} has {pieces} word pieces for {rows} rows: {rows - pieces} are never read.")
    if found.guessed and found.spelling != vocabulary.Spelling():
        kept = "accents" if found.spelling.do_lower_case else "case and accents"
        say(f"{path}: texts keep their {kept}, as its pieces do; no {vocabulary.CONFIG} says it.")
    return path


if __name__ == "__main__":
    sys.exit(main())

"""The tensors of one model in a checkpoint, taken out of their wrappings; and writing them again.

Training scripts nest a state dict and put words before its names, in any order; what was taken off
is said. Names become the released DIT code's (`names.py`), and the file's are kept for messages.
"""

import dataclasses
import json
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dit_jax.convert import files, kinds, names
from dit_jax.convert.names import Convention
from dit_jax.strict import few

State = dict[str, np.ndarray]  # name in PyTorch → value, float32 or int64

DEPTH = 4  # of nested dicts that are looked into
# Words that PyTorch's wrappers of a module add to names, wherever they stand.
WRAPPERS = r"(^|\.)(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)"
FACTS = "dit_jax"  # in a state dict's metadata, which PyTorch saves and does not compare


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """One model's tensors, and what is to be known about them."""

    source: Path
    tensors: State  # by the released code's names
    theirs: Callable[[str], str]  # such a name → the file's
    convention: Convention
    facts: dict[str, Any]  # what `write` noted


@dataclasses.dataclass(frozen=True)
class _Model:
    """A model somewhere in a file."""

    keys: tuple[str, ...]  # of the nested dicts that lead to it
    content: dict[Any, Any]  # its tensors and what lies beside them
    prefix: str  # of its tensors' names, without `WRAPPERS`
    convention: Convention


def read(source: Path | str, command: str, *, key: str | None = None) -> Checkpoint:
    """The model that `python -m convert COMMAND` reads, from a file or folder.

    Args:
      command: "sam", "bert" or "dit".
      key: where there are several such models, one of the keys or prefixes that lead to one.

    Raises FileNotFoundError, or ValueError in a sentence that uses the file's own names.
    """
    source = Path(source)
    content = files.read(source)
    if not isinstance(content, dict):
        raise ValueError(f"{source} holds a {type(content).__name__}; expected a state dict.")
    dicts = list(_dicts(content))
    if not dicts:
        raise ValueError(f"{source} holds no tensors by name; expected a state dict.")
    for _, state in dicts:
        kinds.check(state, source=str(source))
    model = _choose(dicts, command, key, source)
    _say(source, model, content)
    others = _beside(dicts, model) if key is not None else ()
    return _checkpoint(source, model, others)


def write(path: Path | str, state: State, *, wrap: bool = False, facts: dict | None = None) -> None:
    """Writes a state dict, inside `{"state_dict": …}` if `wrap`; whole or not at all.

    `facts` travel in its metadata: `read` finds them, and loading it into a module is no different.
    """
    torch = files.require_torch()
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; expected a file to write.")
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = OrderedDict((name, torch.from_numpy(value.copy())) for name, value in state.items())
    if facts:
        tensors._metadata = OrderedDict({"": {FACTS: json.dumps(facts)}})
    partial = path.with_name(f".{path.name}.partial")
    try:
        torch.save({"state_dict": tensors} if wrap else tensors, partial)
        partial.replace(path)
    except RuntimeError as error:  # PyTorch's, of a full disk
        raise OSError(f"{path} could not be written: {few(str(error).splitlines(), 1)}.") from error
    finally:
        partial.unlink(missing_ok=True)


def array(value: Any, *, name: str) -> np.ndarray:
    """A tensor as float32 or int64; raises ValueError for what is neither."""
    if not isinstance(value, np.ndarray):
        torch = files.require_torch()
        plain = value.layout == torch.strided and not value.is_nested
        if not plain or value.is_quantized or value.is_meta:
            raise ValueError(f"{name} is sparse, quantised or without values; expected numbers.")
        if value.is_floating_point() and value.itemsize == 1:
            raise ValueError(f"{name} is of type {value.dtype}; expected 16, 32 or 64 bits.")
        value = value.detach().resolve_conj().resolve_neg()
        value = (value.float() if value.is_floating_point() else value).numpy()
    if value.dtype.kind not in "fiub":
        raise ValueError(f"{name} is of type {value.dtype}; expected real numbers.")
    with np.errstate(over="ignore"):  # `transfer.fill` names what becomes infinite
        return value.astype(np.float32 if value.dtype.kind == "f" else np.int64, copy=False)


def _is_tensor(value: Any) -> bool:
    kind = type(value)  # not the value: nested tensors raise when they are asked for their shape
    return hasattr(kind, "dtype") and hasattr(kind, "shape") and not issubclass(kind, np.generic)


def _dicts(content: dict, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict]]:
    """Every nested dict that holds tensors by name, once, and the keys that lead to it."""
    if any(isinstance(name, str) and _is_tensor(value) for name, value in content.items()):
        yield keys, content
    for name, value in content.items():
        if isinstance(value, dict) and isinstance(name, str) and len(keys) < DEPTH:
            yield from _dicts(value, (*keys, name))


def _bare(name: str) -> str:
    return re.sub(WRAPPERS, "", name).removeprefix(".")


def _models(dicts: list[tuple[tuple[str, ...], dict]]) -> Iterator[_Model]:
    """Whatever has a convention's anchor."""
    seen = set()
    for keys, content in dicts:
        if id(content) in seen:  # the same dict under two keys
            continue
        seen.add(id(content))
        for name in content:
            bare = _bare(name) if isinstance(name, str) else ""
            for convention in names.CONVENTIONS:
                if f".{bare}".endswith(f".{convention.anchor}"):
                    yield _Model(keys, content, bare.removesuffix(convention.anchor), convention)
                    break


def _choose(dicts, command: str, key: str | None, source: Path) -> _Model:
    """The one model that the command reads."""
    models = list(_models(dicts))
    fit = [model for model in models if model.convention.command == command]
    for model in models:  # a DIT model has a BERT inside
        if model.convention is names.DIT and command != "dit":
            fit = []
    if key is not None:
        named = [model for model in fit if key in (*model.keys, *model.prefix.split("."))]
        fit = named if named else fit
        if not named and fit:
            raise ValueError(f"{source} holds nothing under {key!r}; it holds {_places(fit)}.")
    if len(fit) == 1:
        return fit[0]
    if fit:
        raise ValueError(
            f"{source} holds {len(fit)} models, {_places(fit)}; choose one with --key of"
            f" `convert {command}`."
        )
    if models:
        other = next((m for m in models if m.convention is names.DIT), models[0]).convention
        raise ValueError(f"{source} holds {other.what}: use `convert {other.command}`.")
    state = max((state for _, state in dicts), key=len)
    anchors = [c.anchor for c in names.CONVENTIONS if c.command == command]
    first = ", ".join(sorted(str(name) for name in state)[:3])
    raise ValueError(
        f"{source} holds nothing to read as {command}: it has no tensor {' or '.join(anchors)},"
        f" but {len(state)} such as {first}."
    )


def _places(models: list[_Model]) -> str:
    words = [" / ".join([*m.keys, *([f"{m.prefix}*"] if m.prefix else [])]) for m in models]
    return " and ".join(word or "one at the top" for word in words)


def _say(source: Path, model: _Model, content: dict) -> None:
    """Tells what was taken off, and what lies beside the tensors and is not read."""
    tensors = {name for name, value in model.content.items() if _is_tensor(value)}
    wrappers = {word for name in tensors for word in _wrappers(str(name))}
    taken = [*model.keys, *([f"{model.prefix}*"] if model.prefix else []), *sorted(wrappers)]
    beside = [str(key) for key in content if not model.keys or key != model.keys[0]]
    beside = [key for key in beside if key not in tensors] if not model.keys else beside
    said = f"taken off: {', '.join(taken)}" if taken else ""
    left = f"not read, beside the tensors: {few(sorted(beside))}" if beside else ""
    if said or left:
        print(f"{source}: {'; '.join(filter(None, (said, left)))}.", file=sys.stderr)


def _wrappers(name: str) -> list[str]:
    return [f"{found.group().strip('.')}." for found in re.finditer(WRAPPERS, name)]


def _beside(dicts, model: _Model) -> tuple[str, ...]:
    """Prefixes of the other models of its kind in the same dict."""
    same = (one for one in _models(dicts) if one.content is model.content)
    found = {one.prefix for one in same if one.convention.command == model.convention.command}
    return tuple(found - {model.prefix})


def _checkpoint(source: Path, model: _Model, others: tuple[str, ...]) -> Checkpoint:
    """The tensors under a model's prefix; not those of the `others`, by the longest that fits."""
    tensors: State = {}
    called: dict[str, str] = {}
    convention = model.convention
    for name, value in model.content.items():
        if not isinstance(name, str) or not _is_tensor(value):
            continue
        whose = [prefix for prefix in (model.prefix, *others) if _bare(name).startswith(prefix)]
        if whose and max(whose, key=len) != model.prefix:
            continue
        inside = _bare(name).removeprefix(model.prefix)
        first = dict([names.TIED]).get(inside) if convention is names.HF_SAM else None
        ours, value = convention.read(first or inside), array(value, name=f"{source}: {name}")
        if ours in tensors and not (first and np.array_equal(tensors[ours], value)):
            raise ValueError(f"{source} holds two tensors for one: {called[ours]} and {name}.")
        tensors[ours], called[ours] = value, name
    spell = lambda ours: called.get(ours, model.prefix + convention.write(ours))  # noqa: E731
    return Checkpoint(source, tensors, spell, convention, _facts(model.content, source))


def _facts(content: dict, source: Path) -> dict[str, Any]:
    metadata = getattr(content, "_metadata", None)
    noted = metadata.get("") if isinstance(metadata, dict) else None
    text = noted.get(FACTS) if isinstance(noted, dict) else None
    try:
        facts = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source} notes what is no JSON under {FACTS!r}: {error}.") from error
    return facts if isinstance(facts, dict) else {}

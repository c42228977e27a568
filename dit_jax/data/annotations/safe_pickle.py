"""Read a pickle of plain data, and nothing else.

REFER ships its expressions as a pickle, and `pickle.load` runs whatever program a pickle holds.
This is an interpreter of its own for the opcodes that containers, strings and numbers need. It
looks up, imports and calls nothing: the only globals it knows are the names with which protocols
0-3 spell a set and a bytes string, and those are read as such. Every other name and opcode is
refused.

It also outlives what kills Python's own reader (3.11): a length or a memo slot of billions takes no
memory, and a key that is nested a million times is refused instead of being hashed.
"""

import os
from pathlib import Path
from typing import Any

from dit_jax.data.annotations.safe_pickle_machine import Machine, Refused
from dit_jax.data.annotations.safe_pickle_opcodes import OPCODES

PLAIN = "plain data (dict, list, tuple, set, str, bytes, numbers)"


def load(path: str | os.PathLike[str]) -> Any:
    """Load a pickle of dict, list, tuple, set, str, bytes, int, float, bool and None.

    Strings written by Python 2 are read as UTF-8, or as Latin-1 where they are not UTF-8.
    Raises ValueError, naming the file, for anything else or for a damaged file.
    """
    machine = Machine(Path(path).read_bytes())
    try:
        return machine.run(OPCODES)
    except Refused as error:
        raise ValueError(
            f"{path}: the pickle asks for {error}, but only {PLAIN} is admitted."
        ) from None
    except Exception as error:  # a damaged pickle may raise nearly anything
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"{path}: not a readable pickle (byte {machine.at}: {reason[:200]})."
        ) from error

"""What training scripts leave beside the tensors of a checkpoint, read as data and never called.

PyTorch's reader of weights alone builds what it is told to admit. Here every such name stands for a
class of this module, so that none of the real ones is imported or run.
"""

import contextlib
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np

OBJECTS = {  # module → settings, places, times, numbers
    "argparse": "Namespace",
    "types": "SimpleNamespace",
    "pathlib": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    "pathlib._local": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    "datetime": "datetime date time timedelta",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "uuid": "UUID",
    "builtins": "int float str bool complex list dict tuple object slice range set frozenset",
    "__builtin__": "int long float str unicode bool complex list dict tuple object set frozenset",
    "omegaconf.dictconfig": "DictConfig",
    "omegaconf.listconfig": "ListConfig",
    "omegaconf.base": "ContainerMetadata Metadata Node",
    "omegaconf.nodes": "AnyNode IntegerNode FloatNode StringNode BooleanNode",
    "ml_collections.config_dict.config_dict": "ConfigDict FrozenConfigDict FieldReference",
}
MAPPINGS = {  # module → dicts of another name
    "collections": "defaultdict",
    "easydict": "EasyDict",
    "addict.addict": "Dict",
    "yacs.config": "CfgNode",
    "fvcore.common.config": "CfgNode",
    "detectron2.config.config": "CfgNode",
    "mmengine.config.config": "ConfigDict",
    "mmcv.utils.config": "ConfigDict",
    "munch": "Munch",
    "attrdict.dictionary": "AttrDict",
    "pytorch_lightning.utilities.parsing": "AttributeDict",
    "lightning_fabric.utilities.data": "AttributeDict",
    "lightning.fabric.utilities.data": "AttributeDict",
}


class Inert:
    """Anything that is no tensor; swallows what it is built from."""

    def __new__(cls, *args: Any) -> "Inert":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


class Mapping:
    """A dict of the only kind that PyTorch's reader fills."""

    def __new__(cls, *args: Any) -> OrderedDict:
        return OrderedDict()


@contextlib.contextmanager
def admitted(torch: Any) -> Iterator[None]:
    """While this is open, `torch.load(weights_only=True)` reads the names above, and NumPy's."""
    known = [
        (stand_in, f"{module}.{name}")
        for stand_in, names in ((Inert, OBJECTS), (Mapping, MAPPINGS))
        for module in names
        for name in names[module].split()
    ]
    with torch.serialization.safe_globals([*known, *_numpy()]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about pickle protocols
        yield


def _numpy() -> list:
    """Arrays and numbers, under the names of NumPy 1 and 2: these functions only make arrays."""
    kinds = {type(np.dtype(code)) for code in np.typecodes["AllFloat"] + np.typecodes["AllInteger"]}
    functions = [
        (getattr(np._core.multiarray, function), f"numpy.{package}.multiarray.{function}")
        for package in ("core", "_core")
        for function in ("scalar", "_reconstruct")
    ]
    return [*functions, np.dtype, np.ndarray, np.dtypes.BoolDType, *kinds]

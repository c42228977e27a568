"""What every data set yields: one object of one picture, with all the expressions that name it."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int, UInt8


@dataclass(frozen=True)
class Truth:
    """What a referent is without its picture: mask at the picture's size, and expressions.

    `id` names the record in error messages; `image_id` groups the referents of one photograph. An
    empty mask means that the expressions fit nothing in the picture.
    """

    mask: Bool[np.ndarray, "H W"]
    expressions: tuple[str, ...]
    id: str
    image_id: int


@dataclass(frozen=True)
class Referent:
    """One or several objects that an expression means, at the picture's own size; see `Truth`."""

    image: UInt8[np.ndarray, "H W 3"]  # RGB
    mask: Bool[np.ndarray, "H W"]
    expressions: tuple[str, ...]
    id: str
    image_id: int

    @property
    def present(self) -> bool:
        """Whether the expressions fit anything in the picture."""
        return bool(self.mask.any())

    def truth(self) -> Truth:
        """Without the picture."""
        return Truth(self.mask, self.expressions, self.id, self.image_id)

    def __post_init__(self):
        if self.mask.shape != self.image.shape[:2]:
            raise ValueError(
                f"{self.id}: the mask is {self.mask.shape[0]}x{self.mask.shape[1]} (height x width)"
                f" but the picture is {self.image.shape[0]}x{self.image.shape[1]}."
            )
        if not self.expressions:
            raise ValueError(f"{self.id}: expected at least one expression, found none.")


@runtime_checkable
class Source(Protocol):
    """Random access to the referents of one split."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Referent: ...

    def truth(self, index: int) -> Truth:
        """Like `self[index].truth()`, without decoding the picture where that can be avoided."""
        ...

    def expression_counts(self) -> Int[np.ndarray, " n"]:
        """How many expressions each referent has, without decoding any picture."""
        ...

    def image_ids(self) -> Int[np.ndarray, " n"]:
        """Which photograph each referent is of, without decoding any picture; int64.

        Equal numbers mean the same photograph, also across splits and data sets. The same file may
        have COCO's number in one data set and one of its content in another: see `Contents`.
        """
        ...


@runtime_checkable
class Contents(Protocol):
    """A Source that also knows its pictures' files by their bytes, like `Records`."""

    def contents(self) -> Int[np.ndarray, " n"]: ...


@runtime_checkable
class Stated(Protocol):
    """A Source that says what scores on it depend on, beside the protocol, like `Records`."""

    def remarks(self) -> dict[str, str]: ...

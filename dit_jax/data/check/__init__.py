"""Everything that can be wrong with a data set, found before anything is built from it.

In: `Annotations`, which say where their pictures are. Out: a `Report` of problems, grouped, with
counts beside the published ones. Read `dataset`, which goes through a data set, then `masks`, one
entry's objects; `likeness` compares the pictures of its splits, `report` makes text of what they
found.
"""

from dit_jax.data.check.dataset import Report, check

__all__ = ["Report", "check"]

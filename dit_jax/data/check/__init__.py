"""Everything that can be wrong with a data set, found before anything is built from it.

In: `Annotations` and where the pictures are. Out: a `Report` of problems, grouped, with counts
beside the published ones. `dataset` goes through a data set, `masks` through one entry's objects,
`likeness` compares the pictures of its splits, `report` makes text of what they found.
"""

from dit_jax.data.check.dataset import Report, check

__all__ = ["Report", "check"]

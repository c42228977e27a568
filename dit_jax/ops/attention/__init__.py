"""One attention for every block, SAM's relative positions and text keys included.

In: queries, keys, values, relative terms. Out: what they attend to; never a matrix of all scores
where a device has something better. Read `plain`, the definition that all are held to, then
`dispatch`, which chooses once for each device and shape: a new back end is a row of its table and a
place in `candidates`. `by_head` is for CPUs, `folded` for cuDNN and TPU's splash attention,
`pallas` our kernels for TPU and GPU, `packed` those for NVIDIA GPUs, with `mosaic` without Triton,
`anywhere` for exported programs. `maps` gives the probabilities themselves.
"""

from dit_jax.ops.attention.dispatch import (
    SCORES_AT_ONCE,
    attend,
    attend_packed,
    packs,
    relative_terms,
    use_back_end,
)
from dit_jax.ops.attention.maps import attended

__all__ = [
    "SCORES_AT_ONCE",
    "attend",
    "attend_packed",
    "attended",
    "packs",
    "relative_terms",
    "use_back_end",
]

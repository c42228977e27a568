"""What the backward pass keeps of a block, and what it computes again: named values and policies.

"dots" keeps the results of a block's dear products (queries, keys and values, what attention
gives, the MLP's first layer before its activation) and recomputes what is cheap: norms, GELU,
relative terms, splitting and merging of heads. Of ViT-B at 512 px in bfloat16 that is about half
of what "none" keeps; "full" keeps a block's input alone and runs all of the block twice. "scan" is
"full" in one loop over the blocks (`dit_jax.models.loop`).
"""

from collections.abc import Callable

import jax

# `checkpoint_name`s of what "dots" keeps.
QKV, ATTENDED, HIDDEN = "qkv", "attended", "mlp_hidden"
SCAN = "scan"
POLICIES = ("none", "dots", "full", SCAN)


def rematerialised(f: Callable, policy: str) -> Callable:
    """`f`, whose backward pass recomputes what `policy` does not keep; same results."""
    if policy == "none":
        return f
    if policy in ("full", SCAN):
        return jax.checkpoint(f)
    if policy == "dots":
        kept = jax.checkpoint_policies.save_only_these_names(QKV, ATTENDED, HIDDEN)
        return jax.checkpoint(f, policy=kept)
    raise ValueError(f"remat is {policy!r}; expected one of {', '.join(POLICIES)}.")

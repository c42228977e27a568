"""What fits where, before anything is allocated: `--mode=plan`.

In: a config, devices that are here or elsewhere. Out: memory of each device, counted from shapes
(`memory`) and asked of the devices' own compiler (`compile`, `targets`), and what to change where
it does not fit (`suggest`). `command` is the mode.
"""

from dit_jax.plan.command import GB, examine, plan
from dit_jax.plan.targets import TARGETS, find

__all__ = ["GB", "TARGETS", "examine", "find", "plan"]

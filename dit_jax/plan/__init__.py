"""What fits where, before anything is allocated: `--mode=plan`.

In: a config, devices that are here or elsewhere. Out: memory of each device, and what to change
where it does not fit. Read `command`, the mode: `memory` counts from shapes, `compile` asks the
compiler of the devices that `targets` names, `suggest` looks for a change.
"""

from dit_jax.plan.command import GB, examine, plan
from dit_jax.plan.targets import TARGETS, find

__all__ = ["GB", "TARGETS", "examine", "find", "plan"]

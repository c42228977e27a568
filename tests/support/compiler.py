"""What XLA is told where tests ask for behaviour, not for speed."""

import os
import subprocess
import sys

ASK = (
    "from jaxlib import xla_client as x; x.CompileOptions().executable_build_options.debug_options"
)


def accepted(flag: str) -> bool:
    """Whether the XLA that is installed knows a flag: another one ends the process."""
    env = os.environ | {"XLA_FLAGS": flag}
    how = dict(env=env, capture_output=True, timeout=60, check=False)
    return subprocess.run([sys.executable, "-c", ASK], **how).returncode == 0


# A CPU's fusion emitters and LLVM's optimiser are most of the time that compiling takes. Newer XLA
# has no way around the former.
FLAGS = ("--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false")
COMPILES_FASTER = " ".join(flag for flag in FLAGS if accepted(flag))

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


# A CPU's fusion emitters, LLVM's optimiser and pieces of code compiled side by side are most of the
# time that compiling takes. Newer XLA has no way around the first.
FLAGS = (
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)
# Asked once; the processes that a test starts are told.
COMPILES_FASTER = os.environ.setdefault(
    "DIT_JAX_COMPILES_FASTER", " ".join(flag for flag in FLAGS if accepted(flag))
)

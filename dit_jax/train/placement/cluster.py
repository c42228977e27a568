"""Joining the other processes of a run: the first thing that a program on several hosts does.

`jax.distributed` finds coordinator, count and number by itself on Cloud TPU, under SLURM's `srun`
and Open MPI's `mpirun`; anywhere else the command line says all three.
"""

import glob
import importlib.util
import os
from collections.abc import Callable, Mapping

import jax

Environment = Mapping[str, str]


def _tpu(env: Environment) -> bool:
    wanted = env.get("JAX_PLATFORMS", "")
    chips = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
    installed = importlib.util.find_spec("libtpu") is not None
    return bool(installed and chips and wanted in ("", "tpu") and "TPU_SKIP_MDS_QUERY" not in env)


# Names of clusters, and what tells that this process was started by one, in several processes.
CLUSTERS: dict[str, Callable[[Environment], bool]] = {
    "SLURM": lambda env: "SLURM_STEP_NODELIST" in env and int(env.get("SLURM_NTASKS", "1")) > 1,
    "Open MPI": lambda env: int(env.get("OMPI_COMM_WORLD_SIZE", "1")) > 1,
    "TPU": _tpu,
}


def detected(env: Environment = os.environ) -> str | None:
    """The cluster that this process belongs to, or None."""
    return next((name for name, there in CLUSTERS.items() if there(env)), None)


def join(*, coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Become one of several processes, where the arguments or a cluster say so.

    Call it before anything asks JAX for its devices. Raises ValueError for arguments that do not
    go together and ConnectionError where the others cannot be reached.
    """
    said = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    missing = [f"--{name}" for name, value in said.items() if value is None]
    if len(missing) < len(said):
        _check(missing, coordinator, num_processes, process_id)
        _initialize(f"the coordinator at {coordinator}", coordinator, num_processes, process_id)
    elif name := detected():
        _initialize(f"the {name} cluster")


def _check(missing, coordinator, num_processes, process_id) -> None:
    if missing:
        raise ValueError(
            "--coordinator, --num_processes and --process_id go together; expected also"
            f" {' and '.join(missing)}."
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--coordinator is {coordinator!r}; expected HOST:PORT.")
    if not 0 <= process_id < num_processes:
        raise ValueError(
            f"--process_id is {process_id}; expected 0 to {num_processes - 1}"
            f" (--num_processes={num_processes})."
        )


def _initialize(where: str, *arguments) -> None:
    # Of the CPU alone, which has no collectives of its own; nothing on other devices.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(*arguments)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConnectionError(f"could not join {where}: {reason}") from error

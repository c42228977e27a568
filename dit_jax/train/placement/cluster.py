"""Joining the other processes of a run: the first thing that a program on several hosts does.

`jax.distributed` finds coordinator, count and number by itself on Cloud TPU, under SLURM's `srun`
and Open MPI's `mpirun`; anywhere else the command line says all three.
"""

import glob
import importlib.util
import os
import socket
from collections.abc import Callable, Mapping

import jax

from dit_jax.train.placement import watch

JAX_LATER = 60  # seconds after which JAX would say so itself, naming nobody
Environment = Mapping[str, str]


def _tpu(env: Environment) -> bool:
    wanted = env.get("JAX_PLATFORMS", "")
    chips = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
    installed = importlib.util.find_spec("libtpu") is not None
    # Where a machine has no metadata to ask, as in a container of GKE, this names the hosts.
    told = "TPU_SKIP_MDS_QUERY" not in env or "TPU_WORKER_HOSTNAMES" in env
    return bool(installed and chips and wanted in ("", "tpu") and told)


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
        if process_id == 0:
            _check_port(coordinator)
        who = f"process {process_id} of {num_processes}"
        _initialize(
            f"the coordinator at {coordinator}", who, coordinator, num_processes, process_id
        )
    elif name := detected():
        _initialize(f"the {name} cluster", f"a process of the {name} cluster")


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


def _check_port(coordinator: str) -> None:
    """Raise ConnectionError where nobody can listen there; JAX would crash."""
    port = int(coordinator.rpartition(":")[2])
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise ConnectionError(
            f"process 0 on {socket.gethostname()} cannot listen on port {port}, which"
            f" --coordinator={coordinator} says: {error.strerror}; expected a free one, the same on"
            " every host."
        ) from error


def _initialize(where: str, who: str, *arguments) -> None:
    # Of the CPU alone, which has no collectives of its own; nothing on other devices.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    waited, last_words = watch.seconds(watch.START), watch.LastWords()
    who = f"{socket.gethostname()} ({who})"
    coordinator, first = (arguments[0], arguments[2] == 0) if arguments else ("", False)
    missing = f"error: {who} was not joined by all other processes within {waited} s."
    alone = f"error: {who} found no process 0 at {coordinator} within {waited} s."
    # JAX aborts where they do not meet.
    last_words(coordinator=coordinator, there=missing, gone=missing if first else alone)
    limits = dict(initialization_timeout=waited)
    limits |= dict(heartbeat_timeout_seconds=watch.seconds(watch.LOST) + JAX_LATER)
    try:
        jax.distributed.initialize(*arguments, **limits)
    except RuntimeError as error:
        last_words()
        reason = str(error).splitlines()[0]
        raise ConnectionError(f"could not join {where}: {reason}") from error
    watch.start(last_words)

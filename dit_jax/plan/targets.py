"""Devices that a program can be compiled for without having one: their compilers are packages.

`pip install "jax[tpu]"` brings the compiler of every TPU, `pip install "jax[cuda13]"` that of
NVIDIA's GPUs. Where none is asked for, the devices of this machine are planned for, or as many
simulated CPUs as are named.
"""

import dataclasses
import os
from typing import Any

import jax
from jax.experimental import topologies

from dit_jax.strict import one_of

# Chips of a slice → its shape; a smaller number takes the first devices of the next larger one.
FLAT = {4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
CUBE = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8"}
GPUS_OF_A_HOST = 8
# What libtpu would look for, and complain that it is not there: the metadata of the TPU it runs on,
# that TPU's kind and hosts; and the lock on it, which keeps two plans from being made at once.
UNASKED = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",  # any; what is compiled for is the topology's
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Tpu:
    """A generation as its compiler calls it."""

    shapes: dict[int, str]
    platform: str = "tpu"
    package: str = "jax[tpu]"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Gpu:
    """What NVIDIA's data sheets and `deviceQuery` say of one, as XLA wants to know it."""

    name: str
    capability: tuple[int, int]
    processors: int
    clock_ghz: float
    memory: int  # bytes
    bandwidth: int  # bytes a second
    l2_cache: int
    shared_per_processor: int
    shared_per_block: int  # at most, where a kernel asks for it
    platform: str = "gpu"
    package: str = "jax[cuda13]"
    # Kernels cannot be timed without a GPU, and Triton's tiles are chosen by timing.
    options: dict[str, Any] = dataclasses.field(
        default_factory=lambda: {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
    )


HOPPER = dict(
    capability=(9, 0),
    processors=132,
    clock_ghz=1.98,
    l2_cache=52_428_800,
    shared_per_processor=233_472,
    shared_per_block=232_448,
)
TARGETS = {
    "v5e": Tpu(FLAT),
    "v5p": Tpu(CUBE),
    "v6e": Tpu(FLAT),
    "a100": Gpu(
        name="NVIDIA A100-SXM4-80GB",
        capability=(8, 0),
        processors=108,
        clock_ghz=1.41,
        memory=84_974_239_744,
        bandwidth=2_039_000_000_000,
        l2_cache=41_943_040,
        shared_per_processor=167_936,
        shared_per_block=166_912,
    ),
    "h100": Gpu(
        name="NVIDIA H100 80GB HBM3",
        memory=84_978_434_048,
        bandwidth=3_352_320_000_000,
        **HOPPER,
    ),
    "h200": Gpu(name="NVIDIA H200", memory=150_121_545_728, bandwidth=4_800_000_000_000, **HOPPER),
}


@dataclasses.dataclass(frozen=True)
class Devices:
    """Devices to compile for, here or elsewhere."""

    devices: list[jax.Device]
    platform: str  # "cpu", "gpu" or "tpu"
    options: dict[str, Any]  # of their compiler
    simulated: bool  # CPUs that stand for other devices

    @property
    def kind(self) -> str:
        return self.devices[0].device_kind


def find(name: str, count: int, *, slices: int = 1) -> Devices:
    """`count` devices of a row of `TARGETS`; "" is this machine, and 0 all it has.

    Of TPUs, `slices` of equal size have them together.

    Call it before anything asks JAX for its devices. Raises ValueError for an unknown name and
    ModuleNotFoundError where the compiler is not installed.
    """
    if count < 0:
        raise ValueError(f"--devices is {count}; expected a number above 0, or 0 for all.")
    if not name:
        return here(count)
    one_of("--target", name, tuple(TARGETS))
    jax.config.update("jax_platforms", "cpu")  # the target's own back end would look for a device
    target, count = TARGETS[name], max(count, 1)
    try:
        if isinstance(target, Tpu):
            devices = _tpus(name, target, count, slices)
        else:
            devices = _gpus(name, target, count)
    except (NotImplementedError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModuleNotFoundError(
            f'--target={name} needs its compiler: pip install "{target.package}" ({reason}).'
        ) from error
    return Devices(devices, target.platform, target.options, simulated=False)


def here(count: int) -> Devices:
    """This machine's devices, or `count` simulated ones."""
    if count:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", count)
    return Devices(jax.devices(), jax.default_backend(), {}, simulated=bool(count))


def _tpus(name: str, target: Tpu, count: int, slices: int) -> list[jax.Device]:
    for name_of, value in UNASKED.items():
        os.environ.setdefault(name_of, value)
    each = -(-count // slices)
    fitting = [chips for chips in target.shapes if chips >= each]
    if not fitting:
        raise ValueError(
            f"--devices is {count}; expected at most {max(target.shapes)} of {name} in a slice."
        )
    shape = f"{name}:{target.shapes[min(fitting)]}"
    several = dict(num_slices=slices) if slices > 1 else {}
    found = topologies.get_topology_desc(shape, platform="tpu", **several).devices
    of_slice = len(found) // slices
    return [chip for i in range(slices) for chip in found[i * of_slice :][:each]][:count]


def _gpus(name: str, target: Gpu, count: int) -> list[jax.Device]:
    hosts, each = (1, count) if count <= GPUS_OF_A_HOST else (-(-count // 8), GPUS_OF_A_HOST)
    about = dict(topology=f"1x{hosts}x{each}", target_config=described(target))
    return list(topologies.get_topology_desc(name, platform="cuda", **about).devices)[:count]


def described(gpu: Gpu) -> str:
    """XLA's `GpuTargetConfigProto`, as text."""
    major, minor = gpu.capability
    return f"""
        platform_name: "CUDA"
        device_description_str: "{gpu.name}"
        dnn_version_info {{ major: 9 minor: 12 patch: 0 }}
        gpu_device_info {{
          cuda_compute_capability {{ major: {major} minor: {minor} }}
          core_count: {gpu.processors}
          clock_rate_ghz: {gpu.clock_ghz}
          device_memory_size: {gpu.memory}
          memory_bandwidth: {gpu.bandwidth}
          l2_cache_size: {gpu.l2_cache}
          shared_memory_per_core: {gpu.shared_per_processor}
          shared_memory_per_block_optin: {gpu.shared_per_block}
          shared_memory_per_block: 49152
          threads_per_block_limit: 1024
          threads_per_warp: 32
          threads_per_core_limit: 2048
          fpus_per_core: 128
          registers_per_core_limit: 65536
          registers_per_block_limit: 65536
          block_dim_limit_x: 2147483647
          block_dim_limit_y: 65535
          block_dim_limit_z: 65535
        }}"""

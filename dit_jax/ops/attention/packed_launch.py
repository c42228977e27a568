"""How the kernels of packed attention run: blocks, warps and loads, by kernel and head."""

import dataclasses
import functools

from dit_jax.ops.attention import packed_kernels as kernels
from dit_jax.ops.attention.packed_kernels import Tiles
from dit_jax.ops.platform import platform
from dit_jax.ops.triton import call


@dataclasses.dataclass(frozen=True)
class Launch:
    """How a kernel runs: blocks, warps of a program, and loads that are under way at once."""

    queries: int
    keys: int  # at least: whole rows of the grid
    warps: int
    stages: int


# The fastest of those tried on an H200 at 512 px, for heads of 64 channels (ViT-B, ViT-L) and for
# wider ones (ViT-H): benchmarks/results/attention_h200.md.
LINE, LINES = Launch(16, 16, 2, 1), Launch(16, 16, 2, 3)
LAUNCHES = {
    "relate_rows": (LINE, LINE),
    "relate_columns": (LINE, LINE),
    "forward": (Launch(128, 64, 8, 3), Launch(128, 64, 4, 3)),
    "by_queries": (Launch(64, 64, 4, 2), Launch(64, 64, 4, 3)),
    "by_keys": (Launch(64, 64, 4, 2), Launch(64, 64, 4, 3)),
    "by_text": (Launch(128, 64, 4, 2), Launch(32, 64, 2, 3)),
    "unrelate_rows": (LINES, LINES),
    "unrelate_columns": (LINES, LINES),
}


def launch_of(name: str, channels: int) -> Launch:
    """Of a kernel, for heads of so many channels."""
    narrow, wide = LAUNCHES[name]
    return narrow if channels <= 64 else wide


def fits(*, grid: tuple[int, int], channels: int) -> bool:
    """Whether the kernels know these sizes: sides are powers of two, channels multiples of 16."""
    h, w = grid
    powers = all(16 <= side <= 128 and side & (side - 1) == 0 for side in grid)
    launches = (launch_of(name, channels) for name in LAUNCHES)
    largest = max(max(launch.queries, launch.keys, w) for launch in launches)
    return powers and channels % 16 == 0 and h * w % largest == 0


def tiles(name: str, grid: tuple[int, int], channels: int) -> Tiles:
    launch = launch_of(name, channels)
    keys, compiled = max(launch.keys, grid[1]), platform() == "gpu"
    return Tiles(*grid, channels, launch.queries, keys, compiled)


def run(name: str, tiles: Tiles, grid, **specs):
    """Blocks of one head follow one another (the grid's first axis is the fastest): its keys and
    values stay in the cache."""
    launch = launch_of(name, tiles.channels)
    kernel = functools.partial(getattr(kernels, name), tiles)
    about = dict(name=f"attention_{name}", warps=launch.warps, stages=launch.stages)
    return call(kernel, grid=grid, **about, **specs)

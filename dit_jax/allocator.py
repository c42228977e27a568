"""Keeping freed memory on a CPU: without it a step spends a quarter of its time on page faults.

XLA frees and takes again the same hundreds of megabytes every step. glibc gives them back to the
system in between, and the kernel clears them anew: 26,000 faults a step of the quickstart, 0 so.
"""

import ctypes
import platform

# Of <malloc.h>: no mapping of its own for any block, however large, no trimming, one arena for all
# threads.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed; call it first. False where the C library is another."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {
        ARENA_MAX: 1,
        MMAP_MAX: 0,
        TRIM_THRESHOLD: -1,
        TOP_PAD: 1 << 28,
    }
    taken = [mallopt(name, value) for name, value in settings.items()]  # each must be tried
    return all(taken)

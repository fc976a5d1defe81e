"""How much memory there is, and what becomes of it once it is freed."""

import contextlib
import ctypes
import os
from pathlib import Path
from typing import Literal

from naturalist.errors import UserError

DeviceMemory = Literal["auto", "resident", "stream"]
"""What ``--device_memory`` may be, see :func:`naturalist.data.placing.choose_place`."""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Numbers of these parameters in glibc's ``malloc.h``; see mallopt(3)."""
MOST_KEPT = 2**31 - 1
"""Bytes at the end of the heap that are kept; mallopt takes no larger number."""

OWN_TUNING = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")
"""Environment variables by which people tune glibc themselves."""

CONTAINER_LIMITS = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
"""Where Linux tells, inside a container, how many bytes of memory it may take: control groups, versions 2 and 1."""


def keep_freed_memory() -> bool:
    """Have malloc keep what is freed, in this process and from now on; returns whether it does.

    glibc maps every large block anew and unmaps it when it is freed, so each step of a training on a CPU would have
    the system zero all of its activations again, a page at a time. This is what ``MALLOC_MMAP_MAX_=0
    MALLOC_TRIM_THRESHOLD_=2147483647`` do from outside. Nothing changes on systems without glibc, nor where somebody
    tuned the allocator or preloaded another.
    """
    if not _is_glibc() or _is_tuned():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, MOST_KEPT))


def give_memory_back() -> None:
    """Return kept memory to the system: between trainings of one process, others may need it."""
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def machine_memory() -> int | None:
    """Bytes of memory that this machine, or the container around this process, has.

    None where the system does not tell, such as Windows.
    """
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    for limit in CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # of the other version; "max" where there is no limit
            memory = min(memory, int(limit.read_text(encoding="ascii")))
    return memory if memory > 0 else None


def require_memory(needed: int, what: str) -> None:
    """Raise :class:`UserError` when ``what`` needs more bytes than this machine has, before they are asked for.

    Systems promise memory that they do not have, and kill whoever uses it.
    """
    there = machine_memory()
    if there is not None and needed > there:
        raise UserError(
            f"{what} would need {needed / 1e9:,.1f} GB, but this machine has {there / 1e9:,.1f} GB of memory; make the "
            "network smaller."
        )


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError):  # Windows; macOS and musl
        return False


def _is_tuned() -> bool:
    by_name = any(name in os.environ for name in OWN_TUNING)
    tunes = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    return by_name or tunes or "alloc" in os.environ.get("LD_PRELOAD", "")  # jemalloc, mimalloc, tcmalloc

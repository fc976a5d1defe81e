"""Does anything get through? Kills, full disks, mistakes and damaged files by the hundred, through the real commands.

    python -m benchmarks.faults [--only kills disk setups mutations] [--seed 0] [--show 5]

- ``kills``: a training is killed (SIGKILL) at random moments and resumed until it ends; it must end with the weights
  and metrics of one that nothing interrupted, bit for bit.
- ``disk``: commands run on a disk that becomes full at some moment of their writing. They must end with one sentence
  (or a line and exit code 0, where only pictures were lost); what was there before is whole, nothing half-written is
  left, and the same command ends well once there is room. Needs Linux with user namespaces, for a small disk in memory.
- ``setups``: every setting with values that it cannot have, odd folders, files and environments: exit code 0, or 2 with
  one sentence; never a traceback, never a hang.
- ``mutations``: whatever is read back, damaged at random: a value or a sentence.

Prints how many were tried and how many got through, with the first of these, and exits with code 1 when one did.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from benchmarks import forked
from benchmarks.faults_disk import disk
from benchmarks.faults_kills import kills
from benchmarks.faults_mutations import mutations
from benchmarks.faults_setups import setups

Try = Callable[[Path, Random], Iterator[str | None]]
"""Gets an empty folder; yields for everything that it tries what got through, or None."""

KINDS: dict[str, tuple[Try, int]] = {
    "kills": (kills, 100),
    "disk": (disk, 60),
    "setups": (setups, 300),
    "mutations": (mutations, 10_000),
}
"""Each with the number that a full run must try at least."""


def main() -> int:
    """Try everything; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=5, help="so many of those that got through are shown")
    arguments = parser.parse_args()
    forked.warm_up()
    print(f"{'kind':<12}{'tried':>8}{'through':>9}{'seconds':>9}", flush=True)
    passed = True
    for kind in arguments.only:
        attempt, least = KINDS[kind]
        begin, tried, through = time.perf_counter(), 0, []
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            for fault in attempt(Path(folder), Random(arguments.seed)):
                tried += 1
                through += [fault] if fault else []
                if fault and len(through) <= arguments.show:
                    print(f"    {fault}", flush=True)
        print(f"{kind:<12}{tried:>8,}{len(through):>9,}{time.perf_counter() - begin:>9.0f}", flush=True)
        if tried < least:
            print(f"    fewer than {least:,} were tried", flush=True)
        passed &= not through and tried >= least
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

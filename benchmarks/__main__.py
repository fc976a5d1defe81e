"""The suite: how many times better than the usual way, each measured side by side, in turns, in one run.

    python -m benchmarks [--only ROW …] [--images 600] [--repeats 3] [--device auto] [--no_record]

Prints a table, with hardware and versions on top, and appends it to ``benchmarks/RESULTS.md``. "Times better" is the
other's time over ours, or our rate over the other's; median and, where there are several turns, smallest and largest.
Nothing else should run beside it. Rows whose goals are for CUDA say on what they were measured; none needs it.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

from benchmarks import commands, finetuning, growth, pipeline, steps, streaming, tuning
from benchmarks.measuring import HEADING, Row, Settings, describe_environment
from naturalist.device import choose_device
from naturalist.entry import entry_point

RESULTS = Path(__file__).parent / "RESULTS.md"

ROWS: dict[str, tuple[Callable[[Settings], Iterator[Row]], str]] = {
    "decode": (pipeline.decode, "decoding every photograph once, against Pillow"),
    "input": (pipeline.read, "an epoch of augmented batches, against the usual DataLoader"),
    "epoch": (pipeline.epoch, "an epoch of training, against the usual loop; two networks, two sizes"),
    "data-path": (pipeline.data_path, "an epoch, against steps on a batch that is there (CUDA: to cost under 3 %)"),
    "floor": (steps.floor, "a step, against what the hardware would allow (CUDA: to reach half of it)"),
    "memory": (steps.memory_kept, "a step with freed memory kept, against malloc as it comes"),
    "replayed": (steps.replayed, "a step as a CUDA graph, against kernel by kernel"),
    "compiled": (steps.compiled, "a step by torch.compile, against the step as it is"),
    "precision": (steps.precision, "a step in the arithmetic of --precision auto, against the other"),
    "tuning": (tuning.tuning, "an epoch with knobs turned that are left alone, against one as it is (on a CPU)"),
    "validation": (pipeline.validation, "a pass over the validation images, against the usual loop"),
    "finetuning": (finetuning.finetuning, "head and upper stages on kept features, against the whole network"),
    "sweep": (commands.sweep, "29 trials, against 29 scripts of the usual loop"),
    "start": (commands.start, "--help, first line and first epoch, against importing the libraries"),
    "streaming": (streaming.streaming, "images streamed from the disk, against resident ones; input and epoch"),
    "ranks": (streaming.ranks, "two ranks against one process (on a CPU: what they cost)"),
    "growth": (growth.growth, "time and memory at 4 and 16 times the images"),
}


def main() -> None:
    """Measure what is asked for."""
    rows = "\n".join(f"  {name:<12}{words}" for name, (_, words) in ROWS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"{__doc__}\nrows:\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW")
    parser.add_argument("--images", type=int, default=600, help="photographs of 800×600 to draw (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="turns, after a warm-up (default: %(default)s)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--no_record", action="store_true", help="leave RESULTS.md as it is")
    arguments = parser.parse_args()
    if arguments.images < 1 or arguments.repeats < 1:
        parser.error("--images and --repeats must be at least 1")
    with entry_point():
        device = choose_device(arguments.device)
        top = f"{date.today().isoformat()}; {describe_environment(device)}; {arguments.images} photographs"
        print(f"{top}\n\n{HEADING}", flush=True)
        lines = []
        for name in arguments.only:
            with tempfile.TemporaryDirectory() as folder:
                for row in ROWS[name][0](Settings(Path(folder), arguments.images, arguments.repeats, device)):
                    lines.append(str(row))
                    print(row, flush=True)
        if not arguments.no_record:
            flags = "" if arguments.only == list(ROWS) else f" --only {' '.join(arguments.only)}"
            command = f"python -m benchmarks{flags} --images {arguments.images} --repeats {arguments.repeats}"
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write("\n".join([f"\n### `{command}`\n", top, "", HEADING, *lines, ""]))


if __name__ == "__main__":
    main()

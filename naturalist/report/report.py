"""``python -m naturalist report [RUNS]``: one page from everything that was done."""

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

import naturalist
from naturalist.data.dataset import describe_data
from naturalist.errors import UserError
from naturalist.printable import printable
from naturalist.progress import plain_console
from naturalist.report.blocks import Missing, Report, Section, Sentences, Text
from naturalist.report.data import about_data, audited_classes
from naturalist.report.found import Found, find_runs
from naturalist.report.more_images import about_more_images
from naturalist.report.page import write_html, write_markdown
from naturalist.report.part_a import part_a
from naturalist.report.part_b import against_scratch, part_b
from naturalist.report.repeating import about_repeating
from naturalist.settings.display_names import names_by_folder
from naturalist.settings.report import ReportOptions
from naturalist.wording import counted, number, percent


def report_all(options: ReportOptions) -> Path:
    """Write the page, and publish it at Weights & Biases if that is asked for.

    Returns:
        The file.

    Raises:
        UserError: for folders that hold no runs, damaged records, a file of names that cannot be used, and when W&B
            cannot be published to, before anything is written.
    """
    output = options.out or Path(f"report.{options.format}")
    if output.is_dir():
        raise UserError(f"{str(output)!r} is a folder; name a file with -o.")
    if options.wandb:
        from naturalist.report.publish import require_login

        require_login()
    found = find_runs(options.folders)
    if class_names := found.class_names or audited_classes(options.audit):
        found = replace(found, names=names_by_folder(options.display_names, class_names))
    with TemporaryDirectory() as scratch:
        report = compose(found, options.audit, Path(scratch), options.title)
        output.parent.mkdir(parents=True, exist_ok=True)
        (write_html if options.format == "html" else write_markdown)(report, output)
    print(f"Report: {printable(output)}, {output.stat().st_size / 1e6:.1f} MB")
    console = plain_console()
    for note in found.notes:
        console.print(printable(note), soft_wrap=True)
    for block in (block for section in report.sections for block in section.blocks):
        if isinstance(block, Missing):
            console.print(printable(f"{block.words} {block.command}"), soft_wrap=True)
    if options.wandb:
        from naturalist.report.publish import publish

        print(f"W&B: {publish(report, options.wandb_project)}")
    return output


def compose(found: Found, audit: Path, scratch: Path, title: str | None = None) -> Report:
    """Everything that there is to say.

    Args:
        found: the runs.
        audit: folder that ``naturalist audit`` wrote to.
        scratch: folder for pictures, to be kept until the report is written.
        title: by default the data's name.
    """
    runs = found.all
    data = describe_data(runs[0].part("data")) if runs else None
    kinds = [
        f"{counted(len(found.of(adapted)), 'run')} of Part {part}" for adapted, part in ((False, "A"), (True, "B"))
    ]
    kinds += [f"sweep {sweep.name!r} with {counted(len(sweep.trials), 'finished trial')}" for sweep in found.sweeps]
    sections = [
        _summary(found),
        about_data(found, audit),
        part_a(found, scratch),
        part_b(found, scratch),
        against_scratch(found),
        about_more_images(found, scratch),
        about_repeating(found),
    ]
    made = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    subtitle = f"{', '.join(kinds)}. Made by naturalist {naturalist.__version__}, {made}."
    return Report(title or (f"Classifying {data}" if data else "Nothing was trained yet"), subtitle, sections)


def _summary(found: Found) -> Section:
    """The results first, each in a sentence."""
    said = []
    for adapted, words in ((False, "The CNN from scratch"), (True, "The adapted backbone")):
        best = found.best(adapted)
        if best is None:
            said.append(f"{words}: no run yet.")
            continue
        of = f" ({best.run.label}, {best.run.name})"
        if best.tested is None:
            said.append(f"{words}{of}: validation accuracy {percent(best.validation)}, not tested yet.")
        else:
            interval = best.tested.accuracy_95_interval
            bounds = (
                "" if interval is None else f", 95 % interval {number(100 * interval[0])} to {percent(interval[1])}"
            )
            said.append(f"{words}{of}: test accuracy {percent(best.tested.accuracy)}{bounds}.")
    return Section("summary", "In short", [Sentences(said), *map(Text, found.notes)])

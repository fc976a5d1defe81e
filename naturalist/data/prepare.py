"""``python -m naturalist prepare``: get a data set, check every file of it, decode it."""

from collections import defaultdict
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from naturalist.data.audit import Images, Part, open_parts
from naturalist.data.catalog import Split
from naturalist.data.dataset import case_twins, describe_data, find_data
from naturalist.data.images import ImageCache
from naturalist.data.layout import Folders
from naturalist.printable import printable
from naturalist.progress import plain_console, print_table
from naturalist.settings.audit import Limits
from naturalist.settings.groups import DataSettings
from naturalist.settings.run_settings import cache_folder
from naturalist.settings.verbs import PrepareOptions
from naturalist.wording import counted

PAIRS_SHOWN = 10


def prepare_data(options: PrepareOptions) -> None:
    """Download or draw the data if need be, build the caches, and report what is in them.

    Every unreadable file is named, and so is every photograph whose bytes are in the training and in the test set.
    Raises :class:`UserError` for data that cannot be used.
    """
    settings = DataSettings(
        data=options.data,
        image_size=options.image_size,
        cache_size=options.cache_size,
        resize_mode=options.resize_mode,
        on_corrupt=options.on_corrupt,
        datasets_dir=options.datasets_dir,
        cache_dir=options.cache_dir,
    )
    settings.validate()
    folders = find_data(settings.data, settings.datasets_dir)
    parts = open_parts(folders, settings, cache_folder(settings.cache_dir, options.runs_dir))
    splits, caches = ({part.name: getattr(part, kind) for part in parts} for kind in ("split", "cache"))
    console = plain_console()
    table = Table("class", title=describe_data(settings.data), title_justify="left")
    for name in splits:
        table.add_column(name, justify="right")
    counts = {name: split.counts() for name, split in splits.items()}
    for class_name in splits["train"].class_names:
        table.add_row(printable(class_name), *(f"{counts[name][class_name]:,}" for name in splits))
    table.add_section()
    table.add_row("files", *(f"{len(split.files):,}" for split in splits.values()))
    table.add_row("readable", *(f"{len(cache):,}" for cache in caches.values()))
    print_table(table)
    for line in _notes(folders, splits):
        console.print(line, soft_wrap=True)
    if "test" not in splits:
        console.print("There is no test/ (or val/) folder: a run can be evaluated on its validation images only.")
    for name in ("val", "test"):
        if name in splits:
            places = splits["train"].folder.name, splits[name].folder.name
            _report_same_bytes(console, same_bytes(caches["train"], caches[name]), *places)
    console.print(f"{_in_short(parts)}; naturalist audit {printable(options.data)} shows which.", soft_wrap=True)


def same_bytes(first: ImageCache, second: ImageCache) -> list[tuple[str, str]]:
    """Pairs of readable photographs of two splits whose content is identical, as paths relative to their splits."""
    twins = defaultdict(list)
    for path, content in zip(first.paths, first.hashes, strict=True):
        twins[content].append(path)
    return [
        (twin, path)
        for path, content in zip(second.paths, second.hashes, strict=True)
        for twin in twins.get(content, ())
    ]


def _in_short(parts: list[Part]) -> str:
    """What an audit would find, as far as pixels in this size show it."""
    images = Images.of(parts, Limits())
    found = images.duplicates(Limits().distance)
    problems = images.looks.problems(Limits())
    counts = {
        "in two splits": len(found.leaks),
        "under two labels": len(found.conflicts),
        "twice in one class": len(found.copies),
        **{name: int(problems[name].sum()) for name in ("nearly uniform", "very dark", "very bright")},
    }
    words = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    return f"By their pixels: {words or 'nothing twice, nothing odd'}"


def _notes(folders: Folders, splits: dict[str, Split]) -> Iterator[str]:
    """What else there is to say of the folders and their files."""
    if folders.note:
        yield f"Folders: {folders.note}."
    twins = case_twins(splits["train"].class_names)
    if twins:
        yield f"{twins}."
    ignored = [path for split in splits.values() for path in split.ignored]
    if ignored:
        what = counted(len(ignored), "file or folder that is", "files or folders that are")
        yield f"Ignored {what} hidden, a system's or outside the class folders, such as {printable(ignored[0])}."
    for name, count in splits["test"].unknown.items() if "test" in splits else ():
        place = f"{splits['test'].folder.name}/{printable(name)}"
        left_out = counted(count, f"file in {place} is", f"files in {place} are")
        yield f"{left_out} left out: the training images have no such class."


def _report_same_bytes(console: Console, pairs: list[tuple[str, str]], train: str, other: str) -> None:
    if not pairs:
        console.print(f"No photograph of {train}/ is in {other}/ too.")
        return
    console.print(
        f"{counted(len(pairs), 'photograph has', 'photographs have')} the same bytes in {train}/ and {other}/, which "
        f"flatters the result on {other}/:",
        soft_wrap=True,
    )
    for first, second in pairs[:PAIRS_SHOWN]:
        console.print(f"  {train}/{printable(first)} = {other}/{printable(second)}", soft_wrap=True)
    if len(pairs) > PAIRS_SHOWN:
        console.print(f"  … and {len(pairs) - PAIRS_SHOWN} more")

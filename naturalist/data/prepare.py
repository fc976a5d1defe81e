"""``python -m naturalist prepare``: get a data set, check every file of it, decode it."""

from rich.console import Console
from rich.table import Table

from naturalist.data.catalog import Split, same_bytes, scan
from naturalist.data.dataset import cache_of, describe_data, find_data
from naturalist.printable import printable
from naturalist.progress import plain_console, print_table
from naturalist.settings.groups import DataSettings
from naturalist.settings.run_settings import cache_folder
from naturalist.settings.verbs import PrepareOptions

PAIRS_SHOWN = 10


def prepare_data(options: PrepareOptions) -> None:
    """Download or draw the data if need be, build the caches, and report what is in them.

    Every unreadable file is named, and so is every file whose bytes are in the training and in the test set.
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
    splits: dict[str, Split] = {name: scan(folder) for name, folder in vars(folders).items() if folder is not None}
    folder = cache_folder(settings.cache_dir, options.runs_dir)
    caches = {name: cache_of(split, settings, folder) for name, split in splits.items()}
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
    ignored = [path for split in splits.values() for path in split.ignored]
    if ignored:
        console.print(
            f"Ignored {len(ignored)} file(s) that are hidden or outside the class folders, such as "
            f"{printable(ignored[0])}.",
            soft_wrap=True,
        )
    if "test" not in splits:
        console.print("There is no test/ (or val/) folder: a run can be evaluated on its validation images only.")
    for name in ("val", "test"):
        if name in splits:
            _report_same_bytes(console, splits["train"], splits[name])


def _report_same_bytes(console: Console, train: Split, other: Split) -> None:
    pairs = same_bytes(train, other)
    if not pairs:
        console.print(f"No file of {train.folder.name}/ is in {other.folder.name}/ too.")
        return
    console.print(
        f"{len(pairs)} file(s) have the same bytes in {train.folder.name}/ and {other.folder.name}/, which "
        f"flatters the result on {other.folder.name}/:",
        soft_wrap=True,
    )
    for first, second in pairs[:PAIRS_SHOWN]:
        console.print(
            f"  {train.folder.name}/{printable(first)} = {other.folder.name}/{printable(second)}", soft_wrap=True
        )
    if len(pairs) > PAIRS_SHOWN:
        console.print(f"  … and {len(pairs) - PAIRS_SHOWN} more")

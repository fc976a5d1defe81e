"""``python -m naturalist audit FOLDER``: what is wrong with a data set, in tables, pictures and a few sentences.

It reads the test set's photographs, and no model's answers to them, by which something could be chosen: that is no
look at the test set. ``--run RUN --split test`` is one.
"""

import json
from pathlib import Path
from typing import Any

from naturalist.audit.findings import Findings, write_tables
from naturalist.audit.sheets import draw_sheets
from naturalist.audit.words import print_findings
from naturalist.data.audit import SIDE, Images, find_oddities, open_parts, read_headers
from naturalist.data.dataset import find_data
from naturalist.data.layout import Folders
from naturalist.data.listing import class_folders
from naturalist.errors import UserError
from naturalist.evaluation.label_errors import label_errors_of
from naturalist.files import write_atomically
from naturalist.printable import printable
from naturalist.progress import plain_console
from naturalist.settings.audit import AuditOptions
from naturalist.settings.display_names import names_by_folder
from naturalist.settings.groups import DataSettings
from naturalist.settings.run_settings import cache_folder


def audit_data(options: AuditOptions, run: Path | None = None) -> dict[str, Any]:
    """Look for what is wrong with a data set, write it down, and say it.

    Args:
        options: of the verb.
        run: also look for labels that it finds wrong.

    Returns:
        The content of ``audit.json``.

    Raises:
        UserError: for data that cannot be used, a file of names or a run that does not fit it, or an output folder
            within the data.
    """
    folders = find_data(options.data, options.datasets_dir)
    _require_outside(options.out, folders)
    names = names_by_folder(options.display_names, tuple(class_folders(folders.train)))
    errors = None
    if run is not None:  # first, for it may be refused
        errors = label_errors_of(run, options.split, options.data, cache_dir=options.cache_dir, device=options.device)
    settings = DataSettings(data=options.data, image_size=SIDE, datasets_dir=options.datasets_dir)
    parts = open_parts(folders, settings, cache_folder(options.cache_dir, options.runs_dir))
    headers, images = read_headers(parts), Images.of(parts, options)
    findings = Findings(
        options,
        folders,
        images,
        headers,
        images.duplicates(options.distance),
        list(find_oddities(images, headers, options)),
        errors,
        names,
    )
    record = findings.record()
    options.out.mkdir(parents=True, exist_ok=True)
    write_tables(findings, record, options.out)
    draw_sheets(findings, options.out)
    write_atomically(options.out / "audit.json", json.dumps(record, indent=2) + "\n")
    print_findings(record, options.out, findings.called)
    console = plain_console()
    if errors is not None and errors.looks:
        console.print(printable(errors.looks), soft_wrap=True)
    files = sorted(path.name for path in options.out.iterdir())
    console.print(f"In {printable(options.out)}: {', '.join(map(printable, files))}", soft_wrap=True)
    return record


def _require_outside(output: Path, folders: Folders) -> None:
    if output.resolve().is_relative_to(folders.root.resolve()):
        raise UserError(
            f"{str(output)!r} lies in the data folder {str(folders.root)!r}, where it would be taken for a class; name "
            "another folder with -o."
        )

"""What a run is: its data, split, classes and settings, written before the first step and only read afterwards.

``identity.json`` and ``split.csv`` lie in the run folder. Every checkpoint holds their hash, so that a checkpoint is
never taken for one of another split, and an edited file is found out.
"""

import hashlib
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import naturalist
from naturalist.data.dataset import TrainingData
from naturalist.data.recorded_split import FILE_NAME, RecordedSplit
from naturalist.errors import UserError
from naturalist.ranks import this_rank
from naturalist.reading import damaged, read_json
from naturalist.runs.folder import write_json
from naturalist.settings.resume import IDENTITY, IdentityFile, shaping
from naturalist.settings.run_settings import RunSettings


@dataclass(frozen=True)
class Identity:
    """What a run folder says of itself."""

    fingerprint: str
    """Of its training and validation images, see :class:`RecordedSplit`."""
    class_names: tuple[str, ...]
    split: RecordedSplit
    hash: str
    """Of both files, as checkpoints hold it."""
    settings: dict[str, Any]
    """Those that shape its result."""


def identify_run(
    folder: Path, settings: RunSettings, data: TrainingData, description: dict[str, Any]
) -> dict[str, Any]:
    """Write what a run is, unless it is known already.

    Args:
        folder: of the run.
        settings: all of them; those that shape the result are kept.
        data: what it trains on.
        description: of the model, see :func:`naturalist.models.build_model`.

    Returns:
        What every checkpoint of the run says beside weights and progress.
    """
    if this_rank().is_first and not (folder / IDENTITY).is_file() and data.split is not None:
        data.split.write(folder)
        content = {
            "fingerprint": data.split.fingerprint,
            "class_names": list(data.class_names),
            "validation": data.split.validation,
            "images": {part: len(data.split.of(part)) for part in ("train", "val", "unused")},
            "excluded": None if data.exclusion is None else data.exclusion.record(),
            "settings": shaping(settings.recorded()),
            "versions": {
                "naturalist": naturalist.__version__,
                "python": platform.python_version(),
                **{package: version(package) for package in ("torch", "torchvision", "numpy")},
            },
        }
        write_json(folder / IDENTITY, content)
    return {**settings.origin(description), "identity": hash_of(folder)}


def read_identity(folder: Path, checkpoint: dict[str, Any]) -> Identity:
    """What a run is, by its folder and one of its checkpoints.

    Raises:
        UserError: when the files are missing, damaged, or not those that the checkpoint was trained with.
    """
    expected = checkpoint.get("identity")
    if expected is None:
        raise UserError(
            f"the run in {str(folder)!r} was made by an earlier version, which did not write down its split: it can "
            "be evaluated with --split test, and not be resumed."
        )
    identity = read_identity_file(folder)
    if identity.hash != expected:
        raise UserError(
            f"{IDENTITY} and {FILE_NAME} in {str(folder)!r} are not those that the checkpoint was trained with: they "
            "were changed since, or belong to another run."
        )
    return identity


def read_identity_file(folder: Path) -> Identity:
    """What a run folder says of itself; raises :class:`UserError` when the files are missing or damaged."""
    path, remedy = folder / IDENTITY, "without it nobody knows what this run is"
    content = read_json(path, IdentityFile, remedy)
    split = RecordedSplit.read(folder, content.validation)
    for file in split.files:
        if file.class_name not in content.class_names:
            damaged(str(path), f"it has no class {file.class_name!r}, of which {FILE_NAME} has images", remedy)
    return Identity(content.fingerprint, content.class_names, split, hash_of(folder) or "", content.settings)


def hash_of(folder: Path) -> str | None:
    """Of ``identity.json`` and ``split.csv`` together; None where there are none."""
    digest = hashlib.sha256()
    try:
        for name in (IDENTITY, FILE_NAME):
            digest.update((folder / name).read_bytes())
    except OSError:
        return None
    return digest.hexdigest()[:32]

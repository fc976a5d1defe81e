"""The images of a split, as a run saw them."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from naturalist.data.catalog import scan
from naturalist.data.dataset import cache_of, find_data
from naturalist.data.images import ImageCache
from naturalist.data.split import stratified_split
from naturalist.errors import UserError
from naturalist.settings.groups import DataSettings
from naturalist.settings.run_settings import cache_folder


@dataclass(frozen=True)
class SplitImages:
    """The images of one split, in the run's own sizes."""

    cache: ImageCache
    indices: NDArray[np.int64]
    """Which images of the cache, int64 ``[N]``."""
    data: str
    """Name of the data set."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """int64 ``[N]``."""
        labels: NDArray[np.int64] = self.cache.labels[self.indices]
        return labels

    @property
    def files(self) -> tuple[str, ...]:
        """Paths relative to the split's folder, ``[N]``."""
        return tuple(self.cache.paths[i] for i in self.indices)


def images_of_split(
    folder: Path, checkpoint: dict[str, Any], split: str, *, data: str | None = None, cache_dir: str | None = None
) -> SplitImages:
    """The images that a run is to be shown.

    Args:
        folder: run folder.
        checkpoint: of the run; its classes must be those of the data.
        split: ``"test"``, or ``"val"`` for the images held out in training.
        data: data set to use instead of the run's own.
        cache_dir: folder for decoded images, if not the run's own.

    Raises:
        UserError: when the data is not there or does not fit.
    """
    config = _config_of(folder)
    known = {item.name: config[item.name] for item in fields(DataSettings) if item.name in config}
    settings = DataSettings(**{**known, "data": data or checkpoint["data"]})
    class_names = tuple(checkpoint["class_names"])
    folders = find_data(settings.data, settings.datasets_dir)
    if split == "test":
        if folders.test is None:
            raise UserError(
                f"{settings.data!r} has no test/ (or val/) folder; evaluate on the images held out in "
                "training with --split val, or pass --data with a folder that has one."
            )
        source = folders.test
    else:
        source = folders.val or folders.train
    images = scan(source)
    if images.class_names != class_names:
        raise UserError(
            f"the classes of {str(source)!r} ({', '.join(images.class_names)}) are not those that the run "
            f"was trained on ({', '.join(class_names)})."
        )
    cache = cache_of(images, settings, cache_folder(cache_dir or settings.cache_dir, config.get("runs_dir", "runs")))
    if split == "val" and folders.val is None:
        indices = stratified_split(cache.labels, class_names, settings.val_fraction, config.get("seed", 0))[1]
    else:
        indices = np.arange(len(cache))
    return SplitImages(cache, indices, settings.data)


def _config_of(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        raise UserError(f"{str(folder)!r} is no run folder: it has no readable config.yaml.") from None
    return config

"""Run folders with random weights, made without training."""

from pathlib import Path

import torch
import yaml

from naturalist.data.catalog import scan
from naturalist.data.dataset import load_training_data
from naturalist.data.layout import find_folders
from naturalist.data.preprocessing import Preprocessing
from naturalist.models import build_model
from naturalist.models.state_dict import plain_state_dict
from naturalist.runs.checkpoint import save_checkpoint
from naturalist.runs.identity import identify_run
from naturalist.settings.run_settings import RunSettings

SIZE = 32


def make_run(
    folder: Path,
    data: Path,
    *,
    seed: int = 0,
    split_seed: int = 0,
    resize_mode: str = "squash",
    cache_size: int = SIZE,
    settings: dict[str, object] | None = None,
    **model: object,
) -> Path:
    """A run folder that looks as if a five-block CNN had been trained on ``data`` for three epochs."""
    class_names = scan(find_folders(data).train).class_names
    recorded = RunSettings.of(
        data=str(data),
        image_size=SIZE,
        cache_size=cache_size,
        resize_mode=resize_mode,
        seed=seed,
        split_seed=split_seed,
        cache_dir=str(folder.parent.parent / "cache"),
        runs_dir=str(folder.parent),
        **settings or {},
    )
    description = {
        "kind": "five_block_cnn",
        "num_classes": len(class_names),
        "image_size": SIZE,
        "num_filters": 8,
        "filter_organization": "same",
        "dense_units": 16,
        **model,
    }
    torch.manual_seed(seed)
    network = build_model(description)
    with torch.no_grad():
        network.output.weight.mul_(20)  # untrained, all classes would be about equally likely
    folder.mkdir(parents=True)
    preprocessing = Preprocessing(SIZE, cache_size, resize_mode, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    images = load_training_data(recorded.data, recorded.cache_folder)
    origin = identify_run(folder, recorded, images, description)
    save_checkpoint(
        folder / "best.pt",
        state_dict=plain_state_dict(network),
        class_names=class_names,
        preprocessing=preprocessing,
        epoch=3,
        **origin,
    )
    (folder / "config.yaml").write_text(yaml.safe_dump(recorded.recorded()))
    return folder

"""Adapt a torchvision backbone, pre-trained on ImageNet, to photographs of other classes.

python partB/finetune.py --strategy head --backbone resnet50 --data nature_12K
python partB/finetune.py --strategy partial --unfreeze_from layer3 --weights resnet50-11ad3fa6.pth --data FOLDER
python partB/finetune.py --help_stages resnet50
"""

import sys
from collections.abc import Callable
from pathlib import Path

from naturalist.settings.config import FinetuneSettings, entry_point, parse_settings


def main() -> None:
    """Parse the command line and train, or list the stages of a backbone."""
    name, _, value = (sys.argv[1] if len(sys.argv) > 1 else "").partition("=")
    if name.replace("-", "_") == "__help_stages":
        print_stages(value or (sys.argv[2] if len(sys.argv) > 2 else FinetuneSettings.backbone))
        return
    train(parse_settings(FinetuneSettings, "Adapt a pre-trained backbone; --help_stages BACKBONE lists its stages."))


def train(settings: FinetuneSettings, should_stop: Callable[[dict], bool] | None = None) -> dict:
    """Settings → data → model → weights → strategy → features of what is frozen → fit → a look at the validation set.

    Args:
        settings: everything that can be set.
        should_stop: asked after every epoch with its metrics; a sweep ends hopeless runs by it.

    Returns:
        The run's summary, see :func:`naturalist.training.engine.fit`, with ``folder``.
    """
    # Imported after parsing, so that --help does not wait for torch.
    import torch

    from naturalist.data.dataset import load_training_data
    from naturalist.data.features import cache_features
    from naturalist.device import choose_device
    from naturalist.evaluation.closing import finish_run, record_run
    from naturalist.models import build_model
    from naturalist.models.strategies import Strategy
    from naturalist.models.weights import load_weights, settings_from_weights
    from naturalist.runs.checkpoint import LAST, load_checkpoint
    from naturalist.seeding import derive_seed
    from naturalist.training.engine import fit

    device = choose_device(settings.device)
    settings = settings_from_weights(settings)
    data = load_training_data(settings)
    description = {
        "kind": "torchvision",
        "backbone": settings.backbone,
        "num_classes": len(data.class_names),
        "image_size": settings.image_size,
        "dropout": settings.dropout,
    }
    torch.manual_seed(derive_seed(settings.seed, "weights"))
    model = build_model(description)
    if settings.resume:
        model.load_state_dict(load_checkpoint(Path(settings.resume), LAST)["state_dict"])
        weights = f"the weights of {settings.resume}"
    else:
        weights = load_weights(model, settings)
    strategy = Strategy(model, settings)
    print(f"Data: {data.description}")
    print(
        f"Model: {settings.backbone} with {weights}, strategy {settings.strategy}: "
        f"{strategy.trainable_parameters:,} parameters learn, {strategy.frozen_parameters:,} are frozen"
    )
    print(strategy)

    with record_run(settings, job_type="partB") as tracker:
        (tracker.folder / "model.txt").write_text(f"{strategy}\n", encoding="utf-8")
        feature_seconds = 0.0
        if strategy.frozen_parameters and settings.uses_features:
            features = cache_features(model, strategy.first_trained_stage, data, settings, device)
            if features is not None:
                model.start_at(strategy.first_trained_stage)
                data, feature_seconds = features, features.seconds
        tracker.set_summary(
            {
                "parameters": strategy.trainable_parameters + strategy.frozen_parameters,
                "trainable_parameters": strategy.trainable_parameters,
                "frozen_parameters": strategy.frozen_parameters,
                "stages": strategy.record(),
                "feature_seconds": feature_seconds,
            }
        )
        result = fit(model, description, data, settings, tracker, device, should_stop, strategy.release)
        finish_run(tracker, result, settings)
    return {**result, "folder": str(tracker.folder)}


def print_stages(backbone: str) -> None:
    """Print the names that ``--unfreeze_from`` takes for a backbone, from the image to the head."""
    from naturalist.models.backbones import StagedNetwork
    from naturalist.models.strategies import describe_stages
    from naturalist.models.weights import settings_from_weights

    settings = settings_from_weights(FinetuneSettings(backbone=backbone))
    print(describe_stages(StagedNetwork(backbone, 10, settings.image_size)))


if __name__ == "__main__":
    with entry_point():
        main()

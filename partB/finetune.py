"""Adapt a torchvision backbone, pre-trained on ImageNet, to photographs of other classes.

python partB/finetune.py --strategy head --backbone resnet50 --data nature_12K
python partB/finetune.py --strategy partial --unfreeze_from layer3 --weights resnet50-11ad3fa6.pth --data FOLDER
python partB/finetune.py --help_backbones
python partB/finetune.py --help_stages resnet50
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from naturalist.entry import entry_point
from naturalist.settings.command_line import parse_settings
from naturalist.settings.part_b import FinetuneSettings
from naturalist.settings.tokens import Information

if TYPE_CHECKING:
    from naturalist.data.dataset import Scan
    from naturalist.training.fit import ShouldStop

RECIPES = Path(__file__).resolve().parent.parent / "configs" / "partB"
MODELS = "naturalist.models.lists"
EXAMPLE = "python partB/finetune.py --strategy partial --backbone mobilenet_v2 --data nature_12K"


def main() -> None:
    """Parse the command line and train, or list backbones, or the stages of one."""
    information = {
        "help_backbones": Information("List the backbones, their sizes and their weights.", f"{MODELS}:list_backbones"),
        "help_stages": Information("List the stages of one, for --unfreeze_from.", f"{MODELS}:list_stages", "BACKBONE"),
    }
    texts: dict[str, Any] = {"example": EXAMPLE, "recipes": RECIPES, "information": information}
    train(parse_settings(FinetuneSettings, "Adapt a pre-trained backbone to other classes.", **texts))


def train(
    settings: FinetuneSettings, should_stop: "ShouldStop | None" = None, scan: "Scan | None" = None
) -> dict[str, Any]:
    """Settings → data → model → weights → strategy → features of what is frozen → fit → a look at the validation set.

    Args:
        settings: everything that can be set.
        should_stop: asked after every epoch with its metrics; a sweep ends hopeless runs by it.
        scan: lists a folder; a sweep remembers what it found.

    Returns:
        The run's summary, see :func:`naturalist.training.fit.fit`, with ``folder``.
    """
    print(f"{settings.model.backbone}, {settings.strategy.strategy}, on {settings.data.data}", flush=True)
    # Imported now, so that --help does not wait for torch, and nobody waits for the line above.
    import torch

    from naturalist.evaluation.closing import finish_run
    from naturalist.models.backbones import StagedNetwork
    from naturalist.models.strategies import Strategy
    from naturalist.models.weights import load_weights, settings_from_weights
    from naturalist.runs.checkpoint import fill_model, goes_on, load_for_resume
    from naturalist.runs.identity import identify_run
    from naturalist.runs.recording import record_run
    from naturalist.seeding import derive_seed
    from naturalist.training.find_rate import find_learning_rate
    from naturalist.training.fit import fit
    from naturalist.training.kept import with_features
    from naturalist.training.start import start_training

    settings = settings_from_weights(settings)
    start, record, backbone = start_training(settings, scan), settings.record, settings.model.backbone
    arguments: dict[str, Any] = {
        "backbone": backbone,
        "num_classes": start.plan.num_classes,
        "image_size": settings.data.image_size,
        "dropout": settings.model.dropout,
    }
    torch.manual_seed(derive_seed(settings.training.seed, "weights"))
    model, side = StagedNetwork(**arguments), settings.data.smaller_side
    model.require_side(side)
    content: dict[str, Any] = {"epoch": 0}
    if record.resume and goes_on(record.resume):
        content = load_for_resume(Path(record.resume))
        fill_model(model, content["state_dict"])
        weights, planned_epochs = f"the weights of {record.resume}", content["training"]["planned_epochs"]
    else:
        weights, planned_epochs = load_weights(model, settings.model), None
    strategy = Strategy(model, settings.strategy, settings.training, planned_epochs, side)
    print(f"Data: {start.plan.description}")
    print(f"Model: {backbone} with {weights}, strategy {settings.strategy.strategy}: {strategy.describe()}")
    strategy.show()
    if start.data is None:
        print(start.steps)
        return {"status": "dry run"}
    if record.find_lr:
        data, *_ = with_features(model, strategy, settings, start, 0)
        return find_learning_rate(model, data, settings, start.compute, strategy.release(0))

    with record_run(settings, job_type="partB", may_begin=True) as tracker:
        tracker.write("model.txt", f"{strategy}\n")
        origin = identify_run(tracker.folder, settings, start.data, {"kind": "torchvision", **arguments})
        data, seconds, seconds_now = with_features(model, strategy, settings, start, content["epoch"])
        cost = {"feature_seconds": content.get("feature_seconds", 0.0) if seconds is None else seconds}
        tracker.set_summary({**strategy.summary(), **cost})
        result = fit(
            model,
            data,
            settings.training,
            settings.augmentation,
            start.compute,
            tracker,
            {**origin, **cost},
            resume=goes_on(record.resume),
            checkpoint_seconds=record.checkpoint_seconds,
            should_stop=should_stop,
            release=strategy.course,
        )
        return finish_run(tracker, result, settings, model, seconds_now)


if __name__ == "__main__":
    with entry_point(trains=True):
        main()

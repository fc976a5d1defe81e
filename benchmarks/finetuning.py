"""Row of the suite on fine-tuning: a head, and the upper stages, on kept features against passing through all of it."""

from collections.abc import Iterator

import torch

from benchmarks.measuring import Row, Settings, in_turns, time_row
from benchmarks.usual import BATCH_SIZE, UsualLoop, make_photographs
from naturalist.data.dataset import Loading, load_training_data
from naturalist.data.features import Views, cache_features
from naturalist.device import Compute
from naturalist.models.backbones import StagedNetwork
from naturalist.models.prefix import FrozenPrefix
from naturalist.models.strategies import Strategy
from naturalist.settings.groups import AugmentationSettings, DataSettings, TrainingSettings
from naturalist.settings.part_b import StrategySettings
from naturalist.training.epoch import Learner, train_one_epoch
from naturalist.training.optim import Schedule, make_optimizer

EPOCHS = 5
BACKBONE, SIZE = "mobilenet_v2", 160


def finetuning(settings: Settings) -> Iterator[Row]:
    """Epochs of fine-tuning, with everything that comes before the first: decoding and features, anew in each turn."""
    images = max(2 * BATCH_SIZE, settings.images // 2)
    train = make_photographs(settings.folder / "photographs" / "train", images)
    for kind, strategy in (("head", StrategySettings("head")), ("partial", StrategySettings("partial"))):
        turn = 0

        def ours(strategy: StrategySettings = strategy) -> None:
            nonlocal turn
            turn += 1
            _fine_tune(settings, strategy, f"{strategy.strategy}{turn}", images)

        usual_model = _network(len(list(train.iterdir())))
        Strategy(usual_model, strategy, TrainingSettings(epochs=EPOCHS)).release(0)
        usual = UsualLoop(train, SIZE, usual_model, settings.device)

        def other(usual: UsualLoop = usual) -> None:
            for _ in range(EPOCHS):
                usual.train()

        times = in_turns(ours, other, settings.repeats, settings.device)
        note = f"{EPOCHS} epochs of {images} images, {BACKBONE}, {SIZE} px"
        yield time_row(f"fine-tuning: {kind}", times, note)


def _network(classes: int) -> StagedNetwork:
    return StagedNetwork(backbone=BACKBONE, num_classes=classes, image_size=SIZE, dropout=0.0)


def _fine_tune(settings: Settings, strategy: StrategySettings, name: str, images: int) -> None:
    """What ``partB/finetune.py`` does between its command line and its record."""
    cache, compute = settings.folder / f"cache-{name}", Compute(settings.device)
    wanted = DataSettings(
        data=str(settings.folder / "photographs"),
        image_size=SIZE,
        resize_mode="squash",
        normalization="imagenet",
        val_fraction=10 / images,  # one of each class
    )
    data = load_training_data(wanted, cache)
    training = TrainingSettings(batch_size=BATCH_SIZE, epochs=EPOCHS)
    torch.manual_seed(0)
    model = compute.place(_network(len(data.class_names)))
    plan = Strategy(model, strategy, training)
    prefix = FrozenPrefix(model, plan.first_trained_stage)
    features = cache_features(prefix, data, Views(1, AugmentationSettings(), 0), compute, cache)
    assert features is not None
    model.start_at(plan.first_trained_stage)
    optimizer = make_optimizer(plan.release(0), training, settings.device)
    loader, _ = features.loaders(Loading(BATCH_SIZE, 0, compute))
    augment, _ = features.transforms(AugmentationSettings(), 0)
    learner = Learner(model, optimizer, Schedule(optimizer, training, len(loader), EPOCHS), training, compute)
    for epoch in range(EPOCHS):
        train_one_epoch(learner, loader, augment, epoch=epoch)

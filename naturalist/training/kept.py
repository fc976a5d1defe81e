"""What a training computes once: the features of what is frozen."""

from naturalist.data.dataset import TrainingData
from naturalist.data.features import Views, cache_features
from naturalist.models.backbones import StagedNetwork
from naturalist.models.prefix import FrozenPrefix
from naturalist.models.strategies import Strategy
from naturalist.settings.part_b import FinetuneSettings
from naturalist.training.start import Start


def with_features(
    model: StagedNetwork, strategy: Strategy, settings: FinetuneSettings, start: Start
) -> tuple[TrainingData, float]:
    """The data to train on: features instead of images where those can be kept, and the model takes them.

    Returns:
        The data, and the seconds that computing features took, now or when they were first needed.
    """
    assert start.data is not None, "this is no dry run"
    if strategy.frozen_parameters and settings.uses_features:
        prefix = FrozenPrefix(start.compute.place(model), strategy.first_trained_stage)
        views = Views(settings.strategy.views, settings.augmentation, settings.training.seed)
        if features := cache_features(prefix, start.data, views, start.compute, settings.cache_folder):
            model.start_at(strategy.first_trained_stage)
            return features, features.seconds
    return start.data, 0.0

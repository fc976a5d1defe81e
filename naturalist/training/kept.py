"""What a training computes once: the features of what is frozen, for as long as it is."""

from dataclasses import replace

from naturalist.data.dataset import TrainingData
from naturalist.data.features import Views, cache_features
from naturalist.data.growth import Growth
from naturalist.data.phases import PhasedData
from naturalist.models.backbones import StagedNetwork
from naturalist.models.prefix import FrozenPrefix
from naturalist.models.strategies import Strategy
from naturalist.settings.part_b import FinetuneSettings
from naturalist.training.start import Start


def with_features(
    model: StagedNetwork, strategy: Strategy, settings: FinetuneSettings, start: Start, finished_epochs: int
) -> tuple[TrainingData, float | None, float | None]:
    """The data to train on: features instead of images where those can be kept, and in a probe; images of their side.

    The model is placed on its device, and takes features as well.

    Args:
        model: with its weights.
        strategy: what it freezes, and until when.
        settings: of the run.
        start: device and images.
        finished_epochs: of a run that goes on: after its probe nothing is frozen.

    Returns:
        The data; the seconds that computing features took, now or when they were first needed, None when that was
        before the run went on; what of it was now, None without features.
    """
    assert start.data is not None, "this is no dry run"
    probe, side = strategy.probe_epochs, settings.data.smaller_side
    data = start.data if side is None else replace(start.data, growth=Growth(side, side, 0))
    if not settings.uses_features or not strategy.keeps_features:
        return data, 0.0, None
    if 0 < probe <= finished_epochs:
        return data, None, None
    views = Views(settings.strategy.views, settings.augmentation, settings.training.seed, side)
    if probe:  # no epoch shows more than one
        views = replace(views, count=min(views.count, probe))
    prefix = FrozenPrefix(start.compute.place(model), strategy.first_trained_stage)
    features = cache_features(prefix, data, views, start.compute, settings.cache_folder)
    if features is None:
        return data, 0.0, None
    model.start_at(strategy.first_trained_stage)
    phased = PhasedData(**vars(data), features=features, first_epochs=probe) if probe else features
    return phased, features.seconds, features.seconds_now

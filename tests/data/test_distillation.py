"""A student sees what its teacher saw, pixel for pixel, and its loss is the one that the papers say."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from naturalist.data.dataset import Loading, load_training_data
from naturalist.data.distillation import Distillation, DistilledData
from naturalist.data.features import Views, cache_features
from naturalist.data.share import Share
from naturalist.device import Compute
from naturalist.ranks import Rank
from naturalist.settings.groups import AugmentationSettings, DataSettings
from naturalist.settings.part_a import TeacherSettings

CPU = torch.device("cpu")
SETTINGS = TeacherSettings(teacher="somebody", teacher_weight=0.75, teacher_temperature=3.0)


class Seen:
    """A teacher that answers with the pixels that it was shown."""

    name, stage, fingerprint = "seen", "output", "0"

    def __call__(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1)


@pytest.fixture
def distill(photographs: Path, tmp_path: Path):
    def distill(augmentation: AugmentationSettings) -> DistilledData:
        data = load_training_data(DataSettings(data=str(photographs), image_size=16, cache_size=20), tmp_path / "cache")
        outputs = cache_features(Seen(), data, Views(3, augmentation, 7), Compute(CPU, "fp32"), tmp_path / "kept")
        return DistilledData(**vars(data), logits=outputs.train_features, teacher=SETTINGS)

    return distill


@pytest.mark.parametrize("augmentation", [AugmentationSettings(), AugmentationSettings(data_augmentation=False)])
@pytest.mark.parametrize("rank", [None, 1])
def test_in_every_epoch_every_image_is_shown_as_the_teacher_saw_it(distill, augmentation, rank):
    data, share = distill(augmentation), None if rank is None else Share(Rank(rank, 2, rank))
    views = 3 if augmentation.data_augmentation else 1
    assert len(data.logits) == views
    augment, prepare = data.transforms(augmentation, 7)
    assert isinstance(augment, Distillation) and prepare == data.preprocessing
    loader, validation = data.loaders(Loading(10, 7, Compute(CPU, "fp32"), share))
    for epoch in (0, 2, 4):
        shown = []
        for step, (images, places) in enumerate(loader.epoch(epoch)):
            inputs, targets = augment(images, places, epoch, step)
            assert torch.allclose(inputs.flatten(1), data.logits[epoch % views, places], atol=1e-5)
            shown += targets.tolist()
        assert shown != sorted(shown) and (rank is not None or sorted(shown) == list(range(len(data.train_indices))))
    labels = torch.from_numpy(data.train_cache.labels[data.train_indices])
    balanced, _ = data.loaders(Loading(10, 7, Compute(CPU, "fp32"), sampling="balanced"))
    counts = torch.bincount(labels[torch.cat([places for _, places in balanced.epoch(1)])])
    assert counts.max() - counts.min() <= 1
    assert torch.equal(augment.labels_of(torch.tensor([3, 1])), labels[[3, 1]])
    assert torch.cat([batch for _, batch in validation.epoch()]).max() < 4


def test_the_loss_is_hintons(distill):
    data = distill(AugmentationSettings())
    augment, _ = data.transforms(AugmentationSettings(), 7)
    places, ours = torch.tensor([4, 0]), torch.randn(2, data.logits.shape[2])
    theirs = (data.logits[1, places] / 3).softmax(dim=1)
    entropies = [-(theirs * values).sum(dim=1) for values in ((ours / 3).log_softmax(dim=1), theirs.log())]
    expected = 0.25 * 2.0 + 0.75 * 9 * (entropies[0] - entropies[1]).mean()
    assert augment.blend(torch.tensor(2.0), ours, places, 4, 2) == pytest.approx(float(expected), rel=1e-4)
    parts = [augment.blend(torch.tensor(1.0), ours[[i]], places[[i]], 4, 2) for i in range(2)]
    assert float(sum(parts)) == pytest.approx(float(expected), rel=1e-4)

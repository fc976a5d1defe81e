"""Training data for a head that is probed on kept features before the whole network learns from images."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from naturalist.data.augment import Augmentation
from naturalist.data.dataset import Batches, Loading, TrainingData, Transform, Varied
from naturalist.data.features import FeatureData
from naturalist.data.growth import Growing
from naturalist.data.share import Part
from naturalist.settings.groups import AugmentationSettings


@dataclass(frozen=True)
class PhasedData(TrainingData):
    """Training data whose first epochs are of features, and all later ones of images.

    The network tells them apart by their shape, see :class:`naturalist.models.backbones.StagedNetwork`.
    """

    features: FeatureData
    first_epochs: int

    def loaders(self, how: Loading) -> tuple[Batches, Batches]:
        """Training batches in an order that the seed decides, and validation batches; of both a rank's share."""
        train, val = zip(self.features.loaders(how), super().loaders(how), strict=True)
        leading = _PhasedLoader(*train, self.first_epochs)
        return leading, _FollowingLoader(*val, leading)

    def transforms(self, augmentation: AugmentationSettings, seed: int) -> tuple[Varied | Transform, Transform]:
        """What images go through in training, and in validation; nothing is left to do to features."""
        vary: Augmentation | Transform = self._prepare
        if augmentation.data_augmentation:
            vary = _OfImages(augmentation, seed, self.preprocessing, len(self.class_names))
        return vary if self.growth is None else Growing(vary, self.growth), self._prepare

    def _prepare(self, inputs: Tensor) -> Tensor:
        return inputs if inputs.is_floating_point() else self.preprocessing(inputs)


class _PhasedLoader:
    """Batches of features in the first epochs, then of images; the same images in the same order."""

    def __init__(self, features: Batches, images: Batches, first_epochs: int) -> None:
        self.phases, self.first_epochs, self.phase = (features, images), first_epochs, 0
        self.device, self.share = images.device, images.share

    def __len__(self) -> int:
        return len(self.phases[1])

    @property
    def num_images(self) -> int:
        return self.phases[1].num_images

    @property
    def batches(self) -> list[int]:
        return self.phases[1].batches

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        self.phase = int(epoch >= self.first_epochs)
        return self.phases[self.phase].epoch(epoch, start)


class _FollowingLoader(_PhasedLoader):
    """Validation batches of the phase that training is in."""

    def __init__(self, features: Batches, images: Batches, leading: _PhasedLoader) -> None:
        super().__init__(features, images, leading.first_epochs)
        self.leading = leading

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        return self.phases[self.leading.phase].epoch(epoch, start)


class _OfImages(Augmentation):
    """Augments images; features pass as they are."""

    def __call__(
        self, images: Tensor, labels: Tensor, epoch: int, step: int, part: Part | None = None
    ) -> tuple[Tensor, Tensor]:
        if images.is_floating_point():
            return images, labels
        return super().__call__(images, labels, epoch, step, part)

"""Training data for a student that learns from a teacher: both see the same fixed views of every image.

The teacher's outputs for every view are computed once and kept, see :mod:`naturalist.data.features`. In epoch e the
student sees view e modulo their number, pixel for pixel the one that the teacher saw, in its own size (Beyer et al.
2022, "Knowledge distillation: a good teacher is patient and consistent").
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from naturalist.data.augment import Augmentation, Draws
from naturalist.data.dataset import Batches, Loading, TrainingData, Transform, Varied
from naturalist.data.features import PREFIX_BATCH
from naturalist.data.growth import Growing
from naturalist.data.loader import BatchLoader, batch_bounds
from naturalist.data.share import Part
from naturalist.seeding import generator
from naturalist.settings.groups import AugmentationSettings
from naturalist.settings.part_a import TeacherSettings


@dataclass(frozen=True)
class DistilledData(TrainingData):
    """Training data with what a teacher makes of every view of every training image."""

    logits: Tensor
    """The teacher's, ``[views, N, classes]``, in the order of ``train_indices``."""
    teacher: TeacherSettings

    def loaders(self, how: Loading) -> tuple[Batches, Batches]:
        """Training batches whose labels are places in ``train_indices``, and validation batches as ever."""
        train, val = super().loaders(how)
        assert isinstance(train, BatchLoader), "what images come from"
        train.give_places()
        return train, val

    def transforms(self, augmentation: AugmentationSettings, seed: int) -> tuple[Varied | Transform, Transform]:
        """What a loader's batches go through in training, and in validation."""
        vary = Distillation(self, augmentation, seed)
        return vary if self.growth is None else Growing(vary, self.growth), self.preprocessing


class Distillation(Augmentation):
    """Shows the views that the teacher saw, and brings its outputs into the loss.

    Args:
        data: with the teacher's outputs.
        settings: how views are varied.
        seed: of all chance.
    """

    def __init__(self, data: DistilledData, settings: AugmentationSettings, seed: int) -> None:
        super().__init__(settings, seed, data.preprocessing, len(data.class_names))
        self._logits, self._teacher = data.logits, data.teacher
        self._labels = torch.from_numpy(data.train_cache.labels[data.train_indices])
        self._view, self._numbers = -1, torch.empty(0)

    def __call__(
        self, images: Tensor, labels: Tensor, epoch: int, step: int, part: Part | None = None
    ) -> tuple[Tensor, Tensor]:
        """A batch's view of the epoch, and the places of its images, which are the ``labels`` of its loader."""
        del step, part  # chance belongs to the image and the view
        if not self.settings.data_augmentation:
            return self.preprocessing(images), labels
        self._prepare(epoch % len(self._logits), images.device)
        return self.vary(images, Draws(self._numbers[:, labels])), labels

    def labels_of(self, places: Tensor) -> Tensor:
        """The true classes of images, int64 ``[B]``."""
        self._labels = self._labels.to(places.device)
        return self._labels[places]

    def blend(self, loss: Tensor, logits: Tensor, places: Tensor, epoch: int, batch: int) -> Tensor:
        """The student's loss, to which the teacher's outputs contribute the share ``teacher_weight``.

        That is the cross-entropy's distance from the teacher's own entropy, both softened by the temperature T, times
        T² so that its gradient stays as large (Hinton et al. 2015, "Distilling the knowledge in a neural network").

        Args:
            loss: with the true classes.
            logits: the student's, ``[B, classes]``.
            places: of the images.
            epoch: whose view was shown.
            batch: images of the whole batch, of which these may be a part.
        """
        self._logits = self._logits.to(places.device)
        temperature, weight = self._teacher.teacher_temperature, self._teacher.teacher_weight
        theirs = self._logits[epoch % len(self._logits), places].float()
        ours, theirs = (values.div(temperature).log_softmax(dim=1) for values in (logits, theirs))
        divergence = kl_div(ours, theirs, reduction="sum", log_target=True) / batch
        return (1 - weight) * loss + weight * temperature**2 * divergence

    def _prepare(self, view: int, device: torch.device) -> None:
        """The numbers of chance of all images in one view, as the teacher's batches drew them."""
        if view != self._view:
            bounds = batch_bounds(len(self._labels), PREFIX_BATCH)
            numbers = [
                Draws.numbers(stop - start, generator(self.seed, "augment", view, step))
                for step, (start, stop) in enumerate(bounds)
            ]
            self._view, self._numbers = view, torch.cat(numbers, dim=1).to(device)


def distillation_of(augment: object) -> Distillation | None:
    """What brings a teacher into the loss, where a batch goes through that; None where there is no teacher."""
    vary = augment.vary if isinstance(augment, Growing) else augment
    return vary if isinstance(vary, Distillation) else None

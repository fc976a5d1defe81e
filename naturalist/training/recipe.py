"""How Part A's network begins, and what it learns by: settings become weights, parameter groups, sides of images."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from naturalist.data.dataset import STATISTICS_IMAGES, TrainingData
from naturalist.data.growth import Growth
from naturalist.data.loader import BatchLoader
from naturalist.models.cnn import NUM_BLOCKS, FiveBlockCNN, feature_map_sizes
from naturalist.models.initialization import begin_with_identity, begin_with_patches
from naturalist.models.parameter_groups import Release, parameter_groups
from naturalist.settings.groups import TrainingSettings
from naturalist.settings.part_a import CnnSettings, RecipeSettings


def plan_growth(settings: CnnSettings) -> Growth | None:
    """Sides of the training images; None where they are ``image_size`` all along.

    Raises :class:`UserError` when the smallest leave a block without pixels.
    """
    recipe, model, size = settings.recipe, settings.model, settings.data.image_size
    last = recipe.train_image_size or size
    growth = Growth(recipe.first_image_size or last, last, recipe.growing_share * settings.training.epochs)
    if growth.first == size:
        return None
    kernels = model.kernel_size if isinstance(model.kernel_size, list) else [model.kernel_size] * NUM_BLOCKS
    name = "first_image_size" if recipe.first_image_size else "train_image_size"
    feature_map_sizes(growth.first, kernels, model.padding, name)
    return growth


def set_up(model: nn.Module, recipe: RecipeSettings, data: TrainingData | None, seed: int) -> None:
    """Give a network its first weights, and its batch normalisation its momentum.

    Args:
        model: with random weights, on the CPU.
        recipe: which first weights.
        data: whose training images, about :data:`STATISTICS_IMAGES` of them, the first filters may be taken from; None
            for a network that goes on from a checkpoint's weights.
        seed: of that.
    """
    assert isinstance(model, FiveBlockCNN)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = recipe.batch_norm_momentum
    if data is None or recipe.initialization == "noise":
        return
    begin_with_identity(model)
    if recipe.initialization == "patches":
        begin_with_patches(model, _some_images(data), seed)


def release_groups(model: nn.Module, training: TrainingSettings, recipe: RecipeSettings) -> Release | None:
    """What learns from the first epoch on, where biases have a rate of their own; None where all is alike."""
    if recipe.bias_lr_scale == 1:
        return None
    rate = recipe.bias_lr_scale * training.learning_rate

    return Release(lambda epoch: [] if epoch else parameter_groups(model, training.decay, rate))


def _some_images(data: TrainingData) -> Iterator[Tensor]:
    """Normalised training images, in batches."""
    stride = max(1, len(data.train_indices) // STATISTICS_IMAGES)
    for images, _ in BatchLoader(data.train_cache, data.train_indices[::stride], 64, torch.device("cpu")).epoch():
        yield data.preprocessing(images)

"""Part A's network: five blocks of convolution, activation and max-pooling, a dense layer, the output layer."""

import torch
from torch import Tensor, nn

from naturalist.errors import UserError
from naturalist.memory import require_memory

NUM_BLOCKS = 5
ACTIVATIONS = {"ReLU": nn.ReLU, "GELU": nn.GELU, "SiLU": nn.SiLU, "Mish": nn.Mish}


class FiveBlockCNN(nn.Module):
    """Five-block CNN.

    Each block is convolution, batch normalisation (if wanted), activation, 2×2 max-pooling. Then come flattening or
    global average pooling, dropout, a dense layer with the activation, and the output layer, which gives logits
    (softmax belongs to the loss).

    Args:
        num_classes: number of outputs.
        image_size: side of the square input, in pixels; decides the dense layer's size when flattening.
        num_filters: filters of the first block, or a list of five.
        filter_organization: ``"same"``, ``"doubling"`` or ``"halving"`` from block to block.
        kernel_size: side of the kernels, or a list of five.
        padding: ``"valid"`` (none) or ``"same"``.
        activation: a key of :data:`ACTIVATIONS`.
        batch_norm: normalise between convolution and activation.
        pooling: ``"flatten"`` or ``"average"``.
        dropout: probability of dropping an input of the dense layer, in [0, 1).
        dense_units: neurons of the dense layer.

    Raises:
        UserError: when a block is left without pixels or filters, naming the block.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: int,
        *,
        num_filters: int | list[int] = 32,
        filter_organization: str = "doubling",
        kernel_size: int | list[int] = 3,
        padding: str = "same",
        activation: str = "SiLU",
        batch_norm: bool = True,
        pooling: str = "flatten",
        dropout: float = 0.0,
        dense_units: int = 128,
    ):
        super().__init__()
        filters = filters_per_block(num_filters, filter_organization)
        kernels = kernel_size if isinstance(kernel_size, list) else [kernel_size] * NUM_BLOCKS
        sizes = feature_map_sizes(image_size, kernels, padding)
        features = filters[-1] * (1 if pooling == "average" else sizes[-1] ** 2)
        weights = sum(k**2 * i * o for k, i, o in zip(kernels, [3, *filters], filters, strict=False))
        if torch.get_default_device().type != "meta":  # which takes no memory
            require_memory(4 * (weights + features * dense_units + dense_units * num_classes), "the network's weights")
        make_activation = ACTIVATIONS[activation]
        self.blocks = nn.Sequential()
        for number, (inputs, outputs, kernel) in enumerate(zip([3, *filters[:-1]], filters, kernels, strict=True), 1):
            block = nn.Sequential()
            # Batch normalisation has a bias of its own and would cancel the convolution's.
            block.add_module("convolution", nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=not batch_norm))
            if batch_norm:
                block.add_module("batch_norm", nn.BatchNorm2d(outputs))
            block.add_module("activation", make_activation())
            block.add_module("max_pool", nn.MaxPool2d(2))
            self.blocks.add_module(f"block{number}", block)
        self.pool = nn.AdaptiveAvgPool2d(1) if pooling == "average" else nn.Identity()
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(features, dense_units)
        self.dense_activation = make_activation()
        self.output = nn.Linear(dense_units, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images ``[B, 3, image_size, image_size]`` → logits ``[B, num_classes]``."""
        features = self.flatten(self.pool(self.blocks(images)))
        logits: Tensor = self.output(self.dense_activation(self.dense(self.dropout(features))))
        return logits


def filters_per_block(num_filters: int | list[int], organization: str) -> list[int]:
    """Filters of the five blocks; raises :class:`UserError` when halving leaves a block without any."""
    if isinstance(num_filters, list):
        return list(num_filters)
    filters = {
        "same": [num_filters] * NUM_BLOCKS,
        "doubling": [num_filters * 2**block for block in range(NUM_BLOCKS)],
        "halving": [num_filters // 2**block for block in range(NUM_BLOCKS)],
    }[organization]
    if min(filters) < 1:
        block = filters.index(0) + 1
        raise UserError(
            f"block {block} is left without filters: {num_filters} cannot be halved {block - 1} times; "
            f"num_filters must be at least {2 ** (NUM_BLOCKS - 1)} with filter_organization=halving."
        )
    return filters


def feature_map_sizes(image_size: int, kernels: list[int], padding: str, name: str = "image_size") -> list[int]:
    """Side of the feature maps after each block's max-pooling.

    Raises :class:`UserError` when a block is left without pixels, or when an even kernel is to keep the size; ``name``
    is the setting that the size comes from.
    """
    sizes = []
    size = image_size
    for block, kernel in enumerate(kernels, start=1):
        if padding == "same" and kernel % 2 == 0:
            raise UserError(f"block {block}: padding=same needs an odd kernel_size, but it is {kernel}.")
        if padding == "same" and kernel > image_size:
            raise UserError(
                f"block {block}: a {kernel}×{kernel} kernel is larger than the {image_size}×{image_size} image."
            )
        after_convolution = size if padding == "same" else size - kernel + 1
        if after_convolution < 2:
            raise UserError(
                f"{name} is too small: block {block} is left without pixels, for its input is {size}×{size} and has a "
                f"{kernel}×{kernel} convolution with padding={padding} and 2×2 max-pooling; raise {name}"
                f"{'' if padding == 'same' else ', lower kernel_size, or use padding=same'}."
            )
        size = after_convolution // 2
        sizes.append(size)
    return sizes


def closed_form_totals(
    num_filters: int,
    kernel_size: int,
    dense_units: int,
    *,
    num_classes: int = 10,
    image_size: int = 224,
    padding: str = "valid",
) -> tuple[int, int]:
    """Parameters and multiply–accumulates for m filters of size k×k in every block and n dense units.

    With biases and without batch normalisation, for m = ``num_filters``, k = ``kernel_size``, n = ``dense_units``,
    C = ``num_classes``, s_i the side of the convolution's output in block i and p the side after the last pooling:

    - parameters: ``(3k² + 1)m + 4(k²m + 1)m + (p²m + 1)n + (n + 1)C``
    - multiply–accumulates: ``3k²m·s₁² + k²m²(s₂² + s₃² + s₄² + s₅²) + p²mn + nC``

    Returns:
        The two totals for the organisation "same" and flattening.
    """
    m, k, n, c = num_filters, kernel_size, dense_units, num_classes
    pooled = feature_map_sizes(image_size, [k] * NUM_BLOCKS, padding)
    shrink = 0 if padding == "same" else k - 1
    s = [size - shrink for size in [image_size, *pooled[:-1]]]
    p = pooled[-1]
    parameters = (3 * k**2 + 1) * m + 4 * (k**2 * m + 1) * m + (p**2 * m + 1) * n + (n + 1) * c
    multiply_accumulates = (
        3 * k**2 * m * s[0] ** 2 + k**2 * m**2 * sum(side**2 for side in s[1:]) + p**2 * m * n + n * c
    )
    return parameters, multiply_accumulates

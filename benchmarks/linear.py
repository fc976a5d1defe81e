"""The baseline that a network has to beat: a linear classifier on the pixels.

    python -m benchmarks.linear FOLDER [--size 32] [--seeds 3]

``FOLDER`` holds ``train/<Class>/…`` and ``test/<Class>/…`` (or ``val/``, as nature_12K names its test set).
Images are squashed to a small square, each pixel value is standardised, and multinomial logistic regression
is fitted to a stratified 80 % of the training images. The other 20 % choose the regularisation strength, and
the test images tell the accuracy. A run's seed decides its split.
"""

import argparse
import platform
import time
from pathlib import Path

import numpy as np
import PIL
import sklearn
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from naturalist.data.catalog import scan
from naturalist.data.decode import UnreadableImage, decode_file
from naturalist.data.layout import find_folders
from naturalist.entry import entry_point
from naturalist.errors import UserError
from naturalist.progress import progress_bar

STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
"""Inverse regularisation strengths (scikit-learn's ``C``) to choose from."""

VAL_FRACTION = 0.2


def main(arguments: list[str] | None = None) -> None:
    """Print the test accuracy of the linear model, with what it takes to get the same number again."""
    parser = argparse.ArgumentParser(description="Test accuracy of a linear classifier on pixels.")
    parser.add_argument("folder", type=Path, help="holds train/ and test/ (or val/), a folder for each class")
    parser.add_argument("--size", type=int, default=32, help="side of the squashed images, in pixels")
    parser.add_argument("--seeds", type=int, default=3, help="number of runs, each with its own split")
    args = parser.parse_args(arguments)
    if args.size < 1 or args.seeds < 1:
        parser.error("--size and --seeds must be at least 1")

    start = time.perf_counter()
    with entry_point():
        folders = find_folders(args.folder)
        if folders.test is None:
            raise UserError(f"{str(args.folder)!r} has no test images; put them in test/ beside train/.")
        train = read_pixels(folders.train, args.size)
        test = read_pixels(folders.test, args.size)
        models = [fit(*train, seed) for seed in range(args.seeds)]
    accuracies = np.array([model.score(*test) for model in models])
    deviation = f" ± {100 * accuracies.std(ddof=1):.1f}" if args.seeds > 1 else ""
    strengths = ", ".join(f"{model[-1].C:g}" for model in models)

    print(
        f"Linear model on {args.size}×{args.size} pixels: test accuracy {100 * accuracies.mean():.1f} %"
        f"{deviation} (runs: {args.seeds})"
    )
    print(
        f"{len(train[1]):,} training images, {VAL_FRACTION:.0%} of them to choose C (chosen: {strengths}); "
        f"{len(test[1]):,} test images from {folders.test.name}/"
    )
    print(
        f"{time.perf_counter() - start:.0f} s; Python {platform.python_version()}, NumPy {np.__version__}, "
        f"scikit-learn {sklearn.__version__}, Pillow {PIL.__version__}"
    )


def read_pixels(folder: Path, size: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read the images of a folder of class folders, squashed to ``size`` × ``size``.

    Unreadable files are named and left out.

    Returns:
        Pixels, float32 [N, size * size * 3] from 0 to 255, and labels, int [N].

    Raises:
        UserError: ``folder`` holds fewer than two classes or a class without files.
    """
    split = scan(folder)
    pixels, labels = [], []
    with progress_bar(f"reading {folder.name}/", len(split.files)) as bar:
        for file in split.files:
            try:
                pixels.append(decode_file(folder / file.path, size, "squash").ravel())
                labels.append(file.label)
            except UnreadableImage as problem:
                print(f"left out {folder / file.path}: {problem}")
            bar.advance()
    return np.array(pixels, np.float32), np.array(labels)


def fit(pixels: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> Pipeline:
    """Fit the linear classifier whose regularisation does best on a stratified validation part.

    Args:
        pixels: float32 [N, size * size * 3].
        labels: int [N].
        seed: decides the split.

    Returns:
        Standardisation and classifier, fitted to the training part.

    Raises:
        UserError: a class has too few images to be split.
    """
    try:
        train_x, val_x, train_y, val_y = train_test_split(
            pixels, labels, test_size=VAL_FRACTION, stratify=labels, random_state=seed
        )
    except ValueError as error:
        raise UserError(f"the training images cannot be split by class: {error}") from error
    models = [
        make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500, tol=1e-3))
        for strength in STRENGTHS
    ]
    return max((model.fit(train_x, train_y) for model in models), key=lambda model: model.score(val_x, val_y))


if __name__ == "__main__":
    main()

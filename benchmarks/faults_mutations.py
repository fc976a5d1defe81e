"""Whatever is read back, damaged at random: a value or a sentence."""

import contextlib
import io
import itertools
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch

from benchmarks import forked
from benchmarks.mutations import mutate_bytes, mutate_checkpoint, mutate_csv, mutate_json_lines, mutate_json_text
from naturalist.compare.compare import read_run
from naturalist.data.dataset import load_training_data
from naturalist.data.decode import UnreadableImage, decode_bytes
from naturalist.data.recorded_split import RecordedSplit
from naturalist.data.sources.sample import make_sample
from naturalist.errors import UserError
from naturalist.evaluation.classifier import load_classifier
from naturalist.evaluation.metrics import read_predictions_csv
from naturalist.runs.checkpoint import load_for_resume
from naturalist.runs.folder import read_config, read_metrics
from naturalist.runs.identity import read_identity_file
from naturalist.settings.groups import DataSettings
from naturalist.settings.part_a import CnnSettings
from naturalist.settings.resume import settings_of_run

MUTATIONS = 10_000
SIZE = 32
TINY = (
    f"--image_size={SIZE} --num_filters=4 --filter_organization=same --dense_units=8 --batch_size=8 --device=cpu "
    "--wandb=disabled --no_validation_pictures --epochs=3"
)

Read = Callable[[Path], object]
Mutate = Callable[[bytes, Random], bytes]


def mutations(folder: Path, chance: Random) -> Iterator[str | None]:
    """Take the files of a real run, of its caches, and photographs in turn."""
    make_sample(folder / "pictures", train_images=80, test_images=20)
    forked.prepare("partA/train.py", "--data=pictures", "--name=run", *TINY.split(), folder=folder)
    forked.prepare("evaluate", "runs/run", folder=folder)
    targets = list(_targets(folder))
    for number, (path, mutate, read) in zip(range(MUTATIONS), itertools.cycle(targets), strict=False):
        content = path.read_bytes()
        try:
            mutated = (mutate if chance.random() < 0.6 else mutate_bytes)(content, chance)
        except (ValueError, OverflowError, RuntimeError):  # what JSON and torch cannot write cannot be read either
            mutated = mutate_bytes(content, chance)
        path.write_bytes(mutated)
        try:
            yield _through(read, path, number)
        finally:
            if path.is_dir():
                shutil.rmtree(path)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)


def _targets(folder: Path) -> Iterator[tuple[Path, Mutate, Read]]:
    """File, how it is mutated, and what reads it."""
    run = folder / "runs" / "run"
    known = CnnSettings().flat()
    yield run / "identity.json", mutate_json_text, lambda path: read_identity_file(path.parent)
    yield run / "identity.json", mutate_json_text, lambda path: settings_of_run(path.parent, known)
    yield run / "split.csv", mutate_csv, lambda path: RecordedSplit.read(path.parent, "held out")
    yield run / "metrics.jsonl", mutate_json_lines, lambda path: read_metrics(path.parent)
    for name in ("summary.json", "metrics.jsonl", "environment.json", "config.yaml"):
        mutate = {".json": mutate_json_text, ".jsonl": mutate_json_lines}.get(Path(name).suffix, mutate_bytes)
        yield run / name, mutate, lambda path: read_run(path.parent)
    yield run / "config.yaml", mutate_bytes, lambda path: read_config(path.parent)
    yield run / "evaluation" / "test" / "predictions.csv", mutate_csv, read_predictions_csv
    yield run / "best.pt", _mutate_checkpoint, lambda path: load_classifier(path, "cpu")
    yield run / "last.pt", _mutate_checkpoint, lambda path: load_for_resume(path.parent)
    for path in sorted((folder / "cache").glob("*-train-*/*.*")):
        yield path, mutate_json_text if path.suffix == ".json" else mutate_bytes, lambda path: _open_cache(folder)
    for path in sorted((folder / "pictures" / "test").glob("*/*.jpg"))[:4]:
        for _ in range(3):
            yield path, mutate_bytes, lambda path: decode_bytes(path.read_bytes(), SIZE, "squash")


def _open_cache(folder: Path) -> None:
    images = load_training_data(DataSettings(data=str(folder / "pictures"), image_size=SIZE), folder / "cache")
    images.train_cache.read(images.train_indices)


def _mutate_checkpoint(content: bytes, chance: Random) -> bytes:
    plain: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
    file = io.BytesIO()
    torch.save(mutate_checkpoint(plain, chance), file)
    return file.getvalue()


def _through(read: Read, path: Path, number: int) -> str | None:
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
    except (UserError, UnreadableImage) as error:
        words = str(error)
        return f"{path.name}, mutation {number}: several lines: {words!r}" if len(words.splitlines()) != 1 else None
    except Exception as error:  # of whatever kind: that is what is looked for
        return f"{path.name}, mutation {number}: {type(error).__name__}: {error}"
    return None

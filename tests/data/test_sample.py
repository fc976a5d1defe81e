"""What the embedded data set promises."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import linear
from naturalist.data.sources import sample
from naturalist.data.sources.sample import CLASSES, make_sample
from naturalist.errors import UserError

SMALL = {"train_images": 23, "test_images": 10}
DRAW = (
    "import sys; from pathlib import Path; from naturalist.data.sources.sample import make_sample; "
    "make_sample(Path(sys.argv[1]), train_images=int(sys.argv[2]), test_images=10)"
)
"""A program that draws a sample."""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    return make_sample(tmp_path_factory.mktemp("sample") / "sample", train_images=300, test_images=100)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder``, by its relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_sample_has_the_shape_of_nature_12k(drawn):
    for split, count in (("train", 300), ("test", 100)):
        assert tuple(sorted(path.name for path in (drawn / split).iterdir() if path.is_dir())) == CLASSES
        files = list((drawn / split).glob("*/*"))
        assert all(re.fullmatch(r"[0-9a-f]{32}\.jpg", path.name) for path in files)
        assert Counter(path.parent.name for path in files) == dict.fromkeys(CLASSES, count // 10)
    assert (drawn / "train" / ".DS_Store").is_file()


def test_sample_says_that_it_is_synthetic(drawn):
    assert "none is a photograph" in (drawn / "README.txt").read_text(encoding="utf-8")


def test_sample_has_both_orientations_and_greyscale(drawn):
    orientations, modes = Counter(), Counter()
    for path in (drawn / "train").glob("*/*.jpg"):
        with Image.open(path) as image:
            orientations[image.width > image.height] += 1
            modes[image.mode] += 1
    assert min(orientations[True], orientations[False]) > 60
    assert modes.keys() == {"RGB", "L"}
    assert 5 <= modes["L"] <= 45


def test_no_picture_occurs_twice(drawn):
    pictures = [digest for path, digest in digests(drawn).items() if path.endswith(".jpg")]
    assert len(pictures) == len(set(pictures)) == 400


def test_sample_is_the_same_for_the_same_seed(tmp_path, monkeypatch):
    first = digests(make_sample(tmp_path / "first", seed=3, **SMALL))
    monkeypatch.setattr(sample.os, "cpu_count", lambda: 1)
    assert digests(make_sample(tmp_path / "one worker", seed=3, **SMALL)) == first
    other = digests(make_sample(tmp_path / "other", seed=4, **SMALL))
    assert not set(first.values()) & {digest for path, digest in other.items() if path.endswith(".jpg")}


def test_classes_are_as_even_as_the_counts_allow(tmp_path):
    folder = make_sample(tmp_path / "sample", **SMALL)
    counts = Counter(path.parent.name for path in (folder / "train").glob("*/*.jpg"))
    assert sorted(counts.values()) == [2] * 7 + [3] * 3


def test_whole_sample_is_left_alone(tmp_path):
    folder = make_sample(tmp_path / "sample", **SMALL)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert make_sample(folder, **SMALL) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_sample_of_another_seed_or_with_files_missing_is_drawn_afresh(tmp_path):
    folder = make_sample(tmp_path / "sample", seed=1, **SMALL)
    wanted = digests(make_sample(folder, seed=2, **SMALL))
    assert json.loads((folder / "sample.json").read_text())["seed"] == 2
    next((folder / "test").glob("*/*.jpg")).unlink()
    assert digests(make_sample(folder, seed=2, **SMALL)) == wanted


def test_existing_folder_that_is_no_sample_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"photo")
    with pytest.raises(UserError, match="something other than the drawn sample"):
        make_sample(tmp_path / "mine", **SMALL)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["photo.jpg"]


def test_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the sample to"):
        make_sample(tmp_path / "file" / "sample", **SMALL)


@pytest.mark.parametrize("wrong", [{"train_images": 9}, {"test_images": 0}, {"seed": -1}])
def test_impossible_counts_and_seeds_are_refused(tmp_path, wrong):
    with pytest.raises(UserError, match="at least"):
        make_sample(tmp_path / "sample", **{**SMALL, **wrong})
    assert not list(tmp_path.iterdir())


def start_drawing(folder: Path, train_images: int) -> subprocess.Popen:
    """Start another process that draws, and return when its first picture is there."""
    process = subprocess.Popen([sys.executable, "-c", DRAW, folder, str(train_images)])
    deadline = time.monotonic() + 60
    while not list(folder.parent.glob(".sample.unfinished/*/*/*.jpg")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def test_killed_drawing_leaves_nothing_taken_for_whole(tmp_path):
    folder = tmp_path / "sample"
    process = start_drawing(folder, train_images=5000)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list(tmp_path.glob(".sample.unfinished/*/*/*.jpg"))
    assert not folder.exists()
    make_sample(folder, **SMALL)
    assert len(list(folder.glob("*/*/*.jpg"))) == 33
    assert not list(tmp_path.glob(".sample.unfinished"))


def test_two_processes_at_once_get_one_whole_sample(tmp_path):
    folder, counts = tmp_path / "sample", {"train_images": 150, "test_images": 10}
    process = start_drawing(folder, train_images=150)
    make_sample(folder, **counts)
    assert process.wait(timeout=60) == 0
    assert digests(folder) == digests(make_sample(tmp_path / "alone", **counts))


def test_linear_model_on_pixels_stays_under_40_percent(drawn):
    model = linear.fit(*linear.read_pixels(drawn / "train", 16), seed=0)
    assert model.score(*linear.read_pixels(drawn / "test", 16)) < 0.4


def test_linear_benchmark_prints_accuracy_and_number_of_runs(tmp_path, capsys):
    folder = make_sample(tmp_path / "sample", train_images=60, test_images=10)
    linear.main([str(folder), "--size", "8", "--seeds", "2"])
    printed = capsys.readouterr().out
    assert re.search(r"test accuracy \d+\.\d % ± \d+\.\d \(runs: 2\)", printed)
    assert "60 training images" in printed
    assert "10 test images from test/" in printed


def test_linear_benchmark_without_a_folder_is_one_sentence_and_exit_code_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        linear.main([str(tmp_path / "none")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1

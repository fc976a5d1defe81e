"""What ``python -m naturalist clean`` promises."""

import os
import re
import shutil
import time
from pathlib import Path

import pytest

from naturalist.cli import main
from naturalist.data import store
from naturalist.data.catalog import scan
from naturalist.data.images import open_cache
from naturalist.errors import UserError

DAY = 86400


@pytest.fixture
def caches(own_photographs, tmp_path) -> Path:
    """A cache folder with the images of a training and of a test folder."""
    for name in ("train", "test"):
        open_cache(scan(own_photographs / name), 16, "squash", tmp_path / "caches")
    return tmp_path / "caches"


@pytest.fixture
def clean(caches, capsys):
    """Runs the verb in this process and returns what was printed."""

    def clean(*arguments: str) -> str:
        capsys.readouterr()
        assert main(["clean", "--cache_dir", str(caches), *arguments]) == 0
        return capsys.readouterr().out

    return clean


def kept(caches: Path) -> list[str]:
    """Splits whose images are kept."""
    return sorted(re.search(r"-(train|test)-", path.name)[1] for path in caches.glob("*/") if path.is_dir())


def age(caches: Path, name: str, days: float) -> None:
    """Make the images of a split as if they had been used last some days ago."""
    (folder,) = (path for path in caches.glob(f"*-{name}-*") if path.is_dir())
    then = time.time() - days * DAY
    os.utime(folder / store.USED, (then, then))


def test_it_says_what_is_kept_how_large_for_which_data_and_when_last_used(clean, caches, own_photographs):
    age(caches, "test", 40)
    words = " ".join(clean().split())
    assert re.search(rf"0\.0 MB today \S.*-train-16-squash-\S+ of {re.escape(str(own_photographs))}/train 0", words)
    assert re.search(rf"0\.0 MB 40 days ago \S.*-test-16-squash-\S+ of {re.escape(str(own_photographs))}/test 2", words)
    assert "2 kept in" in words and "Nothing was removed" in words


def test_use_is_noted(clean, caches, own_photographs):
    age(caches, "test", 40)
    open_cache(scan(own_photographs / "test"), 16, "squash", caches)
    assert "days ago" not in clean()


@pytest.mark.parametrize("arguments", [["--older-than", "30"], ["--older_than", "0"], ["--all"]])
def test_nothing_is_removed_without_delete(clean, caches, arguments):
    age(caches, "test", 40)
    before = sorted(caches.rglob("*"))
    printed = clean(*arguments)
    assert sorted(caches.rglob("*")) == before
    count = 1 if "30" in arguments else 2
    assert printed.count("would be removed") == count + 1 and f"\n{count} of them" in printed


def test_only_what_was_not_used_for_long_is_removed(clean, caches):
    age(caches, "test", 40)
    assert "1 of them, 0.0 MB, removed" in clean("--older-than", "30", "--delete")
    assert kept(caches) == ["train"]


def test_all_is_removed_and_built_again_when_it_is_needed(clean, caches, own_photographs):
    clean("--all", "--delete")
    assert kept(caches) == []
    assert "Nothing is kept" in clean()
    assert len(open_cache(scan(own_photographs / "train"), 16, "squash", caches)) == 48


def test_images_that_are_being_read_stay_readable(clean, caches, own_photographs):
    images = open_cache(scan(own_photographs / "train"), 16, "squash", caches)
    before = images.pixels.copy()
    clean("--all", "--delete")
    assert (images.pixels == before).all()


def test_data_that_are_gone_are_told_apart(clean, own_photographs):
    shutil.rmtree(own_photographs / "test")
    lines = [line.strip() for line in clean().splitlines()]
    assert f"of {own_photographs / 'test'}, its data are gone" in lines and f"of {own_photographs / 'train'}" in lines


def test_what_another_process_is_building_is_left_alone(clean, caches):
    (train,) = (path for path in caches.glob("*-train-*") if path.is_dir())
    (caches / "new.unfinished").mkdir()
    with store.lock_of(train), store.lock_of(caches / "new"):
        printed = clean("--all", "--delete")
    assert "2 left alone: another process is at work on them" in printed
    assert train.is_dir() and (caches / "new.unfinished").is_dir()


def test_what_killed_builds_left_is_removed(clean, caches):
    (caches / "killed.unfinished").mkdir()
    (caches / "killed.unfinished" / "pixels.bin").write_bytes(bytes(100))
    assert "unfinished" in clean()
    clean("--older_than", "1000", "--delete")
    assert not (caches / "killed.unfinished").exists() and kept(caches) == ["test", "train"]


def test_damaged_entries_and_those_of_earlier_versions_are_shown_and_removed(clean, caches):
    for path in caches.glob("*/index.json"):
        path.write_text("{}")
    assert clean().count("damaged, or of an earlier version") == 2
    clean("--all", "--delete")
    assert kept(caches) == []


def test_nothing_but_entries_is_ever_removed(clean, caches):
    for name in (
        "photographs/a.jpg",
        "pixels/pixels.bin.txt",
        "mine/pixels.bin/x",
        "both/pixels.bin",
        "both/notes.txt",
    ):
        (caches / name).parent.mkdir(parents=True, exist_ok=True)
        (caches / name).touch()
    (caches / "empty").mkdir()
    (caches / "link-train-1").symlink_to(next(caches.glob("*-train-*")))
    clean("--all", "--delete")
    left = {path.name for path in caches.iterdir() if path.suffix != ".lock"}
    assert left == {"photographs", "pixels", "mine", "both", "empty", "link-train-1"}


def test_a_folder_that_is_not_there_keeps_nothing(tmp_path, capsys):
    main(["clean", "--runs_dir", str(tmp_path / "runs")])
    assert f"Nothing is kept in '{tmp_path / 'cache'}'" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--delete"], "--delete needs to know what to remove"),
        (["--all", "--older_than", "3"], "exclude each other"),
        (["--older_than", "-1"], "must not be negative"),
        (["--older_than", "nan"], "must be a number"),
        (["--cache_dir", __file__], "cannot read the cache folder"),
    ],
)
def test_options_that_make_no_sense_are_refused(clean, arguments, message):
    with pytest.raises(UserError, match=message):
        clean(*arguments)

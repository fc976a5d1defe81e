"""What ``python -m naturalist prepare`` promises."""

import re
import shutil

import pytest
from conftest import SMALL_CLASSES, run_python
from PIL import Image

from naturalist.data import images as cache_module
from naturalist.data.dataset import case_twins
from naturalist.data.prepare import prepare_data
from naturalist.errors import UserError
from naturalist.settings.verbs import PrepareOptions

FIRST, SECOND = SMALL_CLASSES[:2]


@pytest.fixture
def prepare(own_photographs, tmp_path, capsys):
    """Prepares this test's photographs in this process and returns what was printed."""

    def prepare(**settings: str | int | None) -> str:
        capsys.readouterr()
        prepare_data(
            PrepareOptions(
                **{"data": str(own_photographs), "image_size": 24, "cache_dir": str(tmp_path / "caches"), **settings}
            )
        )
        return capsys.readouterr().out

    return prepare


def row(output: str, name: str) -> list[str]:
    """Numbers behind ``name`` in the printed table."""
    line = next(line for line in output.splitlines() if re.match(rf"\W*{re.escape(name)}\b", line))
    return re.findall(r"\d[\d,]*", line)


def test_every_class_and_file_is_counted(prepare):
    output = prepare()
    for name in SMALL_CLASSES:
        assert row(output, name) == ["12", "4"]
    assert row(output, "files") == row(output, "readable") == ["48", "16"]
    assert "No photograph of train/ is in test/ too." in output
    assert "Ignored" not in output and "cannot be read" not in output


def test_training_finds_the_cache_that_prepare_built(prepare, own_photographs, tmp_path, monkeypatch):
    from naturalist.data.dataset import load_training_data
    from naturalist.settings.groups import DataSettings

    prepare()
    shutil.rmtree(own_photographs / "test")
    monkeypatch.setattr(cache_module, "decode_file", None)
    settings = DataSettings(data=str(own_photographs), image_size=24, val_fraction=0.25)
    data = load_training_data(settings, tmp_path / "caches")
    assert (len(data.train_indices), len(data.val_indices)) == (36, 12)


@pytest.mark.parametrize("cache_size", [None, 37])
def test_finetuning_finds_the_cache_that_prepare_built(prepare, own_photographs, tmp_path, monkeypatch, cache_size):
    from naturalist.data.dataset import load_training_data
    from naturalist.settings.groups import DataSettings

    shown = {"image_size": 32, "cache_size": cache_size, "resize_mode": "crop-bicubic"}
    prepare(**shown)
    monkeypatch.setattr(cache_module, "decode_file", None)
    data = load_training_data(DataSettings(data=str(own_photographs), **shown), tmp_path / "caches")
    assert data.train_cache.size == (cache_size or 32)


def test_unreadable_and_ignored_files_are_named(prepare, own_photographs):
    (own_photographs / "train" / FIRST / "text.jpg").write_text("no photograph")
    (own_photographs / "train" / ".DS_Store").touch()
    (own_photographs / "test" / SECOND / "zero.jpg").touch()
    output = prepare()
    assert f"1 of 49 files in train/ cannot be read and is left out:\n  {FIRST}/text.jpg: no image" in output
    assert f"1 of 17 files in test/ cannot be read and is left out:\n  {SECOND}/zero.jpg: empty file" in output
    assert row(output, "files") == ["49", "17"] and row(output, "readable") == ["48", "16"]
    assert "Ignored 1 file or folder that is hidden, a system's or outside the class folders" in output


def test_same_bytes_in_train_and_test_are_reported_by_their_whole_names(prepare, own_photographs):
    name = f"{SECOND}/[copy] of [bold] :smile: with a name that is longer than a line has room for in a terminal.jpg"
    shutil.copy(own_photographs / "train" / FIRST / "00.jpg", own_photographs / "test" / name)
    output = prepare()
    assert "1 photograph has the same bytes in train/ and test/, which flatters the result on test/" in output
    assert f"\n  train/{FIRST}/00.jpg = test/{name}\n" in output
    said = "By their pixels: 1 in two splits, 1 under two labels; "
    assert f"{said}naturalist audit {own_photographs} shows which." in output


def test_classes_of_the_test_set_alone_are_left_out_and_counted(prepare, own_photographs):
    (own_photographs / "test" / FIRST).rename(own_photographs / "test" / "Zebra")
    output = prepare()
    assert row(output, FIRST) == ["12", "0"] and row(output, "files") == ["48", "12"]
    assert "4 files in test/Zebra are left out: the training images have no such class." in output


def test_what_is_unusual_about_the_folders_is_said(prepare, own_photographs):
    (own_photographs / "train").rename(own_photographs / "seg_train")
    (own_photographs / "test").rename(own_photographs / "seg_test")
    assert "Folders: train: seg_train/, test: seg_test/." in prepare()


def test_classes_that_differ_in_case_only_are_named():
    assert case_twins(("Aves", "Fungi")) == ""
    assert case_twins(("AVES", "Aves", "Fungi", "aves", "fungi")).startswith(
        "AVES and Aves and aves, Fungi and fungi are classes apart here, but one folder on Windows and most Macs"
    )


def test_validation_folder_is_prepared_and_compared_too(prepare, own_photographs):
    shutil.copytree(own_photographs / "test", own_photographs / "val")
    shutil.copy(own_photographs / "train" / FIRST / "00.jpg", own_photographs / "val" / FIRST / "copy.jpg")
    output = prepare()
    assert row(output, "files") == ["48", "17", "16"]
    assert "same bytes in train/ and val/" in output and "No photograph of train/ is in test/ too." in output


def test_folder_without_a_test_set_says_so(prepare, own_photographs):
    output = prepare(data=str(own_photographs / "train"))
    assert "There is no test/ (or val/) folder" in output
    assert row(output, "files") == ["48"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": "no/such/folder"}, "there is no folder 'no/such/folder'"),
        ({"image_size": 0}, "image_size must be"),
        ({"cache_size": 20}, r"cache_size must be at least image_size \(24\)"),
        ({"on_corrupt": "error"}, "1 of 49 files in train/ cannot be read"),
    ],
)
def test_what_cannot_be_prepared_is_refused(prepare, own_photographs, settings, message):
    (own_photographs / "train" / FIRST / "text.jpg").write_text("no photograph")
    with pytest.raises(UserError, match=message):
        prepare(**settings)


def test_command_prepares_a_folder_and_keeps_the_cache_beside_the_runs(own_photographs, tmp_path):
    done = run_python("-m", "naturalist", "prepare", "--data", own_photographs, "--image_size", 24, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert row(done.stdout, "readable") == ["48", "16"]
    assert len(list((tmp_path / "cache").glob("*/pixels.bin"))) == 2


def test_photographs_of_every_kind_are_prepared_together(prepare, own_photographs):
    folder = own_photographs / "train" / FIRST
    with Image.open(folder / "01.jpg") as image:
        for name, mode in (
            ("p.png", "P"),
            ("c.jpg", "CMYK"),
            ("a.webp", "RGBA"),
            ("b.bmp", "L"),
            ("g.gif", "P"),
            ("t.tif", "RGB"),
            ("grey alpha.png", "LA"),
        ):
            image.convert(mode).save(folder / name)
    assert row(prepare(), "readable") == ["55", "16"]


def test_the_same_photograph_is_a_leak_and_the_same_other_file_is_not(prepare, own_photographs):
    for place in ("train", "test"):
        (own_photographs / place / FIRST / "readme.txt").write_text("about")
        (own_photographs / place / "labels.csv").write_text("a,b")
    assert "No photograph of train/ is in test/ too." in prepare()
    for place in (own_photographs / "test" / SECOND / "twin.jpg", own_photographs / "train" / SECOND / "again.jpg"):
        shutil.copy(own_photographs / "train" / FIRST / "00.jpg", place)
    output = prepare()
    assert "2 photographs have the same bytes" in output
    assert f"train/{FIRST}/00.jpg = test/{SECOND}/twin.jpg" in output
    assert f"train/{SECOND}/again.jpg = test/{SECOND}/twin.jpg" in output

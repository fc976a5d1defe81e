"""A list of images is left out of a training, by their names, and the run says so."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from naturalist.data.dataset import load_training_data, plan_training_data
from naturalist.data.exclude import Exclusion
from naturalist.errors import UserError
from naturalist.files import write_table
from naturalist.runs.identity import identify_run
from naturalist.settings.part_a import CnnSettings


@pytest.fixture
def settings(own_photographs, tmp_path):
    """Of a run that excludes what stands in a list of this test."""
    return CnnSettings.of(
        data=str(own_photographs), image_size=16, cache_dir=str(tmp_path / "cache"), exclude=str(tmp_path / "list.csv")
    )


def excluding(settings, *names: str):
    write_table(Path(settings.data.exclude), [("class", "path"), *(("a", name) for name in names)])
    return load_training_data(settings.data, settings.cache_folder)


def names(data, part):
    return {file.path for file in data.split.of(part)}


def test_images_of_a_list_are_in_no_part_and_all_others_stay_where_they_are(settings, own_photographs):
    everything = load_training_data(replace(settings.data, exclude=None), settings.cache_folder)
    trained, validated = sorted(names(everything, "train"))[0], sorted(names(everything, "val"))[0]
    left = excluding(settings, f"train/{trained}", f"train/{validated}")
    assert names(left, "train") == names(everything, "train") - {trained}
    assert names(left, "val") == names(everything, "val") - {validated}
    assert names(left, "unused") == {trained, validated}
    assert left.split.fingerprint == everything.split.fingerprint
    assert f"; 2 left out by {settings.data.exclude}" in left.description
    assert plan_training_data(settings.data) == left.plan


def test_a_run_knows_what_it_left_out_and_goes_on_without_the_list(settings, tmp_path):
    data = excluding(settings, *(name := ["train/Amphibia/00.jpg"]))
    identify_run(tmp_path, settings, data, {})
    identity = json.loads((tmp_path / "identity.json").read_text())
    assert identity["excluded"] == Exclusion("", frozenset(name)).record()
    assert identity["excluded"]["images"] == 1 and identity["settings"]["exclude"] == settings.data.exclude
    Path(settings.data.exclude).unlink()
    again = load_training_data(settings.data, settings.cache_folder, recorded=data.split)
    assert np.array_equal(again.train_indices, data.train_indices)
    assert f"without those of {settings.data.exclude}" in again.description


def test_a_validation_folder_and_a_folder_without_splits_are_named_as_they_lie(settings, own_photographs):
    (own_photographs / "test").rename(own_photographs / "val")
    (own_photographs / "test" / "Amphibia").mkdir(parents=True)
    (own_photographs / "test" / "Amphibia" / "0.jpg").write_bytes(b"")
    data = excluding(settings, "val/Amphibia/00.jpg", "train/Amphibia/01.jpg")
    assert (len(data.train_indices), len(data.val_indices)) == (47, 15)
    flat = settings.changed(data=str(own_photographs / "train"))
    assert "1 left out" in excluding(flat, "Amphibia/01.jpg").description


def test_lists_that_a_spreadsheet_saved_are_read(settings, tmp_path):
    text = '\ufeffpath,note\r\ntrain/Amphibia/00.jpg,"blurred, dark"\r\ntrain/Amphibia/00.jpg,twice\r\n'
    (tmp_path / "list.csv").write_text(text, encoding="utf-8", newline="")
    assert "; 1 left out" in load_training_data(settings.data, settings.cache_folder).description


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no list of images to exclude"),
        ("name\nx\n", "has no column 'path'.*its columns are name"),
        ("", "is empty"),
        ('path\n"x\n', "is damaged"),
        ("path\ntrain/Amphibia/none.jpg\ntrain/x\n", "names 'train/Amphibia/none.jpg' and 1 more, of no image"),
        ("path\ntest/Amphibia/00.jpg\n", "names 'test/Amphibia/00.jpg', of no image to train on"),
        ("path\nAmphibia/00.jpg\n", "give every image's path in that folder"),
        ("path\n" + "".join(f"train/Amphibia/{i:02}.jpg\n" for i in range(12)), "none of class Amphibia is left"),
    ],
)
def test_a_list_that_fits_nothing_is_refused_in_a_sentence(settings, tmp_path, content, message):
    if content is not None:
        (tmp_path / "list.csv").write_text(content)
    for load in (
        lambda: load_training_data(settings.data, settings.cache_folder),
        lambda: plan_training_data(settings.data),
    ):
        with pytest.raises(UserError, match=message):
            load()

"""Which folders are splits, which are classes, and which are neither."""

from pathlib import Path

import pytest
from conftest import make_classes

from naturalist.data.catalog import scan
from naturalist.data.layout import find_folders, split_name
from naturalist.errors import UserError


@pytest.mark.parametrize("nested", ["", "inaturalist_12K", "a/b/c"])
@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", None, "test"),
        ("train", "val", "test"),
        ("train", None, None),
        ("Train", "Validation", "Test"),
        ("training", "valid", "testing"),
        ("Train", "Dev", "TEST"),
        ("train", "eval", "holdout"),
        ("seg_train", "seg_val", "seg_test"),
        ("train_images", "validation", "images_test"),
        ("trainset", None, "test-set"),
        ("TrainData", "ValData", "TestData"),
        ("1_train2017", "2_val2017", "3_test2017"),
        ("birds_training", "birds_valid", "birds_testing"),
    ],
)
def test_splits_are_found_under_their_usual_names_however_nested(tmp_path, nested, train, val, test):
    parent = tmp_path / nested
    for name in (train, val, test):
        if name:
            make_classes(parent / name)
    make_classes(tmp_path / "__MACOSX" / nested / "train")
    folders = find_folders(tmp_path)
    assert folders.train == parent / train
    assert folders.val == (parent / val if val else None)
    assert folders.test == (parent / test if test else None)


def test_val_is_the_test_set_where_there_is_no_test(tmp_path):
    make_classes(tmp_path / "train")
    make_classes(tmp_path / "val")
    folders = find_folders(tmp_path)
    assert (folders.val, folders.test) == (None, tmp_path / "val")


def test_folder_of_classes_is_training_data_without_a_test_set(tmp_path):
    folders = find_folders(make_classes(tmp_path))
    assert (folders.train, folders.val, folders.test) == (tmp_path, None, None)
    assert scan(folders.train).class_names == ("Aves", "Fungi")


def test_splits_without_train_are_not_taken_for_classes(tmp_path):
    make_classes(tmp_path / "val")
    make_classes(tmp_path / "test")
    with pytest.raises(UserError, match=r"holds test, val, but no train/"):
        find_folders(tmp_path)


def test_validation_classes_must_match_too(tmp_path):
    make_classes(tmp_path / "train")
    make_classes(tmp_path / "val", "Aves", "fungi")
    make_classes(tmp_path / "test")
    with pytest.raises(UserError, match=r"only in train/: Fungi; only in val/: fungi; upper and lower case count"):
        find_folders(tmp_path)


def test_two_data_sets_in_one_folder_are_refused_by_name(tmp_path):
    make_classes(tmp_path / "first" / "train")
    make_classes(tmp_path / "second" / "train")
    with pytest.raises(UserError, match=r"more than one data set: .*first, .*second"):
        find_folders(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "there is no folder '.*nowhere'; --data takes 'sample'"),
        ("list.csv", "list.csv' is a file and no folder; --data takes 'sample'"),
        ("one.JPG", r"one.JPG' is one photograph \(naturalist predict takes those\); --data takes"),
        ("data.zip", "data.zip' is an archive: unpack it, and pass the folder that comes out with --data"),
        ("data.tar.gz", "is an archive: unpack it"),
        ("data.RAR", "is an archive: unpack it"),
        ("data.7z", "is an archive: unpack it"),
        ("empty", "neither a train/ folder nor a folder for each class.$"),
        ("flat", "nor a folder for each class, only photographs; put those of each class into a folder of its own"),
    ],
)
def test_what_is_no_folder_of_classes_is_refused_with_what_to_do(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    make_classes(tmp_path, "flat")
    if "." in name:
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=message):
        find_folders(tmp_path / name)


@pytest.mark.parametrize("name", ["train", "Test", "val", "valid", "testing"])
def test_a_class_that_is_called_as_a_split_is_a_class(tmp_path, name):
    make_classes(tmp_path, "car", name)
    assert find_folders(tmp_path).train == tmp_path
    assert sorted(scan(tmp_path).class_names) == sorted(("car", name))


def test_classes_that_are_called_as_splits_may_be_in_splits(tmp_path):
    make_classes(tmp_path / "train", "car", "test", "train")
    make_classes(tmp_path / "test", "car", "test", "train")
    folders = find_folders(tmp_path)
    assert (folders.train, folders.test) == (tmp_path / "train", tmp_path / "test")
    assert scan(folders.test).class_names == ("car", "test", "train")


def make(folder: Path, *names: str) -> Path:
    """Folders with class folders, given with ``*``, empty ones, and folders with a photograph of their own."""
    for name in names:
        if name.endswith("empty"):
            (folder / name).mkdir(parents=True)
            continue
        make_classes(folder / name[:-1]) if name.endswith("*") else make_classes(folder, name)
    return folder


def test_folders_that_archives_nest_and_others_beside_them_are_named(tmp_path):
    make(tmp_path, "seg_train/seg_train/*", "seg_test/seg_test/*", "seg_pred/seg_pred")
    folders = find_folders(tmp_path)
    assert (folders.train, folders.test) == (tmp_path / "seg_train/seg_train", tmp_path / "seg_test/seg_test")
    assert folders.note == "train: seg_train/seg_train/, test: seg_test/seg_test/; left out: seg_pred/"


@pytest.mark.parametrize(
    ("names", "train", "test", "note"),
    [
        (("train/*", "test/*"), "train", "test", ""),
        (("train/*", "val/*"), "train", "val", "train: train/, test: val/"),
        (("a/train/*", "a/test/*", "more"), "a/train", "a/test", "train: a/train/, test: a/test/; left out: more/"),
        (
            ("Training/*", "Test/*", "test-many"),
            "Training",
            "Test",
            "train: Training/, test: Test/; left out: test-many/",
        ),
        (("train/*", "test/*", "train_small/*"), "train", "test", "left out: train_small/"),
        (("train/images/*", "test/images/*"), "train/images", "test/images", None),
        (("x/train/*", "x/test/*", "x/x/train/*", "x/x/test/*"), "x/train", "x/test", None),
        (("train/*", "test"), "train", "test", "test/ has no class folders, so nothing can be evaluated on it"),
        (
            ("train_test_split/train/*", "train_test_split/test/*"),
            "train_test_split/train",
            "train_test_split/test",
            None,
        ),
    ],
)
def test_the_note_says_what_folders_were_taken_for_where_that_is_not_plain(tmp_path, names, train, test, note):
    folders = find_folders(make(tmp_path, *names))
    assert (folders.train, folders.val, folders.test) == (tmp_path / train, None, tmp_path / test)
    assert note is None or folders.note == note


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train", "test1"), "test1, train in .* are called as splits .* hold no class folders to train on"),
        (("train/train", "test/test"), "train/train in .* hold no class folders to train on"),
        (("cats_train", "cats_test", "dogs_train", "dogs_test"), "cats_test, cats_train in .* are called as splits"),
        (("train", "test", "lists/empty"), "test, train in .* are called as splits"),
        (("Aves/train", "Aves/test", "Fungi/train"), r"class folder Aves of .*Aves' holds splits \(test, train\)"),
        (("Aves", "Fungi/new/train", "Fungi/new/val"), r"class folder Fungi of .*new' holds splits \(train, val\)"),
        (("train/*", "query/*"), "query in .* holds class folders of the same names as train, but its name does not"),
        (("*", "test/*"), "holds Aves, Fungi, test, but no train/ folder; call that of the training images so"),
        (("birds_val/*", "birds_test/*"), "holds birds_test, birds_val, but no train/ folder"),
        (("*", "copy/*"), r"the folder copy of .* holds folders that are called as those beside it \(Aves, Fungi\)"),
        (("train/*", "train/train/*", "test/*"), "the folder train of .* holds folders that are called as those"),
        (("car", "train/*"), "train could be the training images, or a class beside car; pass --data '.*train'"),
        (("a", "b/car", "b/train/*"), "b/train could be the training images, or a class beside b/car, a;"),
        (("train_1/*", "train_2/*"), "each of train_1, train_2 in .* could be the training images"),
        (("train/*", "val/*", "eval/*"), "each of eval, val in .* could be the val images"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_by_name(tmp_path, names, message):
    with pytest.raises(UserError, match=message):
        find_folders(make(tmp_path, *names))


LOOK_ALIKE = (
    *("Evalea", "Predator", "Testudo", "Valeriana", "devilfish", "evaluated", "trainbearer", "trains"),
    *("train and test", "Prüfung"),
)


@pytest.mark.parametrize("name", LOOK_ALIKE)
def test_names_that_only_contain_such_letters_are_no_splits(name):
    assert split_name(name) is None


@pytest.mark.parametrize("inner", ["", "/deep"])
def test_classes_of_such_names_are_classes(tmp_path, inner):
    names = (*LOOK_ALIKE, "bullet_train", "test_tube")
    make_classes(tmp_path, *(f"{name}{inner}" for name in names))
    assert find_folders(tmp_path).train == tmp_path
    assert scan(tmp_path).class_names == tuple(sorted(names))


def test_the_classes_of_a_test_set_do_not_matter_to_training(tmp_path):
    make_classes(tmp_path / "train", "Aves", "Fungi")
    make_classes(tmp_path / "test", "Aves", "Zebra")
    assert find_folders(tmp_path).test == tmp_path / "test"


def test_file_names_say_nothing_about_splits(tmp_path):
    make_classes(tmp_path, "cat", "dog")
    for name in ("photo of a train.jpg", "test tubes.jpg", "ILSVRC2012_val_00000293.JPEG"):
        (tmp_path / "dog" / name).touch()
    folders = find_folders(tmp_path)
    assert folders.test is None and len(scan(folders.train).files) == 5


def test_lists_of_boxes_beside_photographs_are_no_second_data_set(tmp_path):
    make(tmp_path, "Data/train/*", "Data/val/*")
    for name in ("train/Aves/1.xml", "train/Fungi/1.xml", "val/1.xml"):
        (tmp_path / "Annotations" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "Annotations" / name).touch()
    assert find_folders(tmp_path).train == tmp_path / "Data" / "train"

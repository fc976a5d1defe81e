"""What scanning a folder promises."""

import os
import shutil
from pathlib import Path

import pytest

from naturalist.data.catalog import class_names_of, find_folders, same_bytes, scan
from naturalist.errors import UserError


def make_classes(folder: Path, *names: str) -> Path:
    """Class folders with one file each; scanning opens no file, so any content will do."""
    for name in names or ("Aves", "Fungi"):
        (folder / name).mkdir(parents=True)
        (folder / name / "photo.jpg").write_bytes(os.fsencode(name))
    return folder


@pytest.mark.parametrize("nested", ["", "inaturalist_12K", "a/b/c"])
@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", None, "test"),
        ("train", "val", "test"),
        ("train", None, None),
        ("Train", "Validation", "Test"),
        ("training", "valid", "testing"),
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


def test_class_folders_that_differ_between_splits_are_named(tmp_path):
    make_classes(tmp_path / "train", "Aves", "Fungi", "Plantae")
    make_classes(tmp_path / "test", "Aves", "fungi", "Plantae")
    with pytest.raises(UserError, match=r"only in train/: Fungi; only in test/: fungi"):
        find_folders(tmp_path)


def test_validation_classes_must_match_too(tmp_path):
    make_classes(tmp_path / "train")
    make_classes(tmp_path / "val", "Aves")
    make_classes(tmp_path / "test")
    with pytest.raises(UserError, match=r"only in train/: Fungi"):
        find_folders(tmp_path)


def test_two_data_sets_in_one_folder_are_refused_by_name(tmp_path):
    make_classes(tmp_path / "first" / "train")
    make_classes(tmp_path / "second" / "train")
    with pytest.raises(UserError, match=r"more than one data set: .*first, .*second"):
        find_folders(tmp_path)


def test_missing_and_empty_folders_and_files_are_refused(tmp_path):
    (tmp_path / "file").write_text("no folder")
    for wrong in ("nowhere", "file"):
        with pytest.raises(UserError, match="there is no folder"):
            find_folders(tmp_path / wrong)
    with pytest.raises(UserError, match="neither a train/ folder nor a folder for each class"):
        find_folders(tmp_path)


def test_fewer_than_two_classes_are_refused(tmp_path):
    with pytest.raises(UserError, match="at least two classes, but it holds 1"):
        scan(make_classes(tmp_path, "Aves"))


def test_class_folder_without_files_is_refused_by_name(tmp_path):
    make_classes(tmp_path)
    (tmp_path / "Insecta").mkdir()
    (tmp_path / "Plantae").mkdir()
    (tmp_path / "Plantae" / ".DS_Store").write_bytes(b"")
    with pytest.raises(UserError, match="class folders Insecta, Plantae"):
        scan(tmp_path)


def test_every_file_is_listed_once_or_named_as_ignored(tmp_path):
    make_classes(tmp_path, "Aves", "Fungi", ".hidden", "__MACOSX")
    for name in (".DS_Store", "notes.txt", "Aves/.DS_Store", "Aves/Thumbs.db", "Fungi/b.txt", "Fungi/a.PNG"):
        (tmp_path / name).write_text(name)
    (tmp_path / "Fungi" / "folder.jpg" / "deep").mkdir(parents=True)
    (tmp_path / "Fungi" / "folder.jpg" / "deep" / "c.jpg").write_text("deep")
    split = scan(tmp_path)
    assert [file.path for file in split.files] == [
        "Aves/photo.jpg",
        "Fungi/a.PNG",
        "Fungi/b.txt",
        "Fungi/folder.jpg/deep/c.jpg",
        "Fungi/photo.jpg",
    ]
    assert [file.label for file in split.files] == [0, 1, 1, 1, 1]
    assert sorted(split.ignored) == [".DS_Store", "Aves/.DS_Store", "Aves/Thumbs.db", "notes.txt"]
    assert split.counts() == {"Aves": 1, "Fungi": 4}


def test_names_may_hold_spaces_dots_brackets_and_any_script(tmp_path):
    names = ("Vögel & Co.", "[bold] Käfer", "真菌", "two.dots.jpg")
    split = scan(make_classes(tmp_path, *names))
    assert split.class_names == tuple(sorted(names))
    assert {file.path for file in split.files} == {f"{name}/photo.jpg" for name in names}


def test_links_are_followed_and_dangling_ones_listed(tmp_path):
    make_classes(tmp_path / "elsewhere", "Aves")
    make_classes(tmp_path / "data", "Fungi")
    (tmp_path / "data" / "Aves").symlink_to(tmp_path / "elsewhere" / "Aves")
    (tmp_path / "data" / "Fungi" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    split = scan(tmp_path / "data")
    assert [file.path for file in split.files] == ["Aves/photo.jpg", "Fungi/gone.jpg", "Fungi/photo.jpg"]
    assert [file.size > 0 for file in split.files] == [True, False, True]


def test_link_to_a_folder_above_does_not_multiply_the_files(tmp_path):
    make_classes(tmp_path)
    (tmp_path / "Aves" / "loop").symlink_to(tmp_path / "Aves")
    (tmp_path / "Fungi" / "all").symlink_to(tmp_path)
    assert len(scan(tmp_path).files) == 2


def test_folder_that_cannot_be_listed_is_an_error_not_a_smaller_data_set(tmp_path, monkeypatch):
    make_classes(tmp_path)
    locked = tmp_path / "Fungi" / "locked"
    locked.mkdir()
    scandir = os.scandir

    def refuse_locked(path: str):
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse_locked)  # permissions would not stop root
    with pytest.raises(UserError, match=r"cannot read the folder '.*locked': Permission denied"):
        scan(tmp_path)


def test_same_bytes_in_two_splits_are_reported_under_every_name(own_photographs):
    train, test = own_photographs / "train", own_photographs / "test"
    assert same_bytes(scan(train), scan(test)) == []
    first, second = class_names_of(train)[:2]
    for place in (test / second / "twin.jpg", test / first / "copy.jpg", train / second / "again.jpg"):
        shutil.copy(train / first / "00.jpg", place)
    other = bytearray((train / first / "00.jpg").read_bytes())
    other[-3] ^= 1  # as long, but not the same
    (test / first / "similar.jpg").write_bytes(other)
    (train / first / "empty.jpg").touch()
    (test / first / "empty.jpg").touch()
    assert set(same_bytes(scan(train), scan(test))) == {
        (twin, copy)
        for twin in (f"{first}/00.jpg", f"{second}/again.jpg")
        for copy in (f"{second}/twin.jpg", f"{first}/copy.jpg")
    }


def link(name: Path, target: str) -> None:
    name.symlink_to(target, target_is_directory=True)


def test_links_between_class_folders_do_not_multiply_the_files(tmp_path):
    make_classes(tmp_path, "a", "b")
    link(tmp_path / "a" / "x", "../b")
    link(tmp_path / "b" / "y", "../a")
    split = scan(tmp_path)
    assert [(file.path, file.label) for file in split.files] == [("a/photo.jpg", 0), ("b/photo.jpg", 1)]
    assert split.ignored == ("a/x", "b/y")


def test_a_folder_that_links_lead_to_is_listed_where_it_lies_or_else_once(tmp_path):
    make_classes(tmp_path / "data", "a", "b", "b/deep")
    make_classes(tmp_path / "elsewhere", "shared", "shared/more")
    link(tmp_path / "elsewhere" / "shared" / "again", "../shared")
    for name, target in (
        ("a/first", "../b/deep"),
        ("a/second", "../../elsewhere/shared"),
        ("b/third", "../../elsewhere/shared"),
        ("b/fourth", "../../elsewhere/shared/more"),
    ):
        link(tmp_path / "data" / name, target)
    split = scan(tmp_path / "data")
    assert [file.path for file in split.files] == [
        "a/photo.jpg",
        "a/second/more/photo.jpg",
        "a/second/photo.jpg",
        "b/deep/photo.jpg",
        "b/photo.jpg",
    ]
    assert sorted(split.ignored) == ["a/first", "a/second/again", "b/fourth", "b/third"]


def test_two_class_folders_that_are_one_are_refused_by_name(tmp_path):
    make_classes(tmp_path, "Aves", "Fungi")
    link(tmp_path / "Birds", "Aves")
    with pytest.raises(UserError, match="the class folders Aves and Birds of .* are one and the same folder"):
        scan(tmp_path)


def test_a_link_to_itself_is_listed_as_a_file(tmp_path):
    make_classes(tmp_path)
    link(tmp_path / "Aves" / "circle.jpg", "circle.jpg")
    assert [file.path for file in scan(tmp_path).files][:2] == ["Aves/circle.jpg", "Aves/photo.jpg"]


@pytest.mark.parametrize("folder", ["", "train"])
def test_class_folder_whose_name_is_not_utf8_is_refused_and_shown(tmp_path, folder):
    make_classes(tmp_path / folder, "Aves", "Fungi", os.fsdecode(b"V\xf6gel"))
    with pytest.raises(UserError, match=r"the name of the folder 'V\\xf6gel' in .* is not UTF-8; rename it") as error:
        scan(find_folders(tmp_path).train)
    str(error.value).encode()


def test_file_name_that_is_not_utf8_is_a_file(tmp_path):
    make_classes(tmp_path)
    (tmp_path / "Aves" / os.fsdecode(b"V\xf6gel.jpg")).touch()
    assert [os.fsencode(file.path) for file in scan(tmp_path).files][0] == b"Aves/V\xf6gel.jpg"


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


def test_test_set_without_class_folders_is_refused_rather_than_left_out(tmp_path):
    make_classes(tmp_path / "train")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "photo.jpg").touch()
    with pytest.raises(UserError, match="only in train/: Aves, Fungi"):
        find_folders(tmp_path)

"""What scanning a folder promises."""

import os
import sys
from pathlib import Path

import pytest
from conftest import make_classes

from naturalist.data.catalog import scan
from naturalist.data.layout import find_folders
from naturalist.errors import UserError

COMPOSED, DECOMPOSED = "K\u00e4fer", "Ka\u0308fer"
"""One name in the forms of Linux and Windows, and of Macs."""


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
    assert sorted(split.ignored) == [
        ".DS_Store",
        ".hidden",
        "Aves/.DS_Store",
        "Aves/Thumbs.db",
        "__MACOSX",
        "notes.txt",
    ]
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


@pytest.mark.parametrize(
    "litter",
    [
        "@eaDir/photo.jpg/SYNOPHOTO_THUMB_M.jpg",
        "lost+found/photo.jpg",
        "$RECYCLE.BIN/photo.jpg",
        "System Volume Information/photo.jpg",
        "#recycle/photo.jpg",
        "__MACOSX/photo.jpg",
        *(f"{name}/photo.jpg" for name in (".Trashes", ".AppleDouble", ".git", ".ipynb_checkpoints", ".thumbnails")),
        *("DESKTOP.INI", "ehthumbs.db", "Picasa.ini", "thumbs.DB", "._photo.jpg", "Icon\r"),
    ],
)
@pytest.mark.parametrize("place", ["", "Aves", "Aves/deep"])
def test_what_systems_leave_behind_is_no_class_and_no_photograph_and_is_counted(tmp_path, litter, place):
    make_classes(tmp_path, "Aves", "Fungi")
    path = tmp_path / place / litter
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("litter")
    split = scan(tmp_path)
    assert [file.path for file in split.files] == ["Aves/photo.jpg", "Fungi/photo.jpg"]
    assert split.ignored == ("/".join(filter(None, (place, litter.partition("/")[0]))),)


def test_unicodes_forms_of_a_name_are_one_name(tmp_path):
    make_classes(tmp_path / "mac", DECOMPOSED, "Ahorn")
    (tmp_path / "mac" / "Ahorn" / f"{DECOMPOSED}.jpg").touch()
    split = scan(tmp_path / "mac")
    assert split.class_names == ("Ahorn", COMPOSED)
    assert [file.name for file in split.files] == [f"Ahorn/{COMPOSED}.jpg", "Ahorn/photo.jpg", f"{COMPOSED}/photo.jpg"]
    assert all((split.folder / file.path).is_file() for file in split.files)


@pytest.mark.skipif(sys.platform == "darwin", reason="to a Mac the two names are one")
def test_two_names_that_differ_in_unicodes_form_only_are_refused(tmp_path):
    make_classes(tmp_path, COMPOSED, "Ahorn")
    for form in (COMPOSED, DECOMPOSED):
        (tmp_path / "Ahorn" / f"{form}.jpg").touch()
    with pytest.raises(UserError, match=f"two files 'Ahorn/{COMPOSED}.jpg', whose names look the same"):
        scan(tmp_path)
    make_classes(tmp_path, DECOMPOSED)
    with pytest.raises(UserError, match=f"two folders '{COMPOSED}', whose names look the same"):
        scan(tmp_path)


def test_for_a_runs_classes_files_are_labelled_by_name_and_others_are_counted(tmp_path):
    make_classes(tmp_path, "Zebra", "Fungi", DECOMPOSED)
    (tmp_path / "Aves").mkdir()
    split = scan(tmp_path, [COMPOSED, "Plantae", "Aves", "Fungi"])
    assert [(file.name, file.label) for file in split.files] == [("Fungi/photo.jpg", 3), (f"{COMPOSED}/photo.jpg", 0)]
    assert split.class_names == (COMPOSED, "Plantae", "Aves", "Fungi") and split.unknown == {"Zebra": 1}
    with pytest.raises(UserError, match="no files of any class that the run was trained on .*upper and lower case"):
        scan(tmp_path, ["zebra", "Plantae"])

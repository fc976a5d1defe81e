"""The verb audit finds what was planted, and says it in tables, pictures, numbers and sentences."""

import csv
import io
import json
import re
import shutil
from contextlib import redirect_stdout

import numpy as np
import pytest
from conftest import SMALL_CLASSES
from PIL import ExifTags, Image
from quick_runs import make_run

from naturalist import cli
from naturalist.data.dataset import load_training_data
from naturalist.errors import UserError
from naturalist.settings.groups import DataSettings

FIRST, SECOND = SMALL_CLASSES[:2]
TABLES = ("leaks", "conflicts", "copies", "suspicious", "places", "classes")
SHEETS = ("leaks", "conflicts", "copies", "suspicious")


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def plant(data):
    """One of everything that an audit is for."""
    train, test = data / "train", data / "test"
    shutil.copy(train / FIRST / "00.jpg", train / FIRST / "=copy.jpg")
    with Image.open(train / FIRST / "01.jpg") as image:
        image.resize((image.width // 2, image.height // 2)).save(train / SECOND / "flipped.webp", quality=60)
    with Image.open(test / SECOND / "02.jpg") as image:
        image.save(train / SECOND / "leak.png")
    Image.new("RGB", (40, 50), (200, 90, 10)).save(train / FIRST / "plain.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 12, (90, 90, 3), np.uint8)).save(train / FIRST / "dark.png")
    Image.fromarray(np.random.default_rng(0).integers(243, 256, (90, 90, 3), np.uint8)).save(test / FIRST / "light.png")
    with Image.open(train / FIRST / "05.jpg") as image:
        image.resize((9, 9)).resize((300, 300), Image.Resampling.BICUBIC).save(train / FIRST / "blurred.jpg")
    (train / FIRST / "broken.jpg").write_bytes(b"no image")
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "Box 1"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({2: (51.0, 30.0, 7.0), 4: (7.0, 5.0, 2.0)})
    with Image.open(train / FIRST / "06.jpg") as image:
        image.save(train / FIRST / "06.jpg", exif=exif)
    (test / "Stones").mkdir()
    shutil.copy(test / FIRST / "00.jpg", test / "Stones" / "0.jpg")
    shutil.rmtree(test / SMALL_CLASSES[3])


@pytest.fixture(scope="module")
def audited(photographs, tmp_path_factory):
    """The data, the folder of an audit of them, and what it printed."""
    folder = tmp_path_factory.mktemp("audited")
    data = shutil.copytree(photographs, folder / "data")
    plant(data)
    arguments = ["audit", str(data), "-o", str(folder / "audit"), "--cache_dir", str(folder / "cache")]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        patch.setenv("COLUMNS", "80")
        cli.main(arguments)
    return data, folder / "audit", printed.getvalue()


def test_planted_duplicates_are_told_apart(audited):
    _, output, _ = audited
    (leak,), (conflict, same), (copy,) = (rows(output / f"{name}.csv") for name in ("leaks", "conflicts", "copies"))
    assert leak["path"] == f"train/{SECOND}/leak.png" and leak["other"] == f"test/{SECOND}/02.jpg"
    assert {conflict["path"], conflict["other"]} == {f"train/{FIRST}/01.jpg", f"train/{SECOND}/flipped.webp"}
    assert (same["path"], same["other_class"]) == (conflict["other"], conflict["class"])
    assert copy["path"].endswith("copy.jpg") and copy["same_bytes"] == "yes" and leak["same_bytes"] == "no"


def test_odd_files_are_named_with_what_is_odd(audited):
    _, output, _ = audited
    odd = {
        (row["problem"].partition(":")[0], row["path"].rpartition("/")[2]) for row in rows(output / "suspicious.csv")
    }
    assert {
        ("unreadable", "broken.jpg"),
        ("small", "plain.png"),
        ("nearly uniform", "plain.png"),
        ("very dark", "dark.png"),
        ("very bright", "light.png"),
        ("blurred", "blurred.jpg"),
        ("grey", "00.jpg"),
    } <= odd
    assert {name for problem, name in odd if problem in ("unreadable", "blurred", "very dark", "very bright")} == {
        *("broken.jpg", "blurred.jpg", "dark.png", "light.png")
    }


def test_numbers_are_for_programs_and_agree_with_the_tables(audited):
    data, output, _ = audited
    record = json.loads((output / "audit.json").read_text())
    assert {name: (split["folder"], split["files"]) for name, split in record["splits"].items()} == {
        "train": ("train/", 55),
        "test": ("test/", 13),
    }
    assert record["missing_in_test"] == [SMALL_CLASSES[3]] and record["unknown_in_test"] == {"Stones": 1}
    assert record["duplicates"]["leaks"] == {"images": 1, "same_bytes": 0, "other_class": 0}
    assert record["duplicates"]["conflicts"]["other_class"] == 2
    assert record["with_place"] == 1 and rows(output / "places.csv")[0]["path"] == f"train/{FIRST}/06.jpg"
    first = next(row for row in record["classes"] if (row["class"], row["split"]) == (FIRST, "train"))
    assert (first["files"], first["readable"], first["cameras"], first["with_place"]) == (17, 16, 1, 1)
    assert first["formats"] == {"JPEG": 14, "PNG": 2} and first["modes"]["L"] >= 1
    assert record["label_errors"] is None and record["suspicious"]["unreadable"] == 1
    assert str(data) not in (output / "audit.json").read_text()


def test_it_is_said_within_80_columns_and_drawn(audited):
    _, output, text = audited
    assert all(len(line) <= 80 for line in text.splitlines() if line[:1] in "┏┃┡│├└")
    for words in (
        "1 unreadable",
        f"Of {SMALL_CLASSES[3]} there are training images and no test images.",
        "Of Stones there are test images and no training images",
        "Leaks: 1 image is in a later split, too, which flatters the result on it. Leave it out of training "
        f"with --exclude {output / 'leaks.csv'}",
        "Two labels for one picture: 2 images look like one",
        "Copies: 1 image is in the same class and split already, with the same bytes",
        "Places: 1 file says where it was taken",
    ):
        assert words in text
    for name in SHEETS:
        with Image.open(output / f"{name}.png") as picture:
            assert picture.width > 1000


def test_every_table_is_a_list_that_training_leaves_out(audited, tmp_path):
    data, output, _ = audited
    for name, gone in (("leaks", 1), ("copies", 1), ("conflicts", 2)):
        settings = DataSettings(data=str(data), image_size=16, exclude=str(output / f"{name}.csv"))
        assert f"; {gone} left out by " in load_training_data(settings, tmp_path).description


def test_limits_decide_a_run_doubts_labels_and_nothing_of_an_earlier_audit_is_left(audited, capsys):
    data, output, _ = audited
    limits = ["--distance=0", "--small=1", "--uniform=0", "--blurred=0", "--dark=0", "--bright=255"]
    run = make_run(output.parent / "runs" / "a", data)
    again = shutil.copytree(output, output.parent / "again")
    cli.main(["audit", str(data), "-o", str(again), *limits, "--run", str(run)])
    assert {row["problem"].partition(":")[0] for row in rows(again / "suspicious.csv")} == {"unreadable", "grey"}
    assert {row["distance"] for row in rows(again / "conflicts.csv")} <= {"0"}
    doubted, said = rows(again / "label_errors.csv"), json.loads((again / "audit.json").read_text())["label_errors"]
    assert len(doubted) == said["suspects"] and (said["run"], said["split"]) == ("a", "val")
    assert all((data / row["path"]).is_file() and row["suggested"] != row["class"] for row in doubted)
    assert (again / "label_errors.png").is_file()
    printed, verb = capsys.readouterr().out, "is" if len(doubted) == 1 else "are"
    assert f"Labels: {len(doubted)} of {said['images']} val images {verb} probably" in printed
    assert f"look at {again / 'label_errors.png'} before" in printed


def test_classes_have_the_names_of_a_file_where_people_read_them_and_pictures_are_for_papers(audited, tmp_path, capsys):
    data, output, _ = audited
    names, again = tmp_path / "names.yaml", tmp_path / "audit"
    names.write_text(f"{FIRST}: '*Rana <b>*'\n{SMALL_CLASSES[3]}: Wood mice\n")
    arguments = ["audit", str(data), "--cache_dir", str(output.parent / "cache"), "--display_names", str(names)]
    cli.main([*arguments, "-o", str(again), "--format", "svg"])
    printed = capsys.readouterr().out
    assert "Rana <b> " in printed and "Of Wood mice there are training images" in printed
    assert {FIRST, SMALL_CLASSES[3], "*Rana"}.isdisjoint(word.strip(",.") for word in printed.split())
    assert sorted(path.name for path in again.glob("*.svg")) == sorted(f"{name}.svg" for name in SHEETS)
    assert not list(again.glob("*.png"))
    assert re.search(r"italic[^<]*>Rana &lt;b&gt;<", (again / "suspicious.svg").read_text())
    for name in TABLES:
        assert (again / f"{name}.csv").read_text() == (output / f"{name}.csv").read_text()
    record, before = (json.loads((folder / "audit.json").read_text()) for folder in (again, output))
    assert record.pop("pictures") == "svg" and before.pop("pictures") == "png" and record == before
    names.write_text("Stones: Pebbles")
    with pytest.raises(UserError, match="names 'Stones', which is no class here"):
        cli.main([*arguments, "-o", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()


def test_a_run_that_is_none_leaves_nothing(audited, tmp_path):
    data, _, _ = audited
    with pytest.raises(UserError):
        cli.main(["audit", str(data), "--run", str(tmp_path / "none"), "-o", str(tmp_path / "audit")])
    assert not (tmp_path / "audit").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{data}", "-o", "{data}/audit"], "lies in the data folder"),
        (["{data}/none"], "there is no folder"),
        (["{data}/train/Amphibia/00.jpg"], "is one photograph"),
        ([], "needs FOLDER"),
        (["~nouser"], "'nouser'"),
        (["{data}", "--distance", "17"], "distance must lie between 0 and 16"),
        (["{data}", "--dark", "-1"], "dark must not be negative"),
        (["{data}", "--split", "test"], "split needs --run"),
        (["{data}", "--device", "toaster"], "device"),
    ],
)
def test_what_cannot_be_audited_is_refused_in_a_sentence(photographs, arguments, message):
    with pytest.raises(UserError, match=message):
        cli.main(["audit", *(argument.format(data=photographs) for argument in arguments)])

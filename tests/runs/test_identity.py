"""A run knows what it is: what lies around it may change, and what is said of it stays true."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import REPOSITORY, run_python
from PIL import Image

from naturalist.compare.compare import compare_runs
from naturalist.data.dataset import load_training_data
from naturalist.errors import UserError
from naturalist.evaluation.evaluate import evaluate_run
from naturalist.evaluation.looks import FILE_NAME as LOOKS
from naturalist.evaluation.split_images import images_of_split
from naturalist.explain.explain import explain_run
from naturalist.runs.checkpoint import load_checkpoint
from naturalist.runs.identity import read_identity
from naturalist.settings.command_line import parse_settings
from naturalist.settings.groups import DataSettings
from naturalist.settings.part_a import CnnSettings
from naturalist.settings.run_settings import name_of_data

TRAIN = REPOSITORY / "partA" / "train.py"
TINY = ["--image_size=32", "--num_filters=4", "--filter_organization=same", "--dense_units=8", "--batch_size=8"]
TINY += ["--device=cpu", "--wandb=disabled", "--no_validation_pictures", "--val_fraction=0.25"]

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, photographs) -> Path:
    """A folder with ``photographs/`` and a run of one epoch, ``runs/first``; for copies only."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(photographs, home / "photographs")
    done = run_python(TRAIN, *TINY, "--data=photographs", "--epochs=1", "--name=first", cwd=home)
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture
def home(trained, tmp_path, monkeypatch) -> Path:
    """A copy of all of it, as the working directory."""
    shutil.copytree(trained, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def recorded(run: Path) -> dict[str, str]:
    """Path → part of the split."""
    with (run / "split.csv").open(newline="") as file:
        return {row["path"]: row["split"] for row in csv.DictReader(file)}


def state_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def resume(*more: str) -> CnnSettings:
    return parse_settings(CnnSettings, "", ["--resume", "first", *more])


def test_every_image_is_on_record_with_its_part_and_content(home):
    run = home / "runs" / "first"
    rows = recorded(run)
    files = {path.relative_to(home / "photographs" / "train").as_posix() for path in home.glob("photographs/train/*/*")}
    assert rows.keys() == files
    assert sorted(set(rows.values())) == ["train", "val"] and list(rows.values()).count("val") == 12
    identity = json.loads((run / "identity.json").read_text())
    assert identity["images"] == {"train": 36, "val": 12, "unused": 0}
    assert identity["settings"]["num_filters"] == 4 and identity["settings"]["split_seed"] == 0
    assert not identity["settings"].keys() & {"epochs", "data", "device", "wandb", "runs_dir"}
    assert "torch" in identity["versions"] and len(identity["class_names"]) == 4


def test_runs_with_other_seeds_train_on_one_split_and_another_split_seed_gives_another(photographs, tmp_path):
    def val_of(**settings) -> list[str]:
        data = load_training_data(DataSettings(data=str(photographs), image_size=16, **settings), tmp_path / "cache")
        return [file.path for file in data.split.of("val")]

    assert val_of() == val_of() != val_of(split_seed=1)
    assert parse_settings(CnnSettings, "", ["--seed=1"]).data.split_seed == 0


def test_files_that_come_go_or_change_do_not_move_an_image_to_the_other_side(home, capsys):
    run = home / "runs" / "first"
    rows, train = recorded(run), home / "photographs" / "train"
    held_out = sorted(path for path, part in rows.items() if part == "val")
    gone, changed = held_out[0], held_out[1]
    (train / gone).unlink()
    Image.new("RGB", (60, 40), "red").save(train / changed)
    (train / next(path for path, part in rows.items() if part == "train")).unlink()
    for number in range(20):  # new ones, in front of and behind the others
        name = f"{'a' if number % 2 else 'z'}{number}.jpg"
        Image.new("RGB", (40, 60), (number, 0, 0)).save(train / Path(gone).parent / name)
    images = images_of_split(run, load_checkpoint(run), "val")
    assert sorted(images.files) == held_out[2:]
    said = capsys.readouterr().out
    assert f"Left out of the run's 12 validation images: 1 gone ({gone}) and 1 changed ({changed}) since." in said
    metrics = evaluate_run(run, "val", device="cpu", quiet=True)
    assert metrics["n"] == 10


def test_validation_images_that_are_all_gone_are_one_sentence(home):
    shutil.rmtree(home / "photographs")
    make = home / "photographs" / "train"
    for name in sorted({Path(path).parent.name for path in recorded(home / "runs" / "first")}):
        (make / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (40, 40), (number, 9, 9)).save(make / name / f"new{number}.png")
    with pytest.raises(UserError, match="of the run's 12 validation images, none is in 'photographs'"):
        evaluate_run(home / "runs" / "first", "val", device="cpu", quiet=True)


@pytest.mark.parametrize("name", ["identity.json", "split.csv"])
def test_a_record_that_was_edited_is_found_out(home, name):
    run = home / "runs" / "first"
    path = run / name
    path.write_text(path.read_text().replace("val", "train", 1) if name == "split.csv" else path.read_text() + " ")
    with pytest.raises(UserError, match="are not those that the checkpoint was trained with"):
        read_identity(run, load_checkpoint(run))
    path.unlink()
    with pytest.raises(UserError, match=r"missing or damaged"):
        evaluate_run(run, "val", device="cpu", quiet=True)
    assert evaluate_run(run, "test", device="cpu", quiet=True)["n"] == 16  # which it does not concern


def test_a_run_of_an_earlier_version_can_be_tested_and_says_why_not_more(home):
    run = home / "runs" / "first"
    for name in ("best.pt", "last.pt"):
        content = torch.load(run / name, weights_only=True)
        del content["identity"]
        torch.save(content, run / name)
    with pytest.raises(UserError, match="earlier version.*--split test"):
        evaluate_run(run, "val", device="cpu", quiet=True)
    assert evaluate_run(run, "test", device="cpu", quiet=True)["n"] == 16


@pytest.mark.parametrize(
    "text", ["image_size: 500\nresize_mode: crop\nval_fraction: 0.9\ndata: nowhere\n", "{: ]", "- 1"]
)
def test_config_yaml_does_not_steer_an_evaluation(home, text):
    run = home / "runs" / "first"
    before = evaluate_run(run, "val", device="cpu", quiet=True)
    (run / "config.yaml").write_text(text)
    after = evaluate_run(run, "val", device="cpu", quiet=True, cache_dir=str(home / "cache"))
    assert before == after


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--seed=1", "seed is 0 in this run and cannot become 1"),
        ("--split_seed=1", "split_seed is 0"),
        ("--val_fraction=0.5", "val_fraction is 0.25"),
        ("--optimizer=SGD", "optimizer is 'Muon' in this run and cannot become 'SGD'"),
        ("--image_size=64", "image_size is 32"),
        ("--num_filters=8", "num_filters is 4"),
        ("--no_batch_norm", "batch_norm is True"),
        ("--learning_rate=0.1", "learning_rate is 0.006"),
        ("--select_by=val_loss", "select_by is 'val_accuracy'"),
        ("--epochs=0", "epochs"),
    ],
)
def test_what_makes_it_another_run_is_refused_by_name_before_anything_is_written(home, flag, words):
    before = state_of(home)
    done = run_python(TRAIN, "--resume", "runs/first", flag, cwd=home)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert words in done.stderr
    assert state_of(home) == before


def test_length_machine_record_and_places_may_change(home):
    settings = resume("--epochs=3", "--patience=2", "--device=cpu", "--precision=fp32", "--wandb=offline", "--data=x")
    assert (settings.training.epochs, settings.data.data, settings.model.num_filters) == (3, "x", 4)
    with pytest.raises(UserError, match="epochs can only grow"):
        (home / "runs/first/config.yaml").write_text("epochs: 5\n")
        resume("--epochs=2")


def test_a_setting_that_the_runs_version_did_not_have_had_its_default(home):
    identity = home / "runs/first/identity.json"
    content = json.loads(identity.read_text())
    del content["settings"]["sampling"]
    identity.write_text(json.dumps(content))
    assert resume().training.sampling == "shuffle"
    with pytest.raises(UserError, match="sampling is 'shuffle' in this run and cannot become 'balanced'"):
        resume("--sampling=balanced")


def test_an_edited_config_yaml_does_not_make_it_another_run_either(home):
    config = yaml.safe_load((home / "runs/first/config.yaml").read_text())
    (home / "runs/first/config.yaml").write_text(yaml.safe_dump({**config, "seed": 5, "num_filters": 64}))
    settings = resume()
    assert (settings.training.seed, settings.model.num_filters) == (0, 4)


def test_a_run_goes_on_with_data_that_moved_and_not_with_data_that_changed(home):
    shutil.move(home / "photographs", home / "elsewhere")
    shutil.rmtree(home / "elsewhere" / "test")
    shutil.copytree(next((home / "elsewhere" / "train").iterdir()), home / "elsewhere" / "train" / "A new class")
    done = run_python(TRAIN, "--resume", "first", "--epochs=2", "--data=elsewhere", cwd=home)
    assert done.returncode == 0, done.stderr
    assert evaluate_run(home / "runs" / "first", "val", device="cpu", quiet=True)["n"] == 12
    assert [json.loads(line)["epoch"] for line in (home / "runs/first/metrics.jsonl").read_text().splitlines()] == [
        1,
        2,
    ]
    victim = next(path for path, part in recorded(home / "runs/first").items() if part == "train")
    (home / "elsewhere" / "train" / victim).unlink()
    before = state_of(home / "runs")
    done = run_python(TRAIN, "--resume", "first", "--epochs=3", cwd=home)
    assert done.returncode == 2 and f"1 gone ({victim})" in done.stderr and done.stderr.count("\n") == 1
    assert state_of(home / "runs") == before


def test_resume_auto_begins_what_is_not_there_and_goes_on_with_what_is(home):
    command = [TRAIN, *TINY, "--data=photographs", "--resume=auto", "--name=again: 1"]
    for epochs in (1, 2):
        done = run_python(*command, f"--epochs={epochs}", cwd=home)
        assert done.returncode == 0, done.stderr
    assert [path.name for path in sorted((home / "runs").iterdir()) if path.is_dir()] == ["again-1", "first"]
    assert len((home / "runs/again-1/metrics.jsonl").read_text().splitlines()) == 2
    with pytest.raises(UserError, match="--resume auto needs the run's --name"):
        parse_settings(CnnSettings, "", ["--resume=auto"])


def test_data_sets_are_told_apart_by_content_not_by_name(home):
    other = home / "other" / "photographs"
    shutil.copytree(home / "photographs", other)
    Image.new("RGB", (60, 40), "blue").save(next((other / "train").glob("*/*.jpg")))
    for name, data in (("second", other), ("third", home / "photographs")):
        done = run_python(TRAIN, *TINY, f"--data={data}", "--epochs=1", f"--name={name}", cwd=home)
        assert done.returncode == 0, done.stderr
    runs = home / "runs"
    with pytest.raises(UserError, match="first and second were trained on different images"):
        compare_runs([runs / "first", runs / "second"], home / "comparison")
    compare_runs([runs / "first", runs / "third"], home / "comparison")  # the same images by another path


def test_explaining_looks_at_validation_images_and_remembers_a_look_at_the_test_set(home, capsys):
    run = home / "runs" / "first"
    explain_run(run, [], images=1, units=1, only=("filters",), device="cpu")
    assert not (home / "runs" / LOOKS).exists()
    explain_run(run, [], images=1, units=1, only=("filters",), device="cpu", split="test")
    (look,) = [json.loads(line) for line in (home / "runs" / LOOKS).read_text().splitlines()]
    assert (look["run"], look["accuracy"]) == ("first", None)
    shutil.rmtree(home / "photographs" / "test")
    with pytest.raises(UserError, match="has no test/"):  # no other split in its place
        explain_run(run, [], images=1, units=1, only=("filters",), device="cpu", split="test")


def test_a_checkpoint_names_its_data_and_no_path(home):
    run = home / "runs" / "first"
    shutil.move(home / "photographs", home / "elsewhere" / "photographs")
    (run / "config.yaml").write_text(f"data: {home / 'elsewhere' / 'photographs'}\n")
    for name in ("best.pt", "last.pt"):
        content = load_checkpoint(run / name)
        assert content["data"] == "photographs"
        assert not [path for path in texts_in(content) if path.startswith("/")]
    assert evaluate_run(run, "val", device="cpu", quiet=True)["n"] == 12


def texts_in(value: object) -> list[str]:
    """Every text in plain values."""
    if isinstance(value, dict):
        return [text for pair in value.items() for item in pair for text in texts_in(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in texts_in(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("sample", "sample"),
        ("/home/somebody/sample", "./sample"),
        ("/home/somebody/photographs/", "photographs"),
        ("a/../photographs", "photographs"),
    ],
)
def test_a_folder_is_called_by_its_last_part_and_never_taken_for_the_projects_own_data(data, name):
    assert name_of_data(data) == name

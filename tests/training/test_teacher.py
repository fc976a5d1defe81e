"""A network with a teacher is distilled, and never called trained from scratch; what cannot teach is refused."""

import json
import sys
from pathlib import Path

import pytest
import torch
from quick_runs import make_run

from naturalist.compare.compare import read_run
from naturalist.data.sources.sample import make_sample
from naturalist.errors import UserError
from naturalist.runs.checkpoint import LAST, load_checkpoint
from naturalist.settings.part_a import CnnSettings

sys.path.insert(0, str(Path(__file__).parents[2] / "partA"))
try:
    from train import train
finally:
    sys.path.pop(0)

pytestmark = pytest.mark.usefixtures("blank_pictures")


def settings_for(photographs: Path, tmp_path: Path, whose: Path | None, **changes) -> CnnSettings:
    return CnnSettings.of(
        **{
            "data": str(photographs),
            "runs_dir": str(tmp_path / "runs"),
            "image_size": 32,
            "num_filters": 4,
            "filter_organization": "same",
            "dense_units": 8,
            "epochs": 3,
            "batch_size": 16,
            "device": "cpu",
            "wandb": "disabled",
            "validation_pictures": False,
            "teacher": whose and str(whose),
            "teacher_views": 2,
            **changes,
        }
    )


@pytest.mark.slow
def test_a_student_is_distilled_and_goes_on_to_the_same_weights(photographs, tmp_path, capsys):
    teacher = make_run(tmp_path / "teachers" / "wise", photographs)
    whole = Path(train(settings_for(photographs, tmp_path, teacher, name="whole"))["folder"])
    train(settings_for(photographs, tmp_path, teacher, name="parts"), lambda metrics: metrics["epoch"] == 1)
    parts = tmp_path / "runs" / "parts"
    train(settings_for(photographs, tmp_path, teacher, name="parts", resume=str(parts)))
    first, second = (load_checkpoint(folder, LAST)["state_dict"] for folder in (whole, parts))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    alone = Path(train(settings_for(photographs, tmp_path, None, name="alone"))["folder"])
    untaught = load_checkpoint(alone, LAST)["state_dict"]
    assert any(not torch.equal(value, untaught[name]) for name, value in first.items())

    assert read_run(whole).label == "CNN distilled from wise" and read_run(alone).label == "CNN from scratch"
    assert (whole / "model.txt").read_text().startswith("The five-block CNN, distilled from wise\n")
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["teacher"] == "wise" and 0 <= summary["teacher_val_accuracy"] <= 1
    assert read_run(whole).feature_seconds == summary["feature_seconds"] > 0
    printed = capsys.readouterr().out
    assert printed.count("distilled from wise, on") == 3 and printed.count("from scratch, on") == 1
    assert printed.count("Teacher: wise, right on ") == 3


@pytest.mark.slow
def test_a_teacher_sees_images_of_its_own_size_whatever_the_students(photographs, tmp_path):
    teacher = make_run(tmp_path / "teachers" / "large", photographs)
    sides = {"image_size": 40, "cache_size": 44, "first_image_size": 32, "pooling": "average"}
    result = train(settings_for(photographs, tmp_path, teacher, epochs=1, **sides))
    assert result["status"] == "finished"
    assert {path.name.split("-")[0] for path in (tmp_path / "cache").glob("features-large-*")} == {"features"}


def test_who_cannot_teach_is_refused_before_anything_is_written(photographs, tmp_path):
    other = make_sample(tmp_path / "other", train_images=50, test_images=10)
    cases = [
        (make_run(tmp_path / "teachers" / "other", other), "other classes than the data: only it knows"),
        (make_run(tmp_path / "teachers" / "seen", photographs, split_seed=1), "of this run's validation images"),
        (tmp_path / "nobody", "there is no checkpoint"),
    ]
    for teacher, message in cases:
        with pytest.raises(UserError, match=message):
            train(settings_for(photographs, tmp_path, teacher))
    for teacher, message in (cases[0], cases[2]):  # which images it was trained on is not looked at there
        with pytest.raises(UserError, match=message):
            train(settings_for(photographs, tmp_path, teacher, dry_run=True))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixup": 0.2}, "images that no teacher has seen"),
        ({"teacher_weight": 0.0}, "teacher_weight must be greater than 0"),
        ({"teacher_temperature": 0.0}, "teacher_temperature must be greater than 0"),
        ({"teacher_views": 0}, "teacher_views must be greater than 0"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        settings_for(tmp_path, tmp_path, tmp_path, **changes).validate()


@pytest.mark.parametrize("changes", [{"teacher_weight": 0.5}, {"teacher_temperature": 1.0}, {"teacher_views": 3}])
def test_what_has_no_effect_without_a_teacher_is_refused(tmp_path, changes):
    with pytest.raises(UserError, match=f"{next(iter(changes))} has no effect without a teacher"):
        settings_for(tmp_path, tmp_path, None, **{"teacher_views": 8, **changes}).validate()

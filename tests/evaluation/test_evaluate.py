"""What ``evaluate`` says is what anybody would compute from the files that it leaves."""

import csv
import json
import shutil
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import yaml
from conftest import run_python
from fake_wandb import FakeWandb
from matplotlib.figure import Figure
from PIL import Image
from quick_runs import make_run

from naturalist.data.recorded_split import RecordedSplit
from naturalist.data.sources.sample import make_sample
from naturalist.errors import UserError
from naturalist.evaluation.classifier import load_classifier
from naturalist.evaluation.confidence import say_temperature, temperature_of
from naturalist.evaluation.evaluate import evaluate_run
from naturalist.evaluation.looks import describe_looks
from naturalist.evaluation.metrics import calibration, mcnemar, read_predictions_csv
from naturalist.evaluation.several import evaluate_runs
from naturalist.evaluation.variants import prior_of_run, with_uniform_prior
from naturalist.runs.checkpoint import load_checkpoint
from naturalist.runs.identity import read_identity

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return make_sample(tmp_path_factory.mktemp("data") / "pictures", train_images=50, test_images=50)


@pytest.fixture(scope="module")
def run(tmp_path_factory, pictures) -> Path:
    return make_run(tmp_path_factory.mktemp("place") / "runs" / "first", pictures)


@pytest.fixture(scope="module")
def evaluated(run) -> tuple[dict, list[list[str]], Path]:
    """Metrics, rows of predictions.csv and the output folder."""
    evaluate_run(run, tta="flip-shift", prior="uniform", device="cpu", quiet=True)
    output = run / "evaluation" / "test"
    with (output / "predictions.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    return json.loads((output / "metrics.json").read_text()), rows, output


def test_numbers_equal_those_of_sklearn_on_the_csv(evaluated):
    metrics, (heading, *rows), _ = evaluated
    names = heading[5:]
    truth = np.array([names.index(row[1]) for row in rows])
    probabilities = np.array([row[5:] for row in rows], float)
    predicted = probabilities.argmax(axis=1)
    assert len(rows) == metrics["n"] == 50
    assert metrics["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(truth, predicted))
    assert metrics["balanced_accuracy"] == pytest.approx(sklearn.metrics.balanced_accuracy_score(truth, predicted))
    assert metrics["loss"] == pytest.approx(sklearn.metrics.log_loss(truth, probabilities, labels=range(10)))
    assert metrics["top3_accuracy"] == pytest.approx(
        sklearn.metrics.top_k_accuracy_score(truth, probabilities, k=3, labels=range(10))
    )
    report = sklearn.metrics.classification_report(
        truth, predicted, target_names=names, output_dict=True, zero_division=0
    )
    for name in names:
        assert metrics["per_class"][name]["f1"] == pytest.approx(report[name]["f1-score"])


def test_the_csv_says_what_was_predicted_how_surely_and_whether_that_is_right(evaluated):
    metrics, (heading, *rows), _ = evaluated
    assert heading[:5] == ["file", "truth", "prediction", "confidence", "right"]
    for _, truth, prediction, confidence, right, *probabilities in rows:
        assert confidence == max(probabilities, key=float) == probabilities[heading[5:].index(prediction)]
        assert right == ("yes" if prediction == truth else "no")
    assert [row[4] for row in rows].count("yes") == round(50 * metrics["accuracy"])


def test_a_temperature_is_fitted_on_validation_images_and_tried_on_the_test_set(evaluated, run, capsys):
    assert evaluated[0]["temperature"] is None
    assert "evaluate it with --split val first to fit one" in say_temperature(None)
    fitted = evaluate_run(run, "val", device="cpu", quiet=True)["temperature"]
    assert fitted["loss_after"] < fitted["loss_before"]
    metrics = evaluate_run(run, device="cpu")
    assert metrics["temperature"] | {"loss_after": 0, "calibration_error_after": 0} == {
        "value": fitted["value"],
        "fitted_on": "val",
        "loss_before": pytest.approx(metrics["loss"]),
        "loss_after": 0,
        "calibration_error_before": metrics["expected_calibration_error"],
        "calibration_error_after": 0,
    }
    assert f"predict --temperature {fitted['value']:.3f} uses it" in capsys.readouterr().out
    evaluations = run / "evaluation"
    assert temperature_of(evaluations, 3).value == fitted["value"] and temperature_of(evaluations, 4) is None


def test_the_csv_names_every_test_image_and_its_true_class(evaluated, pictures):
    _, (_, *rows), _ = evaluated
    assert [row[0] for row in rows] == sorted(
        path.relative_to(pictures / "test").as_posix() for path in (pictures / "test").glob("*/*.jpg")
    )
    assert all(row[0].startswith(f"{row[1]}/") for row in rows)


def test_a_test_set_with_other_classes_is_measured_by_name_on_those_there_are(run, pictures, tmp_path, capsys):
    everything = evaluate_run(run, device="cpu", quiet=True)
    data = Path(shutil.copytree(pictures, tmp_path / "data"))
    first, second, third, *_ = everything["per_class"]
    shutil.rmtree(data / "test" / first)
    for path in (data / "test" / third).iterdir():
        path.unlink()
    shutil.copytree(data / "test" / second, data / "test" / "Zebra")
    metrics = evaluate_run(run, data=str(data), device="cpu")
    said = capsys.readouterr().out
    assert f"has no images of {first}, {third}: the numbers are of the 8 classes that it has." in said
    assert f"5 files in {data / 'test'} are of classes that the run does not know, and are left out" in said
    assert ": Zebra (5).\n" in said and "Upper and lower case count" not in said
    assert (metrics["missing_classes"], metrics["unknown_classes"]) == ([first, third], {"Zebra": 5})

    with (run / "evaluation" / "test" / "predictions.csv").open(newline="") as file:
        heading, *rows = csv.reader(file)
    names = heading[5:]
    right: dict[str, list[bool]] = {}
    for _, truth, _, _, _, *probabilities in rows:
        values = [float(value) for value in probabilities]
        right.setdefault(truth, []).append(names[values.index(max(values))] == truth)
    recalls = {name: sum(hits) / len(hits) for name, hits in right.items()}
    assert set(recalls) == set(names) - {first, third} and metrics["n"] == len(rows) == 40
    assert metrics["balanced_accuracy"] == pytest.approx(statistics.mean(recalls.values()))
    assert recalls == {name: everything["per_class"][name]["recall"] for name in recalls}
    assert metrics["per_class"][first] == {"precision": None, "recall": None, "f1": None, "support": 0}
    with (run / "evaluation" / "test" / "confusion_matrix.csv").open(newline="") as file:
        matrix = {name: list(map(int, counts)) for name, *counts in list(csv.reader(file))[1:]}
    assert {name: sum(counts) for name, counts in matrix.items()} == {
        name: 0 if name in (first, third) else 5 for name in names
    }


def test_a_test_set_whose_class_differs_in_case_only_says_so(run, pictures, tmp_path, capsys):
    data = Path(shutil.copytree(pictures, tmp_path / "data"))
    name = next(path.name for path in (data / "test").iterdir())
    (data / "test" / name).rename(data / "test" / name.lower())
    assert evaluate_run(run, data=str(data), device="cpu", quiet=True)["n"] == 45
    assert "Upper and lower case count: rename the folders" in capsys.readouterr().out
    shutil.rmtree(data / "test")
    (data / "test").mkdir()
    (data / "test" / "photo.jpg").touch()
    with pytest.raises(UserError, match="holds no class folders, so nothing can be evaluated on it"):
        evaluate_run(run, data=str(data), device="cpu", quiet=True)


def test_calibration_error_by_hand():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.62, 0.62])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.array([0, 0, 1, 1, 0, 1])
    result = calibration(probabilities, labels, bins=10)
    # Bin (0.9, 1]: 4 images, 0.95 sure, 0.5 right. Bin (0.6, 0.7]: 2 images, 0.62 sure, 0.5 right.
    assert result["expected_calibration_error"] == pytest.approx((4 * 0.45 + 2 * 0.12) / 6)
    assert result["bins"][9] == {
        "low": 0.9,
        "high": 1.0,
        "images": 4,
        "confidence": pytest.approx(0.95),
        "accuracy": 0.5,
        # Wilson's, with z = 1.95996: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) for p = 0.5, n = 4.
        "accuracy_95_interval": [pytest.approx(0.15004, abs=1e-5), pytest.approx(0.84996, abs=1e-5)],
    }
    assert result["bins"][0]["accuracy"] is None and result["bins"][0]["accuracy_95_interval"] is None


def test_mcnemar_by_hand():
    first = np.array([True] * 9 + [False] * 1 + [True] * 30)
    second = np.array([False] * 9 + [True] * 1 + [True] * 30)
    # Two-sided: twice the chance of at most 1 head in 10 tosses, 2 · (1 + 10) / 2^10.
    assert mcnemar(first, second) == {
        "only_first_right": 9,
        "only_second_right": 1,
        "p_value": pytest.approx(22 / 1024),
    }
    assert mcnemar(first, first)["p_value"] == 1


def test_flips_are_the_mean_of_image_and_mirror_image_and_reported_apart(evaluated, run, tmp_path):
    metrics, (_, *rows), output = evaluated
    with (output / "predictions_with_flips.csv").open(newline="") as file:
        flipped = np.array([row[5:] for row in list(csv.reader(file))[1:]], float)
    plain = np.array([row[5:] for row in rows], float)
    classifier = load_classifier(run, "cpu")
    data = Path(yaml.safe_load((run / "config.yaml").read_text())["data"])
    pixels = np.stack([classifier.decode(data / "test" / row[0]) for row in rows])
    mirrored = classifier.probabilities(np.ascontiguousarray(pixels[:, :, ::-1]))
    assert flipped == pytest.approx((plain + mirrored) / 2, abs=1e-4)
    assert metrics["with_flips"]["n"] == 50
    moved = [
        classifier.probabilities(np.ascontiguousarray(view[:, :, ::mirror]))
        for way in ((1, 0), (0, 1))  # a pixel of 32, the border reflected
        for view in [np.pad(pixels, [(0, 0), way[::-1], way[::-1], (0, 0)], "reflect")]
        for view in [view[:, 1:, 1:] if way == (1, 0) else view[:, :-1, :-1]]
        for mirror in (1, -1)
    ]
    shifted = read_predictions_csv(output / "predictions_with_flips_and_shifts.csv")[2]
    assert shifted == pytest.approx((flipped + np.mean(moved, axis=0)) / 2, abs=1e-4)
    without = evaluate_run(run, device="cpu", quiet=True)
    assert not [key for key in without if key.startswith("with_")]
    assert without["accuracy"] == metrics["accuracy"]


@pytest.fixture(scope="module")
def unequal(tmp_path_factory, pictures) -> Path:
    """The pictures, of whose classes the first has only two left to train on."""
    data = Path(shutil.copytree(pictures, tmp_path_factory.mktemp("data") / "unequal"))
    first = min(path for path in (data / "train").iterdir() if path.is_dir())
    for path in sorted(first.iterdir())[2:]:
        path.unlink()
    return data


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher": "runs/fine-tuned"}, "learnt from a teacher, too, so that nobody knows"),
        ({"class_weights": "none and sqrt"}, "runs of the soup in .* class_weights none and sqrt and sampling shuffle"),
    ],
)
def test_a_prior_that_nobody_knows_is_not_corrected(run, monkeypatch, changes, words):
    checkpoint = load_checkpoint(run)
    identity = read_identity(run, checkpoint)
    other = replace(identity, settings={**identity.settings, **changes})
    monkeypatch.setattr("naturalist.evaluation.variants.read_identity", lambda *of: other)
    with pytest.raises(UserError, match=f"{words}.*; leave --prior out"):
        prior_of_run(run, checkpoint)


@pytest.mark.parametrize(
    ("changes", "power", "words"),
    [
        ({}, 1.0, "Class frequencies in training, which --prior uniform corrects: 2.7"),
        ({"class_weights": "sqrt"}, 0.5, "Class frequencies with class_weights sqrt in training"),
        ({"sampling": "balanced"}, 0.0, "look alike (sampling balanced), so --prior uniform changes nothing"),
    ],
    ids=["plain", "sqrt", "balanced"],
)
def test_a_uniform_prior_divides_by_the_frequencies_of_the_runs_own_split(
    tmp_path, unequal, capsys, changes, power, words
):
    run = make_run(tmp_path / "runs" / "first", unequal, settings=changes)
    checkpoint = load_checkpoint(run)
    prior = prior_of_run(run, checkpoint)
    assert words in capsys.readouterr().out
    files = [file.class_name for file in RecordedSplit.read(run, "held out").of("train")]
    counts = np.array([files.count(name) for name in checkpoint["class_names"]])
    assert counts.min() == 1 and prior == pytest.approx(counts**power / (counts**power).sum())
    views = {"": np.full((2, 10), 0.1), "flips": np.eye(10)[:2]}
    corrected = with_uniform_prior(views, prior)
    assert corrected.keys() == {*views, "uniform_prior", "flips_and_uniform_prior"}
    assert corrected["uniform_prior"] == pytest.approx((1 / prior / (1 / prior).sum())[None].repeat(2, 0))
    assert corrected["flips_and_uniform_prior"] == pytest.approx(views["flips"])


def test_a_uniform_prior_is_reported_beside_the_plain_numbers(evaluated):
    metrics, (_, *rows), output = evaluated
    corrected = read_predictions_csv(output / "predictions_with_uniform_prior.csv")[2]
    assert corrected == pytest.approx(np.array([row[5:] for row in rows], float))  # of classes that are equally large
    assert metrics["with_uniform_prior"]["compared_without"]["p_value"] == 1
    assert metrics["with_flips_and_shifts_and_uniform_prior"]["n"] == metrics["n"]


def test_a_prior_of_a_run_without_a_record_is_refused(tmp_path):
    with pytest.raises(UserError, match="class frequencies; leave --prior out"):
        prior_of_run(tmp_path, {"class_names": ["a", "b"]})


def test_contact_sheets_name_the_files_worst_first(run, evaluated, monkeypatch):
    _, (heading, *rows), _ = evaluated
    names = heading[5:]
    probabilities = np.array([row[5:] for row in rows], float)
    wrong = [i for i, row in enumerate(rows) if names[int(probabilities[i].argmax())] != row[1]]
    figures = {}
    savefig = Figure.savefig
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda self, path, **k: (
            figures.update(
                {path.name.split(".png")[0].strip("."): [text.get_text() for axes in self.axes for text in axes.texts]}
            ),
            savefig(self, path, **k),
        ),
    )
    evaluate_run(run, device="cpu", quiet=True)
    worst = max(wrong, key=lambda i: probabilities[i].max())
    least = min(range(len(rows)), key=lambda i: probabilities[i].max())
    for sheet, index in (("mistakes", worst), ("uncertain", least)):
        files = [text for text in figures[sheet] if text.endswith(".jpg")]
        assert files[0] == Path(rows[index][0]).name
        assert len(files) == min(16, len(wrong) if sheet == "mistakes" else len(rows))


def test_a_second_look_at_the_test_set_by_another_checkpoint_says_so(tmp_path, pictures, capsys):
    first, second = (
        make_run(tmp_path / "runs" / name, pictures, seed=seed) for seed, name in enumerate(("first", "second"))
    )
    for _ in range(2):  # by the same checkpoint
        assert evaluate_run(first, device="cpu")["earlier_test_looks"] == []
    assert "This is look" not in capsys.readouterr().out
    looks = evaluate_run(second, device="cpu")["earlier_test_looks"]
    assert [look["run"] for look in looks] == ["first"]
    assert "This is look 2 at this test set, after first (epoch 3" in capsys.readouterr().out
    assert describe_looks([]) == ""


def test_several_runs_give_mean_and_deviation_and_two_are_compared_image_by_image(tmp_path, pictures, capsys):
    runs = [make_run(tmp_path / "runs" / f"seed{seed}", pictures, seed=seed) for seed in (1, 2)]
    result = evaluate_runs(runs, device="cpu", tta="flip")
    accuracies = [metrics["accuracy"] for metrics in result["runs"]]
    assert result["mean"]["accuracy"] == pytest.approx(statistics.mean(accuracies))
    assert result["deviation"]["accuracy"] == pytest.approx(statistics.stdev(accuracies))
    gains = [metrics["with_flips"]["accuracy"] - metrics["accuracy"] for metrics in result["runs"]]
    assert result["with_flips"]["gain"]["accuracy"] == pytest.approx(statistics.mean(gains))
    paired = result["paired"]
    assert paired["only_first_right"] - paired["only_second_right"] == round(50 * (accuracies[0] - accuracies[1]))
    printed = capsys.readouterr().out
    assert "McNemar's exact test: p = " in printed
    assert "with flips, in brackets the gain" in printed
    assert f"({100 * gains[0]:+.1f})".replace("-", "−") in printed
    assert "differ in more than the seed" not in printed


def test_runs_that_saw_different_images_are_not_compared(tmp_path, pictures):
    runs = [make_run(tmp_path / "runs" / f"seed{seed}", pictures, split_seed=seed) for seed in (1, 2)]
    with pytest.raises(UserError, match="different images"):
        evaluate_runs(runs, "val", device="cpu")


def test_the_grid_goes_to_wandb_as_picture_and_table_for_a_run_that_is_there(tmp_path, pictures):
    run = make_run(tmp_path / "runs" / "first", pictures)
    home = tmp_path / "home"
    home.mkdir()
    start = (
        "import wandb, json, sys; run = wandb.init(project='demo', dir=sys.argv[1], "
        "settings=wandb.Settings(silent=True)); json.dump({'id': run.id, 'url': run.url}, "
        "open(sys.argv[1] + '/wandb.json', 'w')); run.log({'epoch': 1}); run.finish()"
    )
    with FakeWandb() as server:
        options = {"cwd": tmp_path, "env": server.env(home)}
        assert run_python("-c", start, run, **options).returncode == 0
        done = run_python("-m", "naturalist", "evaluate", run, "--device", "cpu", **options)
        assert done.returncode == 0, done.stderr
        assert not server.errors and not server.unknown
        (recorded,) = server.runs.values()
        sent = {key: value for row in recorded["history"] for key, value in row.items()}
        assert sent["test_predictions"]["_type"] == "image-file"
        table = sent["test_predictions_table"]
        assert (table["_type"], table["nrows"], table["ncols"]) == ("table-file", 30, 5)
        assert "W&B: the grid is at http" in done.stdout


def test_a_run_that_wandb_does_not_have_is_evaluated_without_importing_wandb(run):
    code = (
        "import sys; from pathlib import Path; from naturalist.evaluation.evaluate import evaluate_run; "
        f"evaluate_run(Path({str(run)!r}), device='cpu', quiet=True); assert 'wandb' not in sys.modules"
    )
    done = run_python("-c", code, cwd=run)
    assert done.returncode == 0, done.stderr


def test_names_that_spreadsheets_run_or_terminals_obey_do_no_harm_and_are_read_back(tmp_path, capsys):
    names = ["=1+1", "[red]x", "\x1b[31m", "+y"]
    data = tmp_path / "pictures"
    for split, count in (("train", 5), ("test", 2)):
        for label, name in enumerate(names):
            (data / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.random.default_rng([count, label, number]).integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(data / split / name / f"={number}.png")
    run = make_run(tmp_path / "runs" / "first", data)
    assert {file.class_name for file in RecordedSplit.read(run, "held out").files} == set(names)
    evaluate_run(run, device="cpu")
    shown = capsys.readouterr().out
    assert "[red]x" in shown and "\x1b" not in shown
    output = run / "evaluation" / "test"
    files, truth, probabilities, columns = read_predictions_csv(output / "predictions.csv")
    assert set(columns) == set(truth) == set(names) and probabilities.shape == (8, 4)
    assert set(files) == {f"{name}/={number}.png" for name in names for number in range(2)}
    for table in (*output.glob("*.csv"), run / "split.csv"):
        with table.open(newline="", encoding="utf-8") as file:
            assert not [cell for row in csv.reader(file) for cell in row if cell.startswith(("=", "+", "-", "@"))]

"""Figures are written without a warning, and nothing in them overlaps or is cut off."""

import itertools
import warnings

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import imread

from naturalist.plots.confusion_matrix import plot_confusion_matrix
from naturalist.plots.curves import plot_curves
from naturalist.plots.predictions import plot_contact_sheet, plot_prediction_grid
from naturalist.plots.reliability import plot_reliability
from naturalist.plots.style import DIM, INK
from naturalist.plots.sweep import plot_parallel_coordinates
from naturalist.runs.records import RunRecord

NAMES = ["Amphibia", "Animalia", "Arachnida", "Aves", "Fungi", "Insecta", "Mammalia", "Mollusca", "Plantae", "Reptilia"]
LONG_NAMES = [
    "Rhododendron ferrugineum",
    "00001_Animalia_Annelida_Clitellata_Haplotaxida_Lumbricidae",
    "Parthenocissus quinquefolia",
    "$x_1$ and $",
    "W" * 30,
    "a b",
    "x",
    *NAMES[:3],
]


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def written(monkeypatch):
    """The figures that were written, as matplotlib objects."""
    figures = []
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), savefig(self, *a, **k)))
    return figures


def epoch(number, **values):
    return {
        "epoch": number,
        "train_loss": 2 / number,
        "train_accuracy": 0.1 * number,
        "val_loss": 2.2 / number,
        "val_accuracy": 0.09 * number,
        "best_val_accuracy": 0.09 * number,
        "learning_rate": 1e-4,
        "images_per_second": 800.0,
        "epoch_seconds": 10.0,
    } | values


def draw_grid(path, class_names=NAMES, size=(48, 48), skip=(), title="Test split", note="synthetic sample"):
    rng = np.random.default_rng(0)
    true = np.delete(np.repeat(np.arange(len(class_names)), 3), skip)
    predicted = np.where(rng.random(len(true)) < 0.6, true, rng.integers(0, len(class_names), len(true)))
    confidence = np.linspace(0, 1, len(true))
    images = rng.integers(0, 256, (len(true), *size, 3), dtype=np.uint8)
    plot_prediction_grid(images, true, predicted, confidence, class_names, path, title, note)


def assert_nothing_is_cut_off(figure):
    inches = figure.get_tightbbox()
    assert inches.x0 >= 0
    assert inches.y0 >= 0
    assert inches.x1 <= figure.get_figwidth()
    assert inches.y1 <= figure.get_figheight()


@pytest.mark.parametrize(
    "history",
    [
        [epoch(1)],
        [epoch(n) for n in range(1, 31)],
        [epoch(1), epoch(2, val_loss=None, val_accuracy=None), epoch(3, train_loss=float("nan"))],
        [epoch(1, val_loss=None), epoch(2, val_loss=None, learning_rate=None)],
        [epoch(1, val_accuracy=None), epoch(2, val_accuracy=None, val_loss=float("inf"))],
        [{"epoch": 1}],
    ],
    ids=["one epoch", "thirty", "gaps", "best epoch without a loss", "no best epoch", "nothing measured"],
)
def test_curves_are_drawn_whatever_is_missing(tmp_path, written, history):
    plot_curves(history, tmp_path / "curves.png", "Scratch")
    assert_nothing_is_cut_off(written[0])


def test_epochs_are_whole_numbers_on_the_axis(tmp_path, written):
    plot_curves([epoch(1)], tmp_path / "curves.png", "Scratch")
    for ax in written[0].axes:
        assert [tick for tick in ax.get_xticks() if 0.5 <= tick <= 1.5] == [1]


def test_curves_name_the_best_epoch_and_its_value(tmp_path, written):
    equals = epoch(2, val_accuracy=0.453, val_loss=1.1), epoch(3, val_accuracy=0.453, val_loss=1.2)
    history = [epoch(1, val_accuracy=0.2, val_loss=1.0), *equals]
    for select_by, best in (("val_accuracy", ("2: 45.3 %", "2: 1.100")), ("val_loss", ("1: 20.0 %", "1: 1.000"))):
        plot_curves(history, tmp_path / "curves.png", "Scratch", select_by)
        labels = [text.get_text() for ax in written[-1].axes if ax.get_legend() for text in ax.get_legend().texts]
        assert {f"best epoch, {words}" for words in best} <= set(labels)


@pytest.mark.parametrize(
    "class_names",
    [["cat", "dog"], NAMES, LONG_NAMES, [f"Quercus {i}" for i in range(40)]],
    ids=["2", "10", "10 long names", "40"],
)
def test_confusion_matrix_is_drawn_for_few_and_many_classes(tmp_path, written, class_names):
    matrix = np.random.default_rng(0).integers(0, 200, (len(class_names), len(class_names)))
    matrix[0] = 0
    plot_confusion_matrix(matrix, class_names, tmp_path / "confusion.png", "A title of more than one line " * 3)
    assert_nothing_is_cut_off(written[0])


def test_confusion_matrix_shows_counts_and_recall(tmp_path, written):
    plot_confusion_matrix(np.array([[3, 1], [0, 0]]), ["cat", "dog"], tmp_path / "confusion.png", "")
    ax = written[0].axes[0]
    assert [text.get_text() for text in ax.texts] == ["3", "1", "0", "0"]
    assert [text.get_color() for text in ax.texts] == ["white", INK, DIM, DIM]
    assert [label.get_text() for label in ax.child_axes[0].get_yticklabels()] == ["75 %", "–"]


def test_reliability_is_drawn_with_empty_bins_and_a_long_title(tmp_path, written):
    nothing = {"confidence": None, "accuracy": None, "accuracy_95_interval": None}
    something = {"confidence": 0.9, "accuracy": 0.7, "accuracy_95_interval": [0.4, 0.85]}
    empty, filled = (
        {"low": 0.0, "high": 0.5, "images": 0, **nothing},
        {"low": 0.5, "high": 1.0, "images": 7, **something},
    )
    plot_reliability([empty, filled], 0.2, tmp_path / "reliability.png", "Can its confidence be believed? " * 5)
    assert "expected calibration error 20.0 %" in [text.get_text() for text in written[0].axes[0].texts]
    (bar,) = [lines for lines in written[0].axes[0].collections if isinstance(lines, LineCollection)]
    assert bar.get_segments()[0] == pytest.approx(np.array([[0.75, 0.4], [0.75, 0.85]]))
    assert_nothing_is_cut_off(written[0])


@pytest.mark.parametrize("count", [0, 6])
def test_a_contact_sheet_names_files_and_says_when_there_are_none(tmp_path, written, count):
    images, true = np.zeros((count, 8, 8, 3), dtype=np.uint8), np.arange(count) % 2
    files = [f"cat/{'long ' * 20}{i}.jpg" if i == 5 else f"cat/{i}.jpg" for i in range(count)]
    sheet = tmp_path / "sheet.png"
    plot_contact_sheet(images, true, np.zeros_like(true), np.ones(count), files, ["cat", "dog"], sheet, "Pets", "note")
    boxes = [text.get_window_extent() for text in written[0].axes[0].texts]
    assert all(written[0].bbox.containsx(x) for box in boxes for x in (box.x0, box.x1))
    texts = [text.get_text() for text in written[0].axes[0].texts]
    assert ("There are none." in texts) == (count == 0)
    assert texts.count("is dog") == count // 2
    assert ("0.jpg" in texts) == (count > 0)


@pytest.mark.parametrize(
    ("class_names", "size"),
    [
        (NAMES, (48, 48)),
        (LONG_NAMES, (48, 48)),
        (LONG_NAMES, (36, 48)),
        (LONG_NAMES, (48, 36)),
    ],
    ids=["short names", "long names", "landscape", "portrait"],
)
def test_no_text_of_the_grid_overlaps_text_or_image(tmp_path, written, class_names, size):
    draw_grid(tmp_path / "grid.png", class_names, size, title="Title " * 30, note="note " * 50)
    page = written[0].axes[0]
    texts = [(text.get_text(), text.get_window_extent()) for text in page.texts if text.get_text() not in "✓✗"]
    images = [("image", image.get_window_extent()) for image in page.images]
    assert len(images) == 30
    for (one, box), (other, other_box) in itertools.chain(
        itertools.combinations(texts, 2), itertools.product(texts, images)
    ):
        assert not box.overlaps(other_box), f"{one!r} overlaps {other!r}"
    for text, box in texts:
        assert written[0].bbox.containsx(box.x0) and written[0].bbox.containsx(box.x1), text
        assert written[0].bbox.containsy(box.y0) and written[0].bbox.containsy(box.y1), text


def test_grid_has_a_row_per_class_and_leaves_missing_cells_blank(tmp_path, written):
    draw_grid(tmp_path / "grid.png", skip=(0, 1, 2, 4))
    page = written[0].axes[0]
    tops = [image.get_extent()[3] for image in page.images]
    assert np.unique(tops, return_counts=True)[1].tolist() == [2] + [3] * 8
    assert "Amphibia" in [text.get_text() for text in page.texts]


def test_grid_tells_right_from_wrong_without_colour(tmp_path, written):
    images = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    true, predicted, confidence = np.array([0, 1]), np.array([0, 0]), np.array([0.9, 0.6])
    plot_prediction_grid(images, true, predicted, confidence, ["cat", "dog"], tmp_path / "grid.png", "Pets")
    page = written[0].axes[0]
    texts = [text.get_text() for text in page.texts]
    assert texts.count("✓") == texts.count("✗") == 2  # one image and the legend each
    assert "1 of the 2 shown are right" in texts
    boxes = [text.get_window_extent() for text in page.texts]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert {patch.get_linestyle() for patch in page.patches} > {"-"}
    assert [patch.get_hatch() for patch in page.patches].count("/////") == 1


def test_names_of_levels_lie_off_the_lines_of_runs_and_between_the_brackets_of_their_level(tmp_path, written):
    values = np.linspace(0.1, 0.4, 12).tolist()
    runs = [RunRecord(str(i), "finished", {}, value, 5, 0.0, 1.0) for i, value in enumerate(values)]
    settings = {"activation": ["ReLU", "a name of a level that is long", "Mish"] * 4, "learning_rate": values}
    plot_parallel_coordinates(settings, runs, tmp_path / "parallel.png", "val_accuracy", True)
    assert_nothing_is_cut_off(written[0])
    ax = written[0].axes[0]
    names = {text.get_text(): text.get_window_extent() for text in ax.texts}
    assert "a name of a level…" in names
    for patch in ax.patches:
        line = patch.get_transform().transform_path(patch.get_path()).interpolated(20)
        assert not any(
            line.intersects_bbox(names[name], filled=False) for name in ("ReLU", "a name of a level…", "Mish")
        )
    brackets = [line for line in ax.lines if line.get_xdata()[1] == 0]
    starts = [patch.get_path().vertices[0, 1] for patch in ax.patches]
    for bracket in brackets:
        low, high = bracket.get_ydata()[[0, -1]]
        inside = [start for start in starts if low - 1e-9 <= start <= high + 1e-9]
        assert (len(inside), min(inside), max(inside)) == (4, pytest.approx(low), pytest.approx(high))


def test_a_figure_replaces_the_old_one_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "grid.png"
    path.write_bytes(b"old")
    draw_grid(path, ["cat", "dog"])
    assert imread(path).ndim == 3
    assert list(tmp_path.iterdir()) == [path]


def test_a_figure_that_fails_keeps_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")

    def half_written(self, path, **_):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", half_written)
    with pytest.raises(OSError, match="disk full"):
        plot_curves([epoch(1)], path, "Scratch")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]

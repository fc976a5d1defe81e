"""What is printed on a narrow terminal."""

import io
import re

import pytest
from rich.console import Console
from rich.table import Table

from naturalist import progress
from naturalist.compare.tables import print_comparison
from naturalist.progress import keep_numbers, print_numbers, progress_bar
from naturalist.runs.records import COLUMNS, Group, Run


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_numbers_stay_whole_and_names_lose_nothing(width):
    table = Table("class", title="test: 9 images")
    for heading in ("precision", "recall", "F1", "images"):
        table.add_column(heading, justify="right")
    table.add_row("parthenocissus_quinquefolia", "100.0 %", "33.3 %", "± 0.0012", "12,345")
    keep_numbers(table, width)
    console = Console(width=width, file=io.StringIO())
    console.print(table, crop=False)
    text = console.file.getvalue()
    assert all(number in text for number in ("100.0 %", "33.3 %", "0.0012", "12,345")), text
    assert (
        "…" not in text and re.sub(r"[^a-z_]", "", text.partition("images")[2]).endswith("quinquefolia") or width < 80
    )


def test_a_comparison_is_whole_in_40_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    values = {**dict.fromkeys(COLUMNS, 0.123), "total_seconds": 123456.0, "epochs": 5}
    runs = [Run("a", "resnet50, partial", seed, {}, [], 0.0, {**values, "test_accuracy": seed / 3}) for seed in (1, 2)]
    print_comparison([Group("resnet50, partial", tuple(runs))])
    text = capsys.readouterr().out
    assert {"123,456", "12.3", "50.0", "23.6"} <= set(text.split()), text


def test_a_sentence_is_broken_between_words_on_a_terminal_only(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    line = "epoch 1/1  train loss 1.1612 accuracy 33.3%  val loss 1.1101 accuracy 16.7% *  lr 0.002"
    print_numbers(line)
    assert capsys.readouterr().out == f"{line}\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_numbers(line)
    text = capsys.readouterr().out
    assert text.count("\n") > 1 and text.split() == line.split()


@pytest.mark.parametrize(("width", "shown"), [(60, 1), (80, 2), (120, 3)])
def test_a_bar_shows_the_accuracy_first_and_nothing_by_half(monkeypatch, width, shown):
    file = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=file, width=width, force_terminal=True, color_system=None))
    with progress_bar("epoch 9/10", 7999, ending=lambda: "run: 12 min left") as bar:
        bar.advance(6400, "loss 2.123 45.6 %")
    text = file.getvalue()
    notes = ("loss 2.123 45.6 %", "run: 12 min left", " images/s")
    assert [note in text for note in notes] == [number < shown for number in range(3)], text
    assert "6400/7999" in text and "…" not in text and ("run:" in text) == (shown > 1)

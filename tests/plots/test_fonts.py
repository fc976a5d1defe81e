"""Names in any script are drawn where a font has their letters; where none has, one line says so."""

import warnings

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure

from naturalist.plots import fonts
from naturalist.plots.confusion_matrix import plot_confusion_matrix
from naturalist.plots.curves import plot_curves
from naturalist.plots.fonts import BASE, fonts_for
from naturalist.plots.predictions import plot_contact_sheet

LETTER = "猫"
"""Which matplotlib's own fonts do not have."""

NAMES = [
    "$x_1$ and $",
    r"\frac{a}^b_",
    "_hidden",
    "{0} %s %(x)s",
    "<b>[red]",
    "a|b*c",
    LETTER,
    "قطة",
    "दे‌व",
    "👩‍🌾 🦋",
    "two\nlines\x1b[0m",
    "\udcff",
]


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    """Every test begins as a process does, where a warning of matplotlib's would be an error."""
    monkeypatch.setattr(fonts, "_told", set())
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))
    for function in (fonts._others, fonts._installed):
        function.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    for function in (fonts._others, fonts._installed):
        function.cache_clear()


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """A font that was installed after matplotlib made its list of fonts; it has one letter."""
    pen = TTGlyphPen(None)
    for draw, point in ((pen.moveTo, (0, 0)), (pen.lineTo, (0, 700)), (pen.lineTo, (700, 700)), (pen.lineTo, (700, 0))):
        draw(point)
    pen.closePath()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "cat"])
    font.setupCharacterMap({ord(LETTER): "cat"})
    font.setupGlyf({".notdef": pen.glyph(), "cat": pen.glyph()})
    font.setupHorizontalMetrics({".notdef": (800, 0), "cat": (800, 0)})
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Small Test Sans", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "small.ttf")
    damaged = tmp_path / "damaged.ttf"
    damaged.write_bytes(b"no font")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(damaged), str(tmp_path / "small.ttf")])


@pytest.fixture
def none_installed(monkeypatch):
    """A machine with the fonts that matplotlib brings."""
    own = [font for font in font_manager.fontManager.ttflist if "mpl-data" in font.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)


def draw_matrix(tmp_path, *names):
    matrix = np.ones((len(names), len(names)), dtype=np.int64)
    plot_confusion_matrix(matrix, names, tmp_path / "matrix.png", f"run {names[0]}: 5 of 9")


def test_a_name_that_matplotlibs_font_has_is_drawn_in_it():
    assert fonts_for("Amphibia kröte", "🐱") == [BASE]


def test_letters_that_it_lacks_come_from_a_font_that_was_installed_since(tmp_path, installed, capsys):
    assert fonts_for(f"a {LETTER}") == [BASE, "Small Test Sans"]
    draw_matrix(tmp_path, LETTER, "b")
    assert capsys.readouterr().out == ""


def test_letters_that_no_font_has_are_named_in_one_line_and_once(tmp_path, none_installed, capsys):
    draw_matrix(tmp_path, LETTER, "b")
    line = capsys.readouterr().out
    assert line.startswith(f"No font on this machine has {LETTER} (CJK); pictures show boxes instead. Install one")
    assert line.count("\n") == 1
    draw_matrix(tmp_path, LETTER, "c")
    assert capsys.readouterr().out == ""
    draw_matrix(tmp_path, LETTER, "科")
    assert "has 科 (CJK)" in capsys.readouterr().out


def test_other_warnings_of_matplotlib_are_not_kept_from_anybody(tmp_path):
    with pytest.warns(UserWarning, match="anything else"), fonts.missing_letters_told():
        warnings.simplefilter("always")
        warnings.warn("anything else", stacklevel=1)


def test_no_name_is_taken_for_a_formula_or_left_out(tmp_path, monkeypatch, none_installed):
    texts = []
    savefig = Figure.savefig

    def keep(self, *arguments, **more):
        texts.extend(text.get_text() for text in self.findobj(lambda artist: hasattr(artist, "get_text")))
        assert not any(text.get_parse_math() for text in self.findobj(lambda artist: hasattr(artist, "get_parse_math")))
        savefig(self, *arguments, **more)

    monkeypatch.setattr(Figure, "savefig", keep)
    draw_matrix(tmp_path, *NAMES)
    pixels, labels = np.zeros((len(NAMES), 8, 8, 3), dtype=np.uint8), np.arange(len(NAMES))
    files = [f"{name}.jpg" for name in NAMES]
    plot_contact_sheet(pixels, labels, labels, np.ones(len(NAMES)), files, NAMES, tmp_path / "sheet.png", *NAMES[:2])
    plot_curves([{"epoch": 1, "train_loss": 1.0}], tmp_path / "curves.png", NAMES[0])
    shown = [name.replace("\n", "�").replace("\x1b", "�").replace("\udcff", "�") for name in NAMES]
    shown[0] = "$x 1$ and $"  # underscores between letters are spaces
    assert {*shown, *(f"100 % {name}" for name in shown)} <= set(texts)

"""Names that a file gives to classes reach what people read, in italics where it says so, and never as markup."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from naturalist.errors import UserError
from naturalist.plots.confusion_matrix import plot_confusion_matrix
from naturalist.plots.predictions import plot_contact_sheet, plot_prediction_grid
from naturalist.plots.style import new_figure, new_page
from naturalist.settings.display_names import Given, Italic, name_in_markdown, read_display_names

CLASSES = ("acer_negundo", "quercus", "rhus")


def written(folder: Path, text: str, name: str = "names.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.yaml", "acer_negundo: '*Acer negundo*'\nquercus: Oak, $x_1$ **so** <i>\n"),
        ("names.csv", 'folder,name\nacer_negundo,*Acer negundo*\nquercus,"Oak, $x_1$ **so** <i>"\n'),
    ],
)
def test_a_name_between_asterisks_is_italic_and_what_is_missing_keeps_its_folders_name(tmp_path, name, text):
    names = read_display_names(written(tmp_path, text, name), CLASSES)
    assert names == ("Acer negundo", "Oak, $x_1$ **so** <i>", "rhus")
    assert [isinstance(name, Italic) for name in names] == [True, False, False]


def test_a_folder_that_looks_like_a_name_in_italics_is_none(tmp_path):
    assert not isinstance(read_display_names(written(tmp_path, ""), ("*a*", "b"))[0], Italic)
    assert read_display_names(None, ("*a*", "b")) == ("*a*", "b")


def test_in_markdown_a_name_is_in_italics_and_nothing_else_in_it_means_anything():
    names = Italic("A <b> *x*"), Given("*A*"), "a_b*"
    assert [name_in_markdown(name) for name in names] == [r"*A \<b\> \*x\**", r"\*A\*", r"a_b\*"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("names.yaml", "acer_negund: Acer", "'acer_negund', which is no class here; did you mean acer_negundo"),
        ("names.yaml", "7: Acer", "names 7, which is no class here; valid are acer_negundo, quercus, rhus"),
        ("names.yaml", "rhus: [a, b]", "has no name for 'rhus'"),
        ("names.yaml", "rhus: '**'", "has no name for 'rhus'"),
        ("names.yaml", "rhus: Oak\nquercus: '*Oak*'", "calls two classes 'Oak'"),
        ("names.yaml", "rhus: quercus", "calls two classes 'quercus'"),
        ("names.yaml", "- a", "must hold lines of the form 'folder: name'"),
        ("names.csv", "class,name\nrhus,Sumac\n", "must begin with the line 'folder,name'"),
        ("names.csv", "folder,name\nrhus,Sumac\nrhus,Rhus\n", "names 'rhus' twice"),
        ("names.csv", "folder,name\nrhus\n", "row 2, is damaged"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, name, text, message):
    with pytest.raises(UserError, match=message):
        read_display_names(written(tmp_path, text, name), CLASSES)
    with pytest.raises(UserError, match="nowhere"):
        read_display_names(tmp_path / f"nowhere{Path(name).suffix}", CLASSES)


def test_italics_reach_every_figure_of_an_evaluation(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: (figures.append(self), path.touch()))
    names = [Italic("Acer negundo"), Given("Oak_$x_1$")]
    two, images = np.array([0, 1]), np.zeros((2, 8, 8, 3), np.uint8)
    about = (two, two[::-1], np.ones(2))
    plot_confusion_matrix(np.ones((2, 2), dtype=int), names, tmp_path / "a.png", "")
    plot_prediction_grid(images, *about, names, tmp_path / "b.png", "")
    plot_contact_sheet(images, *about, ["a/1.jpg", "b/2.jpg"], names, tmp_path / "c.png", "")
    matrix = figures[0].axes[0]
    labels = [*matrix.get_xticklabels(), *matrix.get_yticklabels()]
    texts = [text for figure in figures[1:] for text in figure.axes[0].texts]
    styles = {(text.get_text().replace("\n", " "), text.get_fontstyle()) for text in (*labels, *texts)}
    assert {("Acer negundo", "italic"), ("Oak_$x_1$", "normal"), ("is", "normal"), ("100 %", "normal")} <= styles
    assert ("is Oak_$x_1$", "normal") in styles  # on one line, as nothing in it is slanted
    assert {style for name, style in styles if "Acer" in name} == {"italic"}


@pytest.mark.parametrize("format", ["svg", "pdf"])
def test_text_stays_text_for_papers_and_the_same_figure_gives_the_same_file(tmp_path, format):
    files = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        with new_figure(folder / f"figure.{format}", 3, 2) as figure:
            page = new_page(figure)
            page.text(1, 1, "Acer $x_1$ negundo", fontstyle="italic")
            page.imshow(np.arange(12, dtype=np.uint8).reshape(2, 2, 3), extent=(0, 1, 1, 0))
        files.append((folder / f"figure.{format}").read_bytes())
    assert files[0] == files[1]
    assert b"date" not in files[0].lower()
    if format == "svg":
        assert b"Acer $x_1$ negundo" in files[0] and b"italic" in files[0]
    else:
        assert files[0].startswith(b"%PDF") and b"/Type /Font" in files[0] and b"/FontFile2" in files[0]

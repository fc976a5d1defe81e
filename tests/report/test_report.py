"""The report: it says what the folders say, and how to get what is missing; it asks nobody for anything."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import run_python
from fake_wandb import FakeWandb
from PIL import Image

from naturalist.cli import main
from naturalist.errors import UserError
from naturalist.evaluation.metrics import classification_metrics, write_predictions_csv
from naturalist.report.found import find_runs
from naturalist.report.more_images import fit_law
from naturalist.report.report import report_all
from naturalist.settings.report import ReportOptions

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CLASSES = ["Aves", "<script>alert(1)</script>", "Fungi"]
STAGES = [
    {"name": "features", "parameters": 80, "release_epoch": None},
    {"name": "top", "parameters": 10, "release_epoch": 2},
    {"name": "head", "parameters": 10, "release_epoch": 0},
]


def write_run(folder: Path, accuracy: float, *, seed: int = 0, test: bool = True, train: int = 60, **config) -> Path:
    """A finished run's folder: two epochs, the second the best, and 40 test images, of which a share is right."""
    folder.mkdir(parents=True)
    size = {"num_filters": 8, "kernel_size": 3, "dense_units": 16, "image_size": 32, "filter_organization": "same"}
    settings = {"data": "photographs/plants", "seed": seed, "split_seed": 0, **size, **config}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    summary = {"status": "finished", "parameters": 100, "multiply_accumulates": 5000, "feature_seconds": 1.0}
    summary |= {"trainable_parameters": 20, "stages": STAGES} if "strategy" in config else {}
    (folder / "summary.json").write_text(json.dumps(summary))
    known = {"fingerprint": "f", "class_names": CLASSES, "images": {"train": train, "val": 15, "unused": 0}}
    (folder / "identity.json").write_text(json.dumps(known))
    made = {"started": "2026-01-01T00:00:00+00:00", "command": "python train.py", "git": {"commit": "c0ffee" * 6}}
    (folder / "environment.json").write_text(json.dumps({**made, "python": "3.12", "cpu": "abacus"}))
    epochs = [
        {"epoch": i, "train_accuracy": a, "val_accuracy": a, "val_loss": 1.0, "epoch_seconds": 2.0}
        for i, a in ((1, accuracy / 2), (2, accuracy))
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))
    if test:
        labels = np.arange(40) % 3
        answers = np.where(np.arange(40) < 40 * accuracy, labels, (labels + 1) % 3)
        probabilities = np.full((40, 3), 0.1)
        probabilities[np.arange(40), answers] = 0.8
        output = folder / "evaluation" / "test"
        output.mkdir(parents=True)
        names = [f"{i}.jpg" for i in range(40)]
        write_predictions_csv(names, labels, probabilities, CLASSES, output / "predictions.csv")
        metrics = classification_metrics(probabilities, labels, CLASSES)
        (output / "metrics.json").write_text(json.dumps({**metrics, "fingerprint": "t"}))
        Image.effect_noise((60, 40), 50).save(output / "confusion_matrix.png")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with runs of both parts, and a sweep of twelve trials."""
    folder = tmp_path_factory.mktemp("place")
    write_run(folder / "runs" / "scratch", 0.5)
    for i, strategy in enumerate(("head", "partial")):
        adapted = {"backbone": "resnet18", "strategy": strategy, "weights": "DEFAULT"}
        write_run(folder / "runs" / strategy, 0.7 + 0.1 * i, **adapted)
    (folder / "sweeps" / "search" / "logs").mkdir(parents=True)
    for i in range(12):
        settings = {"activation": ("ReLU", "SiLU")[i % 2], "learning_rate": 0.001 * (1 + i)}
        write_run(folder / "sweeps" / "search" / "runs" / f"trial-{i}", 0.2 + 0.01 * i, test=False, **settings)
    looks = {"test_set": "t", "run": "scratch", "epoch": 2, "accuracy": 0.5, "when": "now"}
    lines = [json.dumps({**looks, "checkpoint": name}) for name in ("a", "b", "a")]
    (folder / "runs" / "test_looks.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "unfinished" / "stopped").mkdir(parents=True)
    (folder / "unfinished" / "stopped" / "config.yaml").write_text("data: plants\n")
    return folder


@pytest.fixture(scope="module")
def page(place) -> str:
    pytest.importorskip("plotly")
    folders = [place / name for name in ("runs", "sweeps", "unfinished")]
    return report_all(ReportOptions(folders=folders, audit=place / "none", out=place / "page.html")).read_text()


def test_the_page_says_what_the_folders_say(page):
    text = re.sub(r"\s+", " ", page)
    assert "scratch is right about 50.0 % of 40 test images (95 % interval 35.2 % to 64.8 %, Wilson)" in text
    assert "Fine-tuned is 30.0 points above scratch on 40 test images: 12 only fine-tuned gets right, 0 only" in text
    assert "McNemar&#39;s exact test, p = 0.00049" in text
    assert "the best, trial-11, has a validation accuracy of 31.0 %" in text
    assert "100 parameters and 5,000 multiply–accumulates" in text
    # 28·8 + 4·73·8 + (8 + 1)·16 + 17·3; the sides of images and maps are 32, 16, 8, 4, 2, 1
    assert "C = 3 and images of 32 px that is 2,755 parameters and" in text
    assert '<th scope="row">partial</th><td>80 of 100</td><td>top from epoch 3; head</td><td>features</td>' in text
    assert "The test set was looked at 2 times" in text and "c0ffeec0" in text and "abacus" in text
    assert "Left out, for they have not finished or have failed: stopped." in text


def test_the_most_confused_pair_comes_first(page):
    rows = page.split("Pairs of classes that are confused most.</caption>")[1].split("<tbody>")[1].split("</tbody>")[0]
    counts = [int(count) for count in re.findall(r"<td>(\d+)</td>", rows)]
    assert counts == sorted(counts, reverse=True) and sum(counts) == 20


def test_what_is_missing_is_named_with_its_command(page):
    missing = re.findall(r'<div class="missing".*?</div>', page, re.DOTALL)
    commands = " ".join(missing)
    assert "python -m naturalist audit" in commands and "--train_fraction" in commands
    assert "naturalist explain" in commands and "naturalist sweep" not in commands


def test_the_page_needs_nothing_else_and_is_no_ones_script(page):
    assert len(page.encode()) < 6e6
    assert "default-src 'none'" in page
    own = re.sub(r'<script type="text/plain".*?</script>', "", page, flags=re.DOTALL)
    assert re.findall(r"""(?:src|href)=["'](?!data:|#)[^"']*""", own) == []
    assert "<script>alert" not in page
    assert all(re.search(r'alt="[^"]{20}', image) for image in re.findall(r"<img [^>]*>", own))


def test_without_runs_every_section_says_how_to_make_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report"]) == 0
    page = (tmp_path / "report.html").read_text()
    for command in ("partA/train.py", "partB/finetune.py", "partB/compare.py", "naturalist sweep", "naturalist audit"):
        assert command in page and command in capsys.readouterr().out + page


def test_markdown_has_the_same_and_its_pictures_beside_it(place, tmp_path):
    options = ReportOptions(folders=[place / "runs"], audit=place / "none", format="md", out=tmp_path / "page.md")
    text = report_all(options).read_text()
    assert "right about 50.0 % of 40 test images" in text and "<script>" not in text
    pictures = re.findall(r"!\[[^\]]{20,}\]\((.*?)\)", text)
    assert len(pictures) == len(set(pictures)) >= 6
    assert all((tmp_path / picture).is_file() for picture in pictures)
    assert "| partial | 80 of 100 | top from epoch 3; head | features |" in text


AUDIT = {
    "data": "plants",
    "pictures": "svg",
    "splits": {"train": {"files": 75}, "test": {"files": 40}},
    "classes": [{"class": name, "split": split, "files": 5} for name in CLASSES for split in ("train", "test")],
    "missing_in_test": ["Aves"],
    "unknown_in_test": {},
    "suspicious": {"small": 1},
    "duplicates": {name: {"images": 1, "same_bytes": 0, "other_class": 0} for name in ("leaks", "conflicts", "copies")},
    "with_place": 0,
    "guessed_by": {"largest class": 0.3, "camera": 0.3},
    "label_errors": {
        "run": "scratch",
        "split": "val",
        "images": 15,
        "accuracy": 0.5,
        "suspects": 1,
        "pairs": [{"label": "Aves", "suggested": "Fungi", "images": 1}],
    },
}


def test_names_of_a_file_are_in_italics_and_escaped_on_the_page_and_in_markdown(place, tmp_path):
    names = tmp_path / "names.yaml"
    names.write_text(yaml.safe_dump({"Aves": "*Turdus <b>m_</b>*", CLASSES[1]: "*b* & c"}))
    (tmp_path / "audit.json").write_text(json.dumps(AUDIT))
    options = {"folders": [place / "runs" / "scratch"], "audit": tmp_path, "display_names": names}
    page = report_all(ReportOptions(**options, out=tmp_path / "page.html")).read_text()
    text = report_all(ReportOptions(**options, format="md", out=tmp_path / "page.md")).read_text()
    for said, name in ((page, "<em>Turdus &lt;b&gt;m_&lt;/b&gt;</em>"), (text, r"*Turdus \<b\>m\_\</b\>*")):
        assert f"Of {name} there are training images" in said and f"Most often: {name} → Fungi 1" in said
        assert said.count(name) >= 6 and "Aves" not in said and "\ufdd0" not in said
    assert '<th scope="row">*b* &amp; c</th>' in page and r"| \*b\* \& c | " in text
    assert "1 of 15 val images is probably labelled wrong" in page and f"{tmp_path.name}/label_errors.svg" in page
    assert "pictures are SVG, and this page takes PNG alone" in page
    names.write_text("Avess: Birds")
    with pytest.raises(UserError, match="names 'Avess', which is no class here; did you mean Aves?"):
        report_all(ReportOptions(**options, out=tmp_path / "none.html"))
    assert not (tmp_path / "none.html").exists()


def test_pictures_last_drawn_for_papers_are_named_with_the_command_that_draws_them_for_the_page(tmp_path):
    run = write_run(tmp_path / "runs" / "papers", 0.5)
    measured = run / "evaluation" / "test"
    (measured / "confusion_matrix.svg").write_text("<svg/>")
    os.utime(measured / "confusion_matrix.png", (0, 0))
    (run / "explanation").mkdir()
    for name in ("filters.pdf", "exciting.svg"):
        (run / "explanation" / name).write_bytes(b"")
    Image.new("RGB", (60, 40)).save(run / "explanation" / "feature_maps.png")
    options = ReportOptions(folders=[run], audit=tmp_path, format="md", out=tmp_path / "page.md")
    text = report_all(options).read_text()
    assert "The last pictures in test are SVG, and this page takes PNG alone" in text
    assert "The last pictures in explanation are PDF and SVG, and this page takes PNG alone" in text
    assert "![Confusion" not in text and "![What the first convolution makes" in text


def test_runs_on_other_images_are_left_out_and_named(place, tmp_path):
    other = write_run(tmp_path / "runs" / "other", 0.9, test=False)
    (other / "identity.json").write_text(json.dumps({"fingerprint": "g", "class_names": CLASSES}))
    found = find_runs([place / "runs", tmp_path / "runs"])
    assert [run.run.name for run in found.runs] == ["head", "partial", "scratch"]
    assert found.notes == ["Left out, for they are on other images: other."]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", "{"),
        ("identity.json", '{"fingerprint": 5}'),
        ("environment.json", '{"git": 5}'),
        ("evaluation/test/metrics.json", '{"accuracy": 2, "balanced_accuracy": 0}'),
        ("evaluation/test/predictions.csv", "nonsense"),
    ],
)
def test_a_damaged_record_is_one_sentence_and_leaves_no_page(tmp_path, name, content):
    run = write_run(tmp_path / "runs" / "run", 0.5)
    (run / name).write_text(content)
    with pytest.raises(UserError, match=re.escape(Path(name).name)):
        report_all(ReportOptions(folders=[tmp_path / "runs"], audit=tmp_path, out=tmp_path / "page.html"))
    assert not (tmp_path / "page.html").exists()


def test_what_cannot_be_a_report_is_refused(tmp_path):
    for folders, out, words in (
        ([tmp_path / "none"], "page.html", "there is no folder"),
        ([tmp_path], "page.html", "holds no runs"),
        ([tmp_path], ".", "is a folder"),
    ):
        with pytest.raises(UserError, match=words):
            report_all(ReportOptions(folders=folders, out=tmp_path / out))


def test_more_photographs_bring_what_a_power_law_says_or_nothing_is_said():
    images = [10, 10, 20, 40, 80]
    law = fit_law(images, [1 - 0.9 * n**-0.3 for n in images])
    assert law is not None and law.power == pytest.approx(0.3) and law.factor == pytest.approx(0.9)
    assert law.gain(80, 80, law.power) == pytest.approx(0.9 * 80**-0.3 * (1 - 2**-0.3))
    noisy = fit_law(images, [0.5, 0.6, 0.4, 0.6, 0.5])
    assert noisy is None and fit_law([10, 20], [0.3, 0.4]) is None and fit_law([10, 10, 20, 20], [0.3] * 4) is None


def test_the_growth_of_runs_with_a_part_of_the_images_is_drawn(tmp_path):
    for i, share in enumerate((0.25, 0.5, 1.0, 1.0)):
        accuracy = 1 - 0.8 * (share * 40) ** -0.3 + 0.002 * (i % 2)
        count = int(120 * share)
        write_run(tmp_path / "runs" / str(i), accuracy, seed=i, test=False, train=count, train_fraction=share)
    options = ReportOptions(folders=[tmp_path / "runs"], format="md", audit=tmp_path, out=tmp_path / "page.md")
    text = report_all(options).read_text()
    assert "10 more photographs a class than 40 would bring" in text
    assert "100 more photographs a class than 40 would bring" in text
    assert (tmp_path / "page-pictures" / "growth-0.png").is_file()


def test_publishing_needs_the_library_and_a_login_and_says_so_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    options = ReportOptions(folders=[tmp_path], out=tmp_path / "page.html", wandb=True)
    with pytest.raises(UserError, match=r"pip install 'naturalist\[wandb-report\]'"):
        report_all(options)
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_published_with_its_sections_and_panels_or_the_server_s_refusal_is_one_sentence(place, tmp_path):
    pytest.importorskip("wandb_workspaces")
    words = ["-m", "naturalist", "report", place / "runs", "--wandb", "--out"]
    with FakeWandb() as server:
        done = run_python(*words, "page.html", cwd=tmp_path, env=server.env(tmp_path))
        server.answer_upsert_view = None
        refused = run_python(*words, "other.html", cwd=tmp_path, env=server.env(tmp_path))
    (published,) = server.reports
    assert f"W&B: {server.url}/local/naturalist/reports/" in done.stdout and done.returncode == 0
    blocks = json.loads(published["spec"])["blocks"]
    assert [block["children"][0]["text"] for block in blocks if block["type"] == "heading"][:2] == ["In short", "Data"]
    assert any("scratch is right about 50.0 %" in block.get("content", "") for block in blocks)
    (grid,) = [block for block in blocks if block["type"] == "panel-grid"]
    assert "parallel" in json.dumps(grid).lower()
    assert refused.returncode == 2 and "the fake server does not know" in refused.stderr
    assert re.fullmatch(r"error: W&B did not take the report \(.*\); the page itself is written.\n", refused.stderr)
    assert (tmp_path / "other.html").is_file()
    gone = run_python(*words, "none.html", cwd=tmp_path, env=server.env(tmp_path))  # the server has ended
    assert gone.returncode == 2 and "does not answer (Connection refused); try again later" in gone.stderr
    assert not (tmp_path / "none.html").exists()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.slow
def test_in_a_browser_the_parallel_coordinates_can_be_brushed_and_nothing_is_asked_for(page, place):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        graphics = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *graphics])
        for width in (1280, 390):
            tab = browser.new_page(viewport={"width": width, "height": 900})
            asked, said = [], []
            tab.on("request", lambda request, asked=asked: asked.append(request.url))
            tab.on("console", lambda message, said=said: said.append(message.text) if message.type == "error" else None)
            tab.on("pageerror", lambda error, said=said: said.append(str(error)))
            tab.goto((place / "page.html").as_uri())
            axis = tab.locator(".plot .axis-brush .background").first
            axis.wait_for(timeout=60_000)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            axis.scroll_into_view_if_needed()
            box = axis.bounding_box()
            tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + 2)
            tab.mouse.down()
            tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
            tab.mouse.up()
            tab.get_by_text(re.compile(r"^6 of 12 runs; the best of them: trial-\d+")).wait_for()
            assert said == [] and all(url.startswith(("file:", "data:", "blob:")) for url in asked)
        browser.close()

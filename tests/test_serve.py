"""The page, in a real browser where there is one."""

import json
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import requests
from conftest import start_python
from PIL import Image
from quick_runs import make_run

from naturalist.data.sources.sample import make_sample
from naturalist.errors import UserError
from naturalist.evaluation.metrics import write_predictions_csv
from naturalist.evaluation.selective import Threshold
from naturalist.printable import in_markdown
from naturalist.runs.checkpoint import load_checkpoint
from naturalist.runs.identity import read_identity
from naturalist.serve import make_answer, serve_run
from naturalist.serve_facts import find_examples, read_facts
from naturalist.settings.display_names import read_display_names

COVERED = """() => {
    const shape = element => element.getBoundingClientRect(), overlap = (a, b) =>
        a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
    const words = [...document.querySelectorAll("label, .caption-label, .prose")].filter(e => e.innerText.trim());
    return [...document.images].filter(image => image.offsetWidth).flatMap(image =>
        words.filter(word => word.offsetWidth > 1 && overlap(shape(word), shape(image))).map(word => word.innerText));
}"""
"""JavaScript: the words that cover a picture."""

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    make_run(folder / "runs" / "first", make_sample(folder / "pictures", train_images=50, test_images=10))
    (folder / "letter.jpg").write_text("This is no photograph.")
    return folder


@pytest.fixture(scope="module")
def server(place):
    """The page's address."""
    pytest.importorskip("gradio", reason="gradio is not installed (requirements-app.txt)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = ("--port", port, "--max_megabytes", 1)
    process = start_python("-m", "naturalist", "serve", place / "runs" / "first", *flags, cwd=place)
    line = process.stdout.readline()
    assert "Serving" in line, line + process.stdout.read()
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    assert process.wait(timeout=30) in (0, 130)


def a_photo(place: Path) -> Path:
    return sorted((place / "pictures" / "test").glob("*/*.jpg"))[0]


def test_the_answer_names_the_class_and_shows_where_the_evidence_lies(place):
    name, answer = make_answer(place / "runs" / "first", "cpu")
    sentence, probabilities, picture, heat = answer(str(a_photo(place)))
    assert name == "first"
    best = max(probabilities, key=probabilities.get)
    assert best in sentence
    assert sum(probabilities.values()) == pytest.approx(1)
    assert picture.shape == heat.shape
    assert (picture != heat).any()


def test_every_class_has_its_bar_and_no_name_is_taken_for_markup(tmp_path, own_photographs):
    for folder, name in zip(
        sorted((own_photographs / "train").iterdir()), ("a b", "a_b", "*<b>*", "$$x$$"), strict=True
    ):
        folder.rename(folder.with_name(name))
        (own_photographs / "test" / folder.name).rename(own_photographs / "test" / name)
    run = make_run(tmp_path / "runs" / "r", own_photographs)
    _, answer = make_answer(run, "cpu")
    photo = str(next((own_photographs / "test").glob("*/*.jpg")))
    sentence, probabilities, *_ = answer(photo)
    assert set(probabilities) == {"a b", "a_b", "*<b>*", "$$x$$"}
    assert sentence == f"Most likely **{in_markdown(max(probabilities, key=probabilities.get))}**."
    names, checkpoint = tmp_path / "names.yaml", load_checkpoint(run)
    names.write_text("{'a b': '*Aves <b>*', a_b: '*so', '*<b>*': '*Turdus*', '$$x$$': x_x}")
    sentence, probabilities, *_ = make_answer(run, "cpu", display_names=names)[1](photo)
    in_italics = {"Aves <b>": r"*Aves \<b\>*", "*so": r"\*so", "Turdus": "*Turdus*", "x_x": "x_x"}
    assert set(probabilities) == set(in_italics)
    assert sentence == f"Most likely **{in_italics[max(probabilities, key=probabilities.get)]}**."
    listed = ", ".join(in_italics[name] for name in read_display_names(names, checkpoint["class_names"]))
    assert read_facts(run, checkpoint, names).knows.endswith(f": {listed}.")
    assert {example.class_name for example in find_examples(run, checkpoint, names)} == set(in_italics)
    names.write_text("a c: Aves")
    with pytest.raises(UserError, match="names 'a c', which is no class here; did you mean a b?"):
        serve_run(run, display_names=names)


def test_a_file_that_is_no_image_gets_a_sentence(place):
    _, answer = make_answer(place / "runs" / "first", "cpu")
    sentence, *rest = answer(str(place / "letter.jpg"))
    assert sentence == "This file cannot be read as a photograph: no image."
    assert rest == [None, None, None]


def measured(run: Path, split: str, **changes: object) -> None:
    """As if the run had been evaluated: the surest thirty of fifty images are right, of the others every fourth."""
    names = load_checkpoint(run)["class_names"]
    confidence = np.r_[np.full(20, 0.95), np.full(10, 0.9), np.full(20, 0.5)]
    probabilities = np.tile(((1 - confidence) / (len(names) - 1))[:, None], len(names))
    probabilities[:, 0] = confidence
    labels = np.r_[np.zeros(30, int), np.tile([0, 1, 1, 1], 5)]
    folder = run / "evaluation" / split
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions_csv([f"{i}.jpg" for i in range(50)], labels, probabilities, names, folder / "predictions.csv")
    metrics = {"accuracy": 0.7, "accuracy_95_interval": [0.56, 0.81], "n": 50, "epoch": 3, "data": "/x/my_birds"}
    (folder / "metrics.json").write_text(json.dumps(metrics | changes))


@pytest.fixture
def run(tmp_path, own_photographs) -> Path:
    return make_run(tmp_path / "runs" / "r", own_photographs)


def test_the_page_says_what_the_run_knows_and_which_command_measures_it(run):
    checkpoint = load_checkpoint(run)
    facts = read_facts(run, checkpoint)
    assert all(name in facts.knows for name in checkpoint["class_names"])
    command = in_markdown(f"python -m naturalist evaluate {run}")
    assert facts.quality == f"How good it is, nobody knows: it was never measured on its test set; {command} does it."
    assert f"{command} --split val does it" in facts.doubt
    assert facts.threshold is None


def test_the_page_says_how_good_the_run_is_and_when_it_is_unsure(run):
    measured(run, "test")
    measured(run, "val")
    facts = read_facts(run, load_checkpoint(run))
    assert "(my_birds) it was right about 70.0 % of 50 images (95 % interval 56.0 % to 81.0 %)" in facts.quality
    assert (
        "unsure below a confidence of 90.0 %. On 50 validation images 60.0 % of its answers reached that" in facts.doubt
    )
    assert "100.0 % of these were right, and 25.0 % of the others" in facts.doubt


def test_what_was_measured_of_another_epoch_is_not_said_of_this_one(run):
    for split in ("test", "val"):
        measured(run, split, epoch=2)
    facts = read_facts(run, load_checkpoint(run))
    assert "it is of epoch 3, and what was measured on its test set is of epoch 2" in facts.quality
    assert facts.threshold is None


def test_damaged_numbers_are_named(run):
    measured(run, "test", accuracy=2)
    with pytest.raises(UserError, match="metrics.json is damaged"):
        read_facts(run, load_checkpoint(run))


@pytest.mark.parametrize(
    ("threshold", "below", "words"),
    [
        (0.0, 0.25, "It is sure"),
        (1.0, 0.25, "**It is unsure**"),
        (1.0, None, "less than on any validation image"),
    ],
)
def test_an_answer_says_whether_it_is_sure(place, threshold, below, words):
    fitted = Threshold(threshold, images=50, coverage=0.5, accuracy=0.9, accuracy_below=below)
    _, answer = make_answer(place / "runs" / "first", "cpu", fitted)
    sentence = answer(str(a_photo(place)))[0]
    assert sentence.startswith("Most likely **")
    assert words in sentence


def test_examples_are_of_validation_and_as_they_were(run, own_photographs, capsys):
    checkpoint = load_checkpoint(run)
    recorded = {own_photographs / "train" / file.path for file in read_identity(run, checkpoint).split.of("val")}
    examples = find_examples(run, checkpoint)
    assert {example.path for example in examples} <= recorded
    assert {example.class_name for example in examples} == set(checkpoint["class_names"])
    changed = examples[0].path
    Image.new("RGB", (20, 20)).save(changed)
    assert changed not in {example.path for example in find_examples(run, checkpoint)}
    (own_photographs / "train").rename(own_photographs / "elsewhere")
    assert find_examples(run, checkpoint) == []
    assert "The page shows no example photographs" in capsys.readouterr().out


def test_the_page_listens_on_loopback_only_and_refuses_large_files(server):
    port = int(server.rpartition(":")[2])
    listening = (
        [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"]
        if Path("/proc/net/tcp").exists()
        else [f"0100007F:{port:04X}"]
    )
    assert [address for address in listening if address.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]
    for size, status in ((1000, 200), (2 * 2**20, 413)):
        reply = requests.post(f"{server}/gradio_api/upload", files={"files": ("a.jpg", b"\0" * size)}, timeout=30)
        assert reply.status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:{port}"}, 200),
        ({"Origin": "http://127.0.0.1:{port}"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:{port}"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_a_request_that_another_site_sends_is_refused(headers, status, server):
    port = server.rpartition(":")[2]
    headers = {name: value.format(port=port) for name, value in headers.items()}
    for path in ("/", "/config", "/gradio_api/info"):
        assert requests.get(server + path, headers=headers, timeout=30).status_code == status


def test_a_request_of_many_small_files_is_refused_as_a_whole(server):
    files = [("files", (f"{number}.jpg", b"\0" * 2**19)) for number in range(5)]
    assert requests.post(f"{server}/gradio_api/upload", files=files, timeout=30).status_code == 413


def test_a_request_that_hides_its_length_is_cut_off(server):
    def chunks():
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
        for _ in range(40):
            yield b"\0" * 2**19

    kept = {"Content-Type": "multipart/form-data; boundary=x"}
    try:
        status = requests.post(f"{server}/gradio_api/upload", data=chunks(), headers=kept, timeout=30).status_code
    except requests.ConnectionError:
        status = 413
    assert status >= 400


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_in_a_browser_a_photograph_gets_bars_and_grad_cam_and_anything_else_a_sentence(server, place):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        asked = []
        errors = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server)
        page.wait_for_selector("input[type=file]", state="attached", timeout=60_000)
        assert not page.is_visible("#heat")
        assert not page.is_visible("#confidence")
        assert "never measured on its test set" in page.inner_text("#facts")
        page.set_input_files("input[type=file]", a_photo(place))
        page.wait_for_selector("#heat img", timeout=60_000)
        page.wait_for_selector("#picture img")
        best = re.search(r"Most likely (.+)\.", page.inner_text("#sentence"))[1]
        assert best in page.inner_text("#confidence")
        assert "%" in page.inner_text("#confidence")
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(COVERED) == []
        assert page.evaluate("[...document.images].filter(image => image.offsetWidth && !image.alt).length") == 0
        page.reload()
        page.set_input_files("input[type=file]", place / "letter.jpg")
        sentence = page.get_by_text("This file cannot be read as a photograph: no image.")
        sentence.wait_for(timeout=60_000)
        assert not page.is_visible("#heat")
        assert all(url.startswith((server, "data:", "blob:")) for url in asked)
        assert errors == []
        browser.close()

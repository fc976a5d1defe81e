"""The page, in a real browser where there is one."""

import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from quick_runs import make_run

from naturalist.data.sources.sample import make_sample
from naturalist.printable import in_markdown
from naturalist.serve import make_answer

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
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "naturalist",
            "serve",
            str(place / "runs" / "first"),
            "--port",
            str(port),
            "--max_megabytes",
            "1",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
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
    _, answer = make_answer(make_run(tmp_path / "runs" / "r", own_photographs), "cpu")
    sentence, probabilities, *_ = answer(str(next((own_photographs / "test").glob("*/*.jpg"))))
    assert set(probabilities) == {"a b", "a_b", "*<b>*", "$$x$$"}
    assert sentence == f"Most likely **{in_markdown(max(probabilities, key=probabilities.get))}**."


def test_a_file_that_is_no_image_gets_a_sentence(place):
    _, answer = make_answer(place / "runs" / "first", "cpu")
    sentence, *rest = answer(str(place / "letter.jpg"))
    assert sentence == "This file cannot be read as a photograph: no image."
    assert rest == [None, None, None]


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
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server)
        page.set_input_files("input[type=file]", a_photo(place))
        page.wait_for_selector("#heat img", timeout=60_000)
        page.wait_for_selector("#picture img")
        best = re.search(r"Most likely (.+)\.", page.inner_text("#sentence"))[1]
        assert best in page.inner_text("#confidence")
        assert "%" in page.inner_text("#confidence")
        page.reload()
        page.set_input_files("input[type=file]", place / "letter.jpg")
        sentence = page.get_by_text("This file cannot be read as a photograph: no image.")
        sentence.wait_for(timeout=60_000)
        assert all(url.startswith((server, "data:", "blob:")) for url in asked)
        browser.close()

"""``python -m naturalist predict`` as its users run it, and checkpoints that nobody should trust."""

import csv
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_python, start_python
from PIL import Image
from quick_runs import make_run

from naturalist.cli import main
from naturalist.data.sources.sample import make_sample
from naturalist.errors import UserError
from naturalist.evaluation.classifier import load_classifier
from naturalist.evaluation.predict import _listed, predict_photos
from naturalist.files import restored


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """``runs/first``, whose data is gone, and ``photos`` with seven photographs, two in a subfolder, and a text."""
    folder = tmp_path_factory.mktemp("place")
    data = make_sample(folder / "pictures", train_images=50, test_images=10)
    make_run(folder / "runs" / "first", data)
    (folder / "photos" / "sub").mkdir(parents=True)
    for number, path in enumerate(sorted((data / "test").glob("*/*.jpg"))[:7]):
        shutil.copy(path, folder / "photos" / ("sub" if number > 4 else ".") / f"{number}.jpg")
    (folder / "photos" / "notes.txt").write_text("no photograph")
    shutil.rmtree(data)
    return folder


def run_main(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_folder_is_searched_and_the_checkpoint_alone_is_enough(place, tmp_path, capsys):
    checkpoint = shutil.copy(place / "runs" / "first" / "best.pt", tmp_path / "mine.pt")
    code, out, _ = run_main(capsys, "predict", checkpoint, place / "photos")
    heading, *lines = out.splitlines()
    assert code == 0
    assert heading.split() == ["prediction", "conf.", "then", "photograph"]
    assert [line.split()[-1] for line in lines] == [
        str(place / "photos" / name) for name in ("0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg", "sub/5.jpg", "sub/6.jpg")
    ]


def test_json_and_csv_say_what_the_model_says_whatever_the_batch_size(place, capsys):
    run = place / "runs" / "first"
    photos = sorted((place / "photos").glob("*.jpg"))
    _, as_json, _ = run_main(capsys, "predict", run, *photos, "--json", "--top", 10, "--batch_size", 2)
    _, as_csv, _ = run_main(capsys, "predict", run, *photos, "--csv", "--top", 2)
    classifier = load_classifier(run, "cpu")
    expected = classifier.probabilities(np.stack([classifier.decode(path) for path in photos]))
    rows = list(csv.DictReader(io.StringIO(as_csv)))
    for line, row, path, probabilities in zip(as_json.splitlines(), rows, photos, expected, strict=True):
        said = json.loads(line)
        assert said["file"] == row["file"] == str(path)
        order = [classifier.class_names[i] for i in np.argsort(-probabilities)]
        assert [entry["class"] for entry in said["top"]] == order
        assert (row["class_1"], row["class_2"]) == tuple(order[:2])
        assert said["confidence"] == pytest.approx(probabilities.max(), abs=1e-5)
        assert said["prediction"] == row["prediction"] == order[0]


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "ascii"])
def test_what_programs_read_is_utf8_whatever_the_terminal_is(place, tmp_path, monkeypatch, encoding):
    photo = shutil.copy(place / "photos" / "0.jpg", tmp_path / "é猫🐱.jpg")
    for flag, read in (("--json", json.loads), ("--csv", str)):
        output = io.TextIOWrapper(io.BytesIO(), encoding, errors="backslashreplace", write_through=True)
        monkeypatch.setattr(sys, "stdout", output)
        main(["predict", str(place / "runs" / "first"), str(photo), flag])
        assert "é猫🐱.jpg" in str(read(output.buffer.getvalue().decode("utf-8")))


def test_below_the_threshold_it_is_none_of_these(place, capsys):
    run, photos = place / "runs" / "first", place / "photos"
    _, out, _ = run_main(capsys, "predict", run, photos, "--json")
    confidences = [json.loads(line)["confidence"] for line in out.splitlines()]
    threshold = sorted(confidences)[3]
    _, out, _ = run_main(capsys, "predict", run, photos, "--json", "--threshold", threshold - 1e-4)
    said = [json.loads(line)["prediction"] for line in out.splitlines()]
    assert [prediction == "none of these" for prediction in said] == [c < threshold - 1e-4 for c in confidences]
    assert said.count("none of these") == 3


def test_unreadable_files_are_named_and_skipped_with_exit_code_1(place, tmp_path):
    good = place / "photos" / "0.jpg"
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:2000])
    paths = f"{good}\n{tmp_path / 'cut.jpg'}\n{tmp_path / 'nowhere.jpg'}\n{place / 'photos' / 'notes.txt'}\n"
    command = ("-m", "naturalist", "predict", place / "runs" / "first", "-", "--json")
    with start_python(*command, cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as predicting:
        output, errors = predicting.communicate(paths)
    assert predicting.returncode == 1
    assert [json.loads(line)["file"] for line in output.splitlines()] == [str(good)]
    for name in ("cut.jpg", "nowhere.jpg", "notes.txt"):
        assert errors.count(f"{name}: ") == 1
    assert "3 of 4 files could not be read" in errors


def test_a_large_folder_is_predicted_in_flat_memory(place, tmp_path):
    """300 files of 1.4 MB: kept, their bytes alone would take more than is allowed."""
    Image.effect_noise((2000, 1400), 50).convert("RGB").save(tmp_path / "0.jpg", quality=60)
    for number in range(1, 300):
        (tmp_path / f"{number}.jpg").hardlink_to(tmp_path / "0.jpg")
    run = str(place / "runs" / "first")
    code = (
        "import resource, sys; from pathlib import Path; from naturalist.evaluation.predict import predict_photos;"
        f"run, photos = Path({run!r}), sorted(map(str, Path({str(tmp_path)!r}).iterdir()));"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024;"
        "predict_photos(run, photos[:50], batch_size=16); before = peak();"
        "predict_photos(run, photos, batch_size=16); print(peak() - before, file=sys.stderr)"
    )
    done = run_python("-c", code, cwd=tmp_path, fresh=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stderr.splitlines()[-1]) < 100  # MB


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--threshold", "1.5"), "--threshold cannot be 1.5"),
        (("--top", "0"), "--top cannot be 0"),
        (("--batch_size", "0"), "--batch_size cannot be 0"),
    ],
)
def test_impossible_settings_are_refused(place, arguments, message):
    with pytest.raises(UserError, match=message):
        main(["predict", str(place / "runs" / "first"), str(place / "photos"), *arguments])


def test_photographs_that_need_a_library_or_converting_are_named_and_not_passed_by(place, tmp_path, capsys):
    for name in ("a.HEIC", "b.jxl", "c.jp2", "d.avif"):
        (tmp_path / name).write_bytes(b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(50))
    code, _, err = run_main(capsys, "predict", place / "runs" / "first", tmp_path)
    assert code == 1
    assert err.count("JPEG XL; convert it to PNG or JPEG") == 4


def test_a_folder_without_photographs_is_refused(place, tmp_path):
    with pytest.raises(UserError, match="holds no photographs"):
        main(["predict", str(place / "runs" / "first"), str(tmp_path)])


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


@pytest.mark.parametrize("kind", ["text", "truncated", "pickle", "torch pickle", "state dict", "odd description"])
@pytest.mark.parametrize("verb", ["predict", "export"])
def test_what_is_no_checkpoint_is_refused_in_one_sentence_and_nothing_in_it_runs(place, tmp_path, verb, kind):
    good, bad, trace = place / "runs" / "first" / "best.pt", tmp_path / "bad.pt", tmp_path / "executed"
    if kind == "text":
        bad.write_text("hello")
    elif kind == "truncated":
        bad.write_bytes(good.read_bytes()[:-3000])
    elif kind == "pickle":
        bad.write_bytes(pickle.dumps(Bomb(trace)))
    elif kind == "torch pickle":
        torch.save({"format": "naturalist-1", "model": Bomb(trace)}, bad)
    elif kind == "state dict":
        torch.save({"weight": torch.zeros(3)}, bad)
    else:
        content = torch.load(good, weights_only=True)
        content["model"]["num_filters"] = "many"
        torch.save(content, bad)
    with pytest.raises(UserError) as error:
        main([verb, str(bad), *([str(place / "photos")] if verb == "predict" else [])])
    assert not trace.exists()
    assert "\n" not in str(error.value)


ODD_NAMES = [
    b"two\nlines.jpg",
    "a\u2028b.jpg".encode(),
    b"\xff.jpg",
    b"\x1b[31m.jpg",
    b"=1.jpg",
    b'"x".jpg',
    "ä.jpg".encode(),
]


@pytest.mark.parametrize("flags", [["-0"], ["--null"], []])
def test_a_list_separated_by_nul_may_name_any_file(place, tmp_path, capsys, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    for name in ODD_NAMES:
        shutil.copy(place / "photos" / "0.jpg", os.fsdecode(name))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\0".join([*ODD_NAMES, b""]))))
    code, out, _ = run_main(capsys, "predict", place / "runs" / "first", "-", "--csv", *flags)
    _, *rows = csv.reader(io.StringIO(out))
    assert code == 0
    assert [row[0] for row in rows] == [
        *(r'"two\nlines.jpg"', r'"a\u2028b.jpg"', r'"\udcff.jpg"', r'"\u001b[31m.jpg"', "'=1.jpg", r'"\"x\".jpg"'),
        "ä.jpg",
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
@pytest.mark.parametrize("format", ["json", "csv", "table"])
def test_names_lead_back_to_their_files_and_are_printed_safely(place, tmp_path, monkeypatch, capsys, format, encoding):
    for name in ODD_NAMES:
        shutil.copy(place / "photos" / "0.jpg", tmp_path / os.fsdecode(name))
    monkeypatch.chdir(tmp_path)
    stream = io.BytesIO()
    stdout = io.TextIOWrapper(stream, encoding=encoding, errors="backslashreplace")
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", stdout)
        predict_photos(place / "runs" / "first", [os.fsdecode(name) for name in ODD_NAMES], format=format, top=1)
        stdout.flush()
    text = stream.getvalue().decode(encoding if format == "table" else "utf-8")
    assert text.replace("\n", "").isprintable()
    if format == "json":
        found = [json.loads(line)["file"] for line in text.splitlines()]
    elif format == "csv":
        found = [restored(row)[0] for row in csv.reader(io.StringIO(text))][1:]
        found = [json.loads(name) if name.startswith('"') else name for name in found]
    else:
        assert len(text.splitlines()) == 1 + len(ODD_NAMES)
        return
    assert [os.fsencode(name) for name in found] == ODD_NAMES


def test_lines_of_a_list_end_at_line_ends_and_nowhere_else():
    lines = "a\u2028b.jpg\r\n c.jpg\n\nd\x85e.jpg".encode()
    assert _listed(lines, null=False) == [Path("a\u2028b.jpg"), Path(" c.jpg"), Path("d\x85e.jpg")]


def test_outputs_that_are_no_numbers_are_refused_and_not_shown_as_nan(place, tmp_path, capsys):
    checkpoint = tmp_path / "huge.pt"
    content = torch.load(place / "runs" / "first" / "best.pt", weights_only=True)
    for name in ("dense.bias", "output.weight"):
        content["state_dict"][name].fill_(1e30)  # which is finite, and its square is not
    torch.save(content, checkpoint)
    with pytest.raises(UserError, match="outputs are not finite: the checkpoint's weights are damaged"):
        main(["predict", str(checkpoint), str(place / "photos")])
    assert "nan" not in capsys.readouterr().out

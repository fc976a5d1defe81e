"""Exported networks say what torch says, and carry all that is needed to use them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from quick_runs import make_run

from naturalist.data.decode import decode_file
from naturalist.data.preprocessing import Preprocessing
from naturalist.data.sources.sample import make_sample
from naturalist.errors import UserError
from naturalist.evaluation.classifier import load_classifier
from naturalist.export import EXAMPLES, describe_preprocessing, export_run

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return make_sample(tmp_path_factory.mktemp("data") / "pictures", train_images=50, test_images=10)


@pytest.mark.parametrize(
    ("activation", "pooling"),
    [
        ("ReLU", "flatten"),
        ("GELU", "average"),
        ("SiLU", "flatten"),
        ("Mish", "average"),
        ("ReLU", "average"),
        ("GELU", "flatten"),
        ("SiLU", "average"),
        ("Mish", "flatten"),
    ],
)
def test_onnx_and_torch_agree_for_every_activation_and_pooling(tmp_path, pictures, activation, pooling, capsys):
    run = make_run(tmp_path / "runs" / "first", pictures, activation=activation, pooling=pooling)
    assert export_run(run) < 1e-3
    printed = capsys.readouterr().out
    assert "largest difference of a logit from torch's" in printed
    assert "on 10 images held out in training" in printed
    session = onnxruntime.InferenceSession(run / "model.onnx")
    classifier = load_classifier(run, "cpu")
    for batch in (1, 5):
        images = torch.randn(batch, 3, 32, 32)
        (logits,) = session.run(None, {"images": images.numpy()})
        assert logits == pytest.approx(classifier.model(images).detach().numpy(), abs=1e-3)


@pytest.mark.parametrize(
    ("format", "resize_mode"), [("onnx", "squash"), ("onnx", "crop"), ("onnx", "crop-bicubic"), ("torch", "crop")]
)
def test_the_example_beside_the_model_predicts_the_same_without_this_package(tmp_path, pictures, format, resize_mode):
    run = make_run(tmp_path / "runs" / "first", pictures, resize_mode=resize_mode, cache_size=40)
    export_run(run, format)
    # A smooth picture: decoders and resizers differ in details, which untrained weights are very sensitive to.
    rows, columns = np.mgrid[0:300, 0:400]
    pixels = np.stack([rows * 0.8, columns * 0.6, 255 - columns * 0.5], axis=2).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    example = run / f"model_example_{format}.py"
    assert len(example.read_text().splitlines()) <= 14
    assert "naturalist import" not in example.read_text()
    model = run / {"onnx": "model.onnx", "torch": "model.pt2"}[format]
    done = subprocess.run(
        [sys.executable, "-I", example, model, tmp_path / "photo.png"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    path, name, confidence = done.stdout.split()
    classifier = load_classifier(run, "cpu")
    probabilities = classifier.probabilities(classifier.decode(tmp_path / "photo.png")[None])[0]
    assert name == classifier.class_names[int(probabilities.argmax())]
    assert float(confidence.rstrip("%")) / 100 == pytest.approx(probabilities.max(), abs=0.03)


def test_preprocessing_and_classes_are_in_the_metadata(pictures, tmp_path):
    run = make_run(tmp_path / "runs" / "first", pictures, resize_mode="crop", cache_size=40)
    about = describe_preprocessing(load_classifier(run, "cpu"))
    assert json.loads(json.dumps(about)) == about
    assert about["image_size"] == 32
    assert about["border"] == pytest.approx(0.1)
    assert about["resize_mode"] == "crop"
    assert (about["mean"], about["std"]) == ([0.4, 0.5, 0.6], [0.2, 0.25, 0.3])
    assert about["class_names"] == sorted(path.name for path in (pictures / "train").iterdir() if path.is_dir())


@pytest.mark.parametrize("format", ["onnx", "torch"])
@pytest.mark.parametrize(("resize_mode", "cache_size"), [("squash", 32), ("crop", 36), ("crop-bicubic", 36)])
def test_the_example_makes_the_same_input_of_a_detailed_photograph(format, resize_mode, cache_size, pictures, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    preprocessing = Preprocessing(32, cache_size, resize_mode, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    start, rest = EXAMPLES[format].split("for path in sys.argv[2:]:\n")
    lines = [line[4:] for line in rest.splitlines() if line.startswith("    ")][:4]
    names = {"path": tmp_path / "photo.png", "about": json.loads(json.dumps(preprocessing.describe()))}
    exec("import numpy as np\nfrom PIL import Image, ImageOps\n" + "\n".join(lines), names)
    cached = decode_file(tmp_path / "photo.png", cache_size, resize_mode)
    expected = preprocessing(torch.from_numpy(cached)[None].permute(0, 3, 1, 2))[0].numpy()
    assert names["pixels"] == pytest.approx(expected, abs=0.05)


def test_a_lone_checkpoint_is_exported_and_checked_on_noise(tmp_path, pictures, capsys):
    run = make_run(tmp_path / "runs" / "first", pictures)
    alone = tmp_path / "best.pt"  # as it is sent to somebody: without the run's folder
    (run / "best.pt").rename(alone)
    export_run(alone, out=tmp_path / "mine.onnx")
    assert "noise" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "mine.onnx")
    about = json.loads(session.get_modelmeta().custom_metadata_map["naturalist.json"])
    assert about == describe_preprocessing(load_classifier(alone, "cpu"))


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path, pictures):
    run = make_run(tmp_path / "runs" / "first", pictures)
    with pytest.raises(UserError, match="cannot write"):
        export_run(run, out=tmp_path / "nowhere" / "model.onnx")


@pytest.mark.parametrize("kind", ["device", "folder", "pipe"])
def test_what_is_no_file_is_not_written_to(tmp_path, pictures, kind):
    run, target = make_run(tmp_path / "runs" / "first", pictures), tmp_path / "target"
    if kind == "folder":
        target.mkdir()
    elif not hasattr(os, "mkfifo"):
        pytest.skip("this system has no such files")
    elif kind == "pipe":
        os.mkfifo(target)
    else:
        target = Path("/dev/null")
    with pytest.raises(UserError, match="a folder, a device or a pipe"):
        export_run(run, out=target)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, pictures, limit_files):
    run = make_run(tmp_path / "runs" / "first", pictures)
    (tmp_path / "out").mkdir()
    limit_files(4000)
    with pytest.raises(UserError, match="cannot write .*model.pt2.*free some space"):
        export_run(run, "torch", out=tmp_path / "out" / "model.pt2", data=str(pictures))
    assert list((tmp_path / "out").iterdir()) == []


def test_an_export_that_says_something_else_is_removed(tmp_path, pictures, monkeypatch):
    run = make_run(tmp_path / "runs" / "first", pictures)

    def export_wrongly(classifier, metadata, output):
        output.write_bytes(b"a network")
        return lambda images: torch.zeros(len(images), 10)

    monkeypatch.setattr("naturalist.export._export_torch", export_wrongly)
    with pytest.raises(UserError, match="differs from the original .* it was removed"):
        export_run(run, "torch")
    assert not list(run.glob("model*"))

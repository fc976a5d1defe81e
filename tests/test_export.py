"""Exported networks say what torch says, and carry all that is needed to use them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from quick_runs import make_run

from naturalist.data.decode import decode_file
from naturalist.data.formats import can_read_heic, readers_of
from naturalist.data.preprocessing import Preprocessing
from naturalist.data.sources.sample import draw, make_sample
from naturalist.errors import UserError
from naturalist.evaluation.classifier import load_classifier
from naturalist.evaluation.predict import predict_photos
from naturalist.export import EXAMPLES, describe_preprocessing, export_run
from naturalist.runs.environment import shell_path
from naturalist.settings.display_names import Italic

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


KINDS = [
    *[("JPEG", "RGB", {"orientation": orientation}) for orientation in range(1, 9)],
    *[("JPEG", mode, {"orientation": 6}) for mode in ("L", "CMYK")],
    ("JPEG", "RGB", {"progressive": True, "subsampling": "4:1:1"}),
    ("MPO", "RGB", {"orientation": 8, "save_all": True}),
    *[("PNG", mode, {"orientation": 7}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")],
    ("PNG", "P", {"transparency": bytes(range(0, 250, 10))}),
    ("PNG", "P", {"transparency": 3}),
    ("PNG", "L", {"transparency": 90}),
    ("PNG", "RGB", {"transparency": (9, 9, 9)}),
    *[("WEBP", mode, {"orientation": 5}) for mode in ("RGB", "RGBA")],
    ("GIF", "P", {"transparency": 5}),
    *[("BMP", mode, {}) for mode in ("1", "L", "P", "RGB")],
    *[("TIFF", mode, {"orientation": 6}) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16")],
    ("TIFF", "YCbCr", {"compression": "jpeg"}),
    *[("TIFF", mode, {}) for mode in ("LA", "PA", "I", "I;16B")],
    *[("PPM", mode, {}) for mode in ("1", "L", "RGB", "I;16")],
    *[("AVIF", mode, {"orientation": 6}) for mode in ("L", "RGB", "RGBA")],
    *([("HEIF", mode, {"orientation": 8}) for mode in ("L", "RGB", "RGBA")] if can_read_heic() else []),
]
"""Format, colour mode and options of files that decoding reads."""


def write_all_kinds(folder: Path) -> list[Path]:
    """A detailed photograph with a transparent corner where its mode has any, of odd sides, in all of :data:`KINDS`."""
    picture = draw("Aves", np.random.default_rng(4)).convert("RGB").resize((601, 457))
    alpha = Image.linear_gradient("L").resize(picture.size)
    paths = []
    for number, (file_format, mode, options) in enumerate(KINDS):
        if mode == "LAB":
            srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
            image = ImageCms.profileToProfile(picture, srgb, lab, outputMode="LAB")
        elif mode.startswith("I"):
            deep = np.asarray(picture.convert("L")).astype(np.uint16) * 257
            image = Image.fromarray({"I": deep.astype(np.int32), "I;16B": deep.astype(">u2")}.get(mode, deep))
        else:
            image = picture.convert(mode)
            if mode.endswith("A"):
                image.putalpha(alpha)
        exif = Image.Exif()
        exif[0x0112] = options.get("orientation", 1)
        if file_format == "HEIF":
            readers_of(b"....ftypheic")
        paths.append(folder / f"{number}-{file_format}-{mode.replace(';', '-')}.jpg")  # the content decides
        image.save(paths[-1], file_format, **{**options, **({"exif": exif} if "orientation" in options else {})})
    return paths


@pytest.mark.parametrize(
    ("format", "resize_mode", "cache_size"),
    [("onnx", "squash", 40), ("onnx", "crop", 37), ("onnx", "crop-bicubic", 36), ("torch", "squash", 32)],
)
def test_the_example_says_what_predict_says_of_every_kind_of_file_without_this_package(
    tmp_path, pictures, format, resize_mode, cache_size, capsys
):
    run = make_run(tmp_path / "runs" / "first", pictures, resize_mode=resize_mode, cache_size=cache_size)
    export_run(run, format)
    paths = write_all_kinds(tmp_path)
    example = run / f"model_example_{format}.py"
    assert len(example.read_text().splitlines()) <= 80
    assert "naturalist import" not in example.read_text()
    model = [run / "model.onnx"] if resize_mode == "squash" and format == "onnx" else []  # else the one beside it
    done = subprocess.run(
        [sys.executable, "-I", example, *model, *paths], capture_output=True, text=True, timeout=240, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    said = capsys.readouterr().out
    assert said.endswith(f"Use it without this package: python {shell_path(example)} PHOTO\n")
    assert predict_photos(run, [str(path) for path in paths], format="json", device="cpu") == 0
    predicted = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line, said, path in zip(done.stdout.splitlines(), predicted, paths, strict=True):
        name, confidence, sign = line.removeprefix(f"{path} ").split()
        assert (name, sign) == (said["prediction"], "%"), path
        # It prints a tenth of a percent.
        assert float(confidence) == pytest.approx(100 * said["confidence"], abs=0.06), path


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
@pytest.mark.parametrize(
    ("resize_mode", "cache_size"), [("squash", 32), ("squash", 45), ("crop", 37), ("crop-bicubic", 36)]
)
@pytest.mark.parametrize("orientation", [1, 4, 7])
def test_the_example_makes_the_same_input_of_a_detailed_photograph(
    format, resize_mode, cache_size, orientation, tmp_path
):
    noise = np.random.default_rng(0).integers(0, 256, (91, 120, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise).save(tmp_path / "photo.jpg", exif=exif)
    preprocessing = Preprocessing(32, cache_size, resize_mode, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    names: dict[str, Any] = {}
    exec(re.split("^model, photos = ", EXAMPLES[format], flags=re.MULTILINE)[0], names)
    got = names["prepare"](tmp_path / "photo.jpg", json.loads(json.dumps(preprocessing.describe())))
    cached = decode_file(tmp_path / "photo.jpg", cache_size, resize_mode)
    expected = preprocessing(torch.from_numpy(cached)[None].permute(0, 3, 1, 2))[0].numpy()
    assert got == pytest.approx(expected, abs=1e-3)


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


def test_the_example_called_without_a_photograph_prints_its_usage(tmp_path, pictures):
    run = make_run(tmp_path / "runs" / "first", pictures)
    names = tmp_path / "names.yaml"
    name = sorted(path.name for path in (pictures / "train").iterdir() if path.is_dir())[0]
    names.write_text(f"{name}: '*Amanita muscaria*'")
    export_run(run, out=run / "a 'model'.onnx", display_names=names)
    session = onnxruntime.InferenceSession(run / "a 'model'.onnx")
    about = json.loads(session.get_modelmeta().custom_metadata_map["naturalist.json"])
    assert about["class_names"][0] == "Amanita muscaria" == Italic("Amanita muscaria")
    example = run / "a 'model'_example_onnx.py"
    done = subprocess.run([sys.executable, "-I", example], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Classify photographs: python {example} [model.onnx] PHOTO …")

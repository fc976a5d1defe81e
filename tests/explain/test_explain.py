"""The pictures of ``explain`` are made for a run, and for torchvision's networks."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from quick_runs import make_run

from naturalist.cli import main
from naturalist.data.preprocessing import Preprocessing
from naturalist.data.sources.sample import make_sample
from naturalist.errors import UserError
from naturalist.evaluation.classifier import Classifier, load_classifier
from naturalist.explain.explain import PARTS, explain_classifier
from naturalist.explain.layers import Layer, last_feature_layer
from naturalist.explain.pictures import Photo, choose_units
from naturalist.plots.explanations import overlay_heat

PICTURES = ["exciting.png", "feature_maps.png", "filters.png", "guided_backprop.png", "predictions.png"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    data = make_sample(folder / "pictures", train_images=50, test_images=20)
    return make_run(folder / "runs" / "first", data, num_filters=64)


@pytest.mark.slow
def test_explain_draws_all_pictures_of_random_test_images(run, capsys):
    main(["explain", str(run), "--images", "2", "--units", "3"])
    assert "Grad-CAM at blocks.block5.activation: 2 × 2 cells are too few to tell a place" in capsys.readouterr().out
    assert sorted(path.name for path in (run / "explanation").iterdir()) == PICTURES
    for name in PICTURES:
        with Image.open(run / "explanation" / name) as picture:
            assert min(picture.size) > 500
            assert np.asarray(picture.convert("L")).std() > 10


def test_explain_takes_a_photograph_and_parts(run, tmp_path, capsys):
    photo = next((run.parents[1] / "pictures" / "test").glob("*/*.jpg"))
    copy = tmp_path / "best.pt"
    copy.write_bytes((run / "best.pt").read_bytes())  # the checkpoint is enough when photographs are given
    main(["explain", str(copy), str(photo), "--only", "filters,grad_cam"])
    assert sorted(path.name for path in (tmp_path / "explanation").iterdir()) == ["filters.png", "predictions.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "filters,magic"], "does not know magic"),
        (["--units", "0"], "--units must be at least 1"),
        (["--layer", "blocks.block9"], "did you mean blocks.block"),
        (["nowhere.jpg"], "nowhere.jpg' cannot be read"),
    ],
)
def test_wrong_wishes_are_one_sentence(run, arguments, message):
    with pytest.raises(UserError, match=message):
        main(["explain", str(run), *arguments])


def test_layer_list_names_the_layers_with_feature_maps_and_draws_nothing(tmp_path, capsys):
    run = make_run(tmp_path / "runs" / "first", make_sample(tmp_path / "pictures", train_images=50, test_images=10))
    assert main(["explain", str(run), "--layer", "list"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].split() == ["layer", "kind", "channels", "×", "height", "×", "width"]
    assert rows[1].split() == ["blocks.block1.convolution", "Conv2d", "8", "×", "32", "×", "32"]
    default = last_feature_layer(load_classifier(run, "cpu").model, torch.zeros(1, 3, 32, 32)).name
    assert [row.split()[0] for row in rows if row.endswith("(default)")] == [default]
    assert not any(name in row for row in rows for name in ("Flatten", "Linear"))
    assert not (run / "explanation").exists()
    with pytest.raises(UserError, match="'zzz' with feature maps; --layer list shows all"):
        main(["explain", str(run), "--layer", "zzz", "--only", "guided_backprop"])


def classifier_of(model: torch.nn.Module) -> Classifier:
    return Classifier(
        model.eval(),
        Preprocessing(64, 64, "squash", (0.5,) * 3, (0.25,) * 3),
        tuple(f"class {i}" for i in range(10)),
        torch.device("cpu"),
        "wrapped",
    )


@pytest.fixture(scope="module")
def photo() -> Photo:
    return noisy_photo(0)


def noisy_photo(seed: int) -> Photo:
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)
    return Photo(pixels, pixels, f"{seed}.jpg", None)


@pytest.mark.slow
def test_a_wrapped_torchvision_network_is_explained(tmp_path, photo):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torchvision.models.resnet18(num_classes=10))
    parts = [part for part in PARTS if part != "exciting"]
    written = explain_classifier(classifier_of(model), [photo], None, tmp_path, parts, units=2)
    assert [path.name for path in written] == [
        "filters.png",
        "feature_maps.png",
        "guided_backprop.png",
        "predictions.png",
    ]


def test_a_vision_transformer_leaves_out_what_makes_no_sense_and_says_so(tmp_path, photo, capsys):
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(
        64, 16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8, num_classes=10
    )
    with pytest.raises(UserError, match="vision transformer"):
        explain_classifier(classifier_of(model), [photo], None, tmp_path, ["guided_backprop"])
    written = explain_classifier(classifier_of(model), [photo], None, tmp_path, list(PARTS), strict=False)
    assert [path.name for path in written] == ["filters.png", "feature_maps.png", "predictions.png"]
    assert "Left out guided_backprop, grad_cam, exciting: " in capsys.readouterr().out


def test_units_are_chosen_by_all_photographs_in_turn_and_respond_to_theirs():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 8, 3)
    classifier = classifier_of(torch.nn.Sequential(layer, torch.nn.Flatten()))
    photos = [noisy_photo(seed) for seed in range(3)]
    peaks = [layer(classifier.inputs(photo.pixels[None])).amax(dim=(0, 2, 3)) for photo in photos]
    units = choose_units(classifier, Layer("0", layer), photos, 6)
    assert [photo.name for photo in units.values()] == ["0.jpg", "1.jpg", "2.jpg"] * 2
    assert all(peaks[int(photo.name[0])][channel] > 0 for channel, photo in units.items())
    first = next(iter(units))
    excess = peaks[0] - (peaks[1] + peaks[2]) / 2
    assert first == max((i for i in range(8) if peaks[0][i] > 0), key=lambda i: excess[i])
    assert len(choose_units(classifier, Layer("0", layer), photos[:1], 100)) == 8


@pytest.mark.parametrize("kind", ["grad_cam", "occlusion"])
def test_heat_leaves_the_photographs_colours_where_there_is_none(kind):
    photo = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    heat = np.zeros((20, 20), np.float32)
    assert (overlay_heat(photo, heat, kind) == photo).all()
    heat[10:] = 1
    drawn = overlay_heat(photo, heat, kind)
    assert (drawn[:15] == photo[:15]).all() and (drawn[30:] != photo[30:]).mean() > 0.9
    difference = photo[30:, :, 0].astype(float) - photo[30:, :, 1]
    kept = drawn[30:, :, 0].astype(float) - drawn[30:, :, 1]
    assert np.corrcoef(difference.ravel(), kept.ravel())[0, 1] > 0.99  # the photograph's own colours show through

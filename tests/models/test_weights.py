"""Pre-trained weights are the right ones, whole, and cannot run code."""

import argparse
import hashlib
import io
import pickle
import struct
import urllib.error
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchvision import models

from naturalist.data.preprocessing import Preprocessing
from naturalist.errors import UserError
from naturalist.models import build_model
from naturalist.models.backbones import StagedNetwork, backbone_names
from naturalist.models.state_dict import plain_state_dict
from naturalist.models.weights import HASH_IN_NAME, hash_in_name, load_weights, settings_from_weights
from naturalist.runs.checkpoint import save_checkpoint
from naturalist.settings.part_b import BackboneSettings, FinetuneSettings


def settings_for(backbone: str, weights: object) -> BackboneSettings:
    return BackboneSettings(backbone=backbone, weights=str(weights))


@pytest.mark.parametrize("backbone", ["shufflenet_v2_x0_5", "squeezenet1_1", "mobilenet_v3_small", "googlenet"])
def test_a_file_of_the_official_model_loads_whatever_its_head(backbone, tmp_path):
    options = {"init_weights": True} if backbone == "googlenet" else {}  # and with its auxiliary heads
    official = models.get_model(backbone, num_classes=21, **options)
    torch.save(official.state_dict(), tmp_path / "official.pth")
    model = StagedNetwork(backbone, 3, 32)
    head_before = model.network.get_submodule(model.steps[-1])[1].weight.clone()
    load_weights(model, settings_for(backbone, tmp_path / "official.pth"))
    head = model.steps[-1] if not backbone.startswith("squeeze") else "classifier"
    loaded = model.network.state_dict()
    for name, value in official.state_dict().items():
        if not name.startswith((f"{head}.", "aux")):
            assert torch.equal(loaded[name], value), name
    assert torch.equal(model.network.get_submodule(model.steps[-1])[1].weight, head_before)


def test_densenets_official_files_have_older_names_and_load(tmp_path):
    official = models.densenet121(num_classes=2).state_dict()
    old = dict(official)
    for part in ("norm", "conv", "relu"):
        for number in "12":
            old = {
                name.replace(f"{part}{number}.", f"{part}.{number}.") if "denselayer" in name else name: value
                for name, value in old.items()
            }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet.pth")
    model = StagedNetwork("densenet121", 3, 32)
    load_weights(model, settings_for("densenet121", tmp_path / "densenet.pth"))
    name = "features.denseblock4.denselayer16.conv2.weight"
    assert torch.equal(model.network.state_dict()[name], official[name])


@pytest.mark.slow
@pytest.mark.slow
def test_a_vits_positions_are_interpolated_to_the_image_size(tmp_path):
    official = models.vision_transformer.VisionTransformer(64, 32, 12, 12, 768, 3072).state_dict()
    torch.save(official, tmp_path / "vit.pth")
    model = StagedNetwork("vit_b_32", 3, 96)
    load_weights(model, settings_for("vit_b_32", tmp_path / "vit.pth"))
    assert model.network.encoder.pos_embedding.shape == (1, 10, 768)
    corners = [1, 3, 7, 9]
    torch.testing.assert_close(
        model.network.encoder.pos_embedding[:, corners], official["encoder.pos_embedding"][:, 1:]
    )
    torch.save({**official, "encoder.pos_embedding": torch.zeros(1, 8, 768)}, tmp_path / "vit.pth")
    with pytest.raises(UserError, match=r"vit\.pth' does not fit vit_b_32: "):
        load_weights(model, settings_for("vit_b_32", tmp_path / "vit.pth"))


def test_a_run_of_this_project_serves_as_weights(tmp_path):
    description = {"kind": "torchvision", "backbone": "shufflenet_v2_x0_5", "num_classes": 5, "image_size": 32}
    trained = build_model(description)
    save_checkpoint(
        tmp_path / "best.pt",
        state_dict=plain_state_dict(trained),
        description=description,
        class_names=("a",) * 5,
        data="x",
        preprocessing=Preprocessing(32, 32, "crop", (0.5,) * 3, (0.5,) * 3),
    )
    model = StagedNetwork("shufflenet_v2_x0_5", 3, 32)
    load_weights(model, settings_for("shufflenet_v2_x0_5", tmp_path / "best.pt"))
    assert torch.equal(model.network.conv1[0].weight, trained.network.conv1[0].weight)


def test_a_file_of_another_model_is_refused_naming_the_keys(tmp_path):
    torch.save(models.squeezenet1_1().state_dict(), tmp_path / "squeezenet.pth")
    with pytest.raises(UserError, match=r"does not fit resnet18: missing 100 \(conv1.weight.*unexpected 52 \(feat"):
        load_weights(StagedNetwork("resnet18", 3, 32), settings_for("resnet18", tmp_path / "squeezenet.pth"))
    torch.save(models.shufflenet_v2_x1_0().state_dict(), tmp_path / "wide.pth")
    with pytest.raises(UserError, match=r"of another shape \d+ \(stage2.*\[58, 24, 1, 1\] instead of \[24, "):
        load_weights(
            StagedNetwork("shufflenet_v2_x0_5", 3, 32), settings_for("shufflenet_v2_x0_5", tmp_path / "wide.pth")
        )


def test_the_hash_in_a_files_name_is_verified(tmp_path):
    plain = tmp_path / "plain.pth"
    torch.save(models.squeezenet1_1().state_dict(), plain)
    digest = hashlib.sha256(plain.read_bytes()).hexdigest()
    right, wrong = tmp_path / f"squeezenet1_1-{digest[:8]}.pth", tmp_path / "squeezenet1_1-00000000.pth"
    right.write_bytes(plain.read_bytes())
    wrong.write_bytes(plain.read_bytes())
    model = StagedNetwork("squeezenet1_1", 3, 32)
    assert load_weights(model, settings_for("squeezenet1_1", right)) == right.name
    with pytest.raises(UserError, match=f"SHA-256 begins with {digest[:8]}, not 00000000"):
        load_weights(model, settings_for("squeezenet1_1", wrong))


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    torch.manual_seed(3)
    return models.shufflenet_v2_x0_5(num_classes=7)


def load_into_new(path: Path) -> tuple[str, nn.Module]:
    model = StagedNetwork("shufflenet_v2_x0_5", 3, 32)
    return load_weights(model, settings_for("shufflenet_v2_x0_5", path)), model.network


def assert_loaded(network: nn.Module, trained: nn.Module) -> None:
    loaded = network.state_dict()
    assert all(
        torch.equal(loaded[name], value) for name, value in trained.state_dict().items() if not name.startswith("fc.")
    )


PREFIXES = ["", "model.", "module.", "backbone.", "net.", "_orig_mod.", "module.model.", "model._orig_mod.", "network."]


@pytest.mark.parametrize(
    ("key", "prefix"),
    [
        *[(key, "") for key in ("model", "model_state_dict", "net", "state_dict", "model_ema", "encoder_q")],
        *[(key, prefix) for key in (None, "state_dict", "outer.inner") for prefix in PREFIXES],
    ],
)
def test_a_state_dict_loads_whatever_others_call_it_and_put_before_its_names(trained, tmp_path, key, prefix):
    content: dict[str, object] = {prefix + name: value for name, value in trained.state_dict().items()}
    for name in reversed(key.split(".") if key else []):
        optimizer = torch.optim.SGD(trained.parameters(), lr=0.1).state_dict()
        content = {"epoch": 3, "optimizer": optimizer, "best": np.float64(0.5), name: content, "scaler": {}}
        content["args"] = argparse.Namespace(lr=0.1, output_dir=tmp_path)
    torch.save(content, tmp_path / "weights.pth")
    said, network = load_into_new(tmp_path / "weights.pth")
    assert_loaded(network, trained)
    assert said == f"weights.pth (its {key.split('.')[-1]})" if key else "weights.pth"


def test_of_several_state_dicts_the_averaged_one_is_taken_and_said(trained, tmp_path):
    average = AveragedModel(trained)
    for parameter in average.parameters():
        parameter.data.add_(1)
    torch.save({"model": trained.state_dict(), "model_ema": average.state_dict()}, tmp_path / "weights.pth")
    said, network = load_into_new(tmp_path / "weights.pth")
    assert said == "weights.pth (its model_ema; also there: model)"
    assert_loaded(network, average.module)


def test_several_state_dicts_of_unknown_names_are_not_guessed_at(trained, tmp_path):
    torch.save({"teacher": trained.state_dict(), "student": trained.state_dict()}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="several state dicts, 'teacher', 'student'; save the one that is meant alone"):
        load_into_new(tmp_path / "weights.pth")


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_safetensors_and_old_files_are_read_whatever_their_names(trained, tmp_path, name):
    from safetensors.torch import save_file

    save_file({key: value.contiguous() for key, value in trained.state_dict().items()}, tmp_path / name)
    assert_loaded(load_into_new(tmp_path / name)[1], trained)
    torch.save(trained.state_dict(), tmp_path / name, _use_new_zipfile_serialization=False)
    assert_loaded(load_into_new(tmp_path / name)[1], trained)


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, "{}")
    return stream.getvalue()


def with_value(change: Callable[[Tensor], object]) -> dict[str, object]:
    return {name: change(value) for name, value in models.shufflenet_v2_x0_5().state_dict().items()}


FOREIGN = {
    "TorchScript": (
        lambda: torch.jit.script(nn.Linear(2, 2)),
        r"a TorchScript program; .*torch\.jit\.load\(FILE\)\.state",
    ),
    "model": (
        lambda: nn.Linear(2, 2),
        r"a Python object \(torch\.nn\.modules\.linear\.Linear\).*model\.state_dict\(\)",
    ),
    "LFS": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    "page": (lambda: b"<!DOCTYPE html><html>", "a web page, .*download it again"),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(900), "HDF5 .*Keras .*--weights takes"),
    "Keras": (lambda: zipped("config.json", "model.weights.h5"), "a Keras file; --weights takes"),
    "NumPy": (lambda: zipped("a.npy"), "NumPy arrays; --weights takes"),
    "zip": (lambda: zipped("weights.pth"), "a zip archive of files; unpack it"),
    "torch.export": (lambda: zipped("model/archive_format"), "torch.export program; take the checkpoint"),
    "gzip": (lambda: b"\x1f\x8b" + bytes(900), "compressed; unpack it"),
    "cut safetensors": (
        lambda: struct.pack("<Q", 60) + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}      ',
        "damaged, cut short",
    ),
    "nothing": (lambda: b"", "damaged, cut short"),
    "pickle of old": (lambda: pickle.dumps({"a": 1}, protocol=4)[:-3], "damaged, cut short"),
    "NaN": (lambda: with_value(lambda value: value * float("nan")), "holds NaN"),
    "complex": (lambda: with_value(lambda value: value.to(torch.complex64)), "its numbers are complex"),
    "sparse": (lambda: with_value(lambda value: value.float().to_sparse()), "no plain tensor"),
    "timm's": (lambda: {"blocks.0.attn.qkv.weight": torch.zeros(3)}, "none of its names .*such as timm"),
}


@pytest.mark.parametrize(("make", "words"), FOREIGN.values(), ids=FOREIGN.keys())
def test_what_is_no_state_dict_is_named_with_a_way_out_and_nothing_else_is_said(tmp_path, make, words, capfd, recwarn):
    path, content = tmp_path / "weights.pth", make()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, torch.jit.ScriptModule):
        content.save(path)
    else:
        torch.save(content, path)
    recwarn.clear()
    with pytest.raises(UserError, match=words) as refusal:
        load_into_new(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)
    assert not recwarn.list and capfd.readouterr() == ("", "")


class Dangerous:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("name", ["finetuned-20251125.pt", "best-20251125103000.pth", "run-00000001.pt"])
def test_a_date_or_a_number_in_a_files_name_is_no_hash(name, tmp_path):
    official = models.get_model("shufflenet_v2_x0_5", num_classes=3)
    torch.save(official.state_dict(), tmp_path / name)
    load_weights(StagedNetwork("shufflenet_v2_x0_5", 3, 32), settings_for("shufflenet_v2_x0_5", tmp_path / name))


def test_a_hash_of_decimal_digits_counts_in_an_official_name():
    names = [Path(weights.url).name for backbone in backbone_names() for weights in models.get_model_weights(backbone)]
    assert all(hash_in_name(name) for name in names)
    assert hash_in_name("finetuned-0123abcd.pt") == "0123abcd"


def test_preprocessing_is_described_as_the_official_transforms_are():
    for backbone in backbone_names():
        transforms = models.get_model_weights(backbone).DEFAULT.transforms()
        data = settings_from_weights(FinetuneSettings.of(backbone=backbone)).data
        described = Preprocessing(data.image_size, data.cache_size, data.resize_mode, (0, 0, 0), (1, 1, 1)).describe()
        border = (1 - transforms.crop_size[0] / transforms.resize_size[0]) / 2
        assert described["resize_mode"] == "crop"
        assert (described["interpolation"], described["border"]) == (transforms.interpolation.value, border), backbone


def test_a_file_that_holds_code_is_refused_and_not_run(tmp_path):
    trap = tmp_path / "executed"
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps({"conv1.weight": Dangerous(trap)}))
    torch.save({"conv1.weight": Dangerous(trap)}, tmp_path / "zip.pth")
    for name in ("pickle.pth", "zip.pth"):
        with pytest.raises(UserError, match="nothing in it was run"):
            load_weights(StagedNetwork("squeezenet1_1", 3, 32), settings_for("squeezenet1_1", tmp_path / name))
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"not weights", [1, 2], {"epoch": 3}])
def test_a_file_that_is_no_state_dict_is_refused(content, tmp_path):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=r"weights\.pth"):
        load_weights(StagedNetwork("squeezenet1_1", 3, 32), settings_for("squeezenet1_1", path))


def test_without_a_network_the_file_to_fetch_and_its_place_are_named(tmp_path, monkeypatch):
    def no_network(*_):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError) as refusal:
        load_weights(StagedNetwork("resnet18", 3, 32), settings_for("resnet18", "DEFAULT"))
    name = "resnet18-f37072fd.pth"
    assert f"fetch https://download.pytorch.org/models/{name}" in str(refusal.value)
    assert str(tmp_path / "hub" / "checkpoints" / name) in str(refusal.value)


def test_official_weights_in_torchvisions_cache_need_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(models.resnet18().state_dict(), folder / "resnet18-f37072fd.pth")
    with pytest.raises(UserError, match="not f37072fd"):  # it is looked at, and found to be another file
        load_weights(StagedNetwork("resnet18", 3, 32), settings_for("resnet18", "DEFAULT"))


def test_weights_that_there_are_not_are_refused_with_the_list():
    with pytest.raises(UserError, match="no weights 'IMAGENET1K_V3'.*IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT, none"):
        settings_from_weights(FinetuneSettings.of(backbone="resnet50", weights="IMAGENET1K_V3"))


def test_a_file_with_an_official_name_takes_that_files_transforms(tmp_path):
    path = tmp_path / "resnet50-0676ba61.pth"  # V1 is resized to 256 pixels, V2 to 232
    path.touch()
    assert settings_from_weights(FinetuneSettings.of(backbone="resnet50", weights=str(path))).data.cache_size == 256
    assert settings_from_weights(FinetuneSettings.of(backbone="resnet50", weights="none")).data.cache_size == 232


def test_every_official_file_has_a_hash_in_its_name():
    for backbone in backbone_names():
        assert all(HASH_IN_NAME.search(Path(weights.url).name) for weights in models.get_model_weights(backbone))


def test_training_images_are_at_most_of_the_weights_size():
    settings = FinetuneSettings.of(backbone="squeezenet1_1", weights="none", train_image_size=225)
    with pytest.raises(UserError, match=r"train_image_size must be at most image_size \(224\)"):
        settings_from_weights(settings)

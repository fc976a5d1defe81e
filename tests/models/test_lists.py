"""The list of backbones says what torchvision says, of every one."""

import re

import torch
from torchvision import models

from naturalist.models.backbones import backbone_names
from naturalist.models.lists import list_backbones


def test_every_backbone_has_a_line_and_the_smallest_comes_first():
    heading, *lines, _ = list_backbones().splitlines()
    assert re.findall(r"\S+(?: \([^)]+\))?", heading)[:6] == [
        "backbone",
        "params (M)",
        "input (px)",
        "GMACs",
        "top-1 (%)",
        "file (MB)",
    ]
    assert sorted(line.split()[0] for line in lines) == backbone_names()
    parameters = [float(line.split()[1]) for line in lines]
    assert parameters == sorted(parameters)
    assert all(len(line) <= 120 for line in (heading, *lines))


def test_a_line_says_parameters_size_work_accuracy_and_where_the_weights_come_from():
    text = list_backbones()
    assert re.search(r"^resnet50 +25\.6 +224 +4\.09 +80\.9 +103  resnet50-11ad3fa6\.pth$", text, re.MULTILINE)
    assert re.search(r"^inception_v3 +27\.2 +299 ", text, re.MULTILINE)
    assert "weights are files of https://download.pytorch.org/models/," in text.splitlines()[-1]


def test_no_model_is_built_and_nothing_is_fetched(monkeypatch):
    monkeypatch.setattr(models, "get_model", None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    assert "vit_b_16" in list_backbones()

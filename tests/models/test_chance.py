"""Several ranks drop what one process would drop."""

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from naturalist.data.share import Share
from naturalist.models import build_model
from naturalist.models.chance import Place, draw_for_whole_batches
from naturalist.ranks import Rank


@pytest.mark.parametrize("shape", [(9, 12), (9, 4, 3, 3)])
@pytest.mark.parametrize(
    "chance",
    [nn.Dropout(0.4), StochasticDepth(0.4, "row"), StochasticDepth(0.4, "batch")],
    ids=["dropout", "depth by row", "depth by batch"],
)
def test_each_rank_drops_in_its_rows_what_one_process_would(chance, shape):
    inputs, place = torch.rand(shape), Place()
    torch.manual_seed(3)
    whole = [chance(inputs), chance(inputs)]
    network = nn.Sequential(chance)
    draw_for_whole_batches(network, place)
    for number in range(4):
        place.part = Share(Rank(number, 4)).part(9)
        torch.manual_seed(3)
        for expected in whole:
            torch.testing.assert_close(network(inputs[place.part.rows]), expected[place.part.rows])


def test_evaluation_drops_nothing_and_weights_keep_their_names():
    description = {"kind": "torchvision", "num_classes": 3, "image_size": 32, "dropout": 0.3}
    model = build_model({**description, "backbone": "efficientnet_b0"})
    names, inputs = list(model.state_dict()), torch.rand(2, 3, 32, 32)
    model.eval()
    expected, place = model(inputs), Place()
    draw_for_whole_batches(model, place)
    place.part = Share(Rank(1, 2)).part(4)
    assert torch.equal(model(inputs), expected)
    assert list(model.state_dict()) == names

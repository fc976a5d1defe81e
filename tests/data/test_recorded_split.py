"""A split on record finds its images again."""

import shutil
import unicodedata

from conftest import SMALL_CLASSES

from naturalist.data.dataset import TrainingData, load_training_data
from naturalist.data.recorded_split import RecordedSplit
from naturalist.settings.groups import DataSettings


def test_the_same_images_are_found_in_a_copy_by_way_of_a_mac_with_a_class_more(own_photographs, tmp_path):
    def load(recorded: RecordedSplit | None = None) -> TrainingData:
        settings = DataSettings(data=str(own_photographs), image_size=24, cache_size=24, val_fraction=0.25)
        return load_training_data(settings, tmp_path / "caches", recorded=recorded)

    train = own_photographs / "train"
    (train / SMALL_CLASSES[0]).rename(train / "K\u00e4fer")
    (train / "K\u00e4fer" / "00.jpg").rename(train / "K\u00e4fer" / "\u00f6.jpg")
    before = load()
    (train / "K\u00e4fer" / "\u00f6.jpg").rename(train / "K\u00e4fer" / unicodedata.normalize("NFD", "\u00f6.jpg"))
    (train / "K\u00e4fer").rename(train / unicodedata.normalize("NFD", "K\u00e4fer"))
    assert load().split == before.split
    shutil.copytree(train / SMALL_CLASSES[1], train / "A new class")
    after = load(before.split)
    assert after.class_names == before.class_names and after.plan.num_train == before.plan.num_train
    for first, second, part in (
        (before.train_cache, after.train_cache, (before.train_indices, after.train_indices)),
        (before.val_cache, after.val_cache, (before.val_indices, after.val_indices)),
    ):
        assert [first.hashes[i] for i in part[0]] == [second.hashes[i] for i in part[1]]
        assert first.labels[part[0]].tolist() == second.labels[part[1]].tolist()

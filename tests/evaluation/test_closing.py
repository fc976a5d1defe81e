"""What is said when a training is over."""

import pytest

from naturalist.evaluation import closing
from naturalist.settings.groups import RecordSettings
from naturalist.settings.run_settings import RunSettings


@pytest.mark.parametrize(
    ("process", "resume", "training", "features", "words"),
    [
        (60, None, 58, None, "1 min 00 s"),
        (100, None, 58, None, "1 min 40 s, 58 s of them for training"),
        (100, None, 58, 20, "1 min 40 s, 58 s of them for training and 20 s for features"),
        (100, None, 58, 0, "1 min 40 s, 58 s of them for training, on features kept from before"),
        (None, None, 58, 20, "1 min 18 s, 58 s of them for training and 20 s for features"),
        (None, None, 58, 2, "1 min 00 s, 2.0 s of them for features"),
        (100, "runs/a", 3600, None, "1 h 00 min"),
    ],
)
def test_the_time_of_a_run_is_all_that_it_took(monkeypatch, process, resume, training, features, words):
    monkeypatch.setattr(closing, "seconds_of_process", lambda: process)
    settings = RunSettings(record=RecordSettings(resume=resume))
    assert closing._time_taken(training, features, settings) == words

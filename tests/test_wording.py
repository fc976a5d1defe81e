"""Numbers in sentences have one style."""

import pytest

from naturalist.wording import counted, duration, number, p_value, percent, points, roughly


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (percent(0.464), "46.4 %"),
        (percent(1, 0), "100 %"),
        (percent(-0.0001), "0.0 %"),
        (points(-0.112), "−11.2 points"),
        (number(-0.04), "0.0"),
        (number(1234.56, 0), "1235"),
        (p_value(0.0391), "p = 0.039"),
        (p_value(3e-7), "p less than 0.0001"),
        (counted(1, "epoch"), "1 epoch"),
        (counted(0, "image"), "0 images"),
        (counted(1200, "class", "classes"), "1,200 classes"),
        (duration(0.04), "0.0 s"),
        (duration(9.96), "10 s"),
        (duration(65), "1 min 05 s"),
        (duration(119.7), "2 min 00 s"),
        (duration(2 * 3600 + 180), "2 h 03 min"),
        (roughly(99.4), "99 s"),
        (roughly(125), "2 min"),
        (roughly(3 * 3600 - 720), "2.8 h"),
        (roughly(60 * 3600), "2 days"),
    ],
)
def test_numbers_are_written_as_everywhere(said, words):
    assert said == words

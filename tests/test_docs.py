"""What the documents show of Python is run as it stands."""

import re
from pathlib import Path

import pytest
from quick_runs import make_run

DOCUMENT = Path(__file__).parent.parent / "docs" / "python.md"


@pytest.mark.slow
def test_the_code_of_the_page_on_python_runs_in_its_order(photographs, tmp_path, capsys):
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    run = make_run(tmp_path / "place" / "runs" / "first", photographs)
    photo = next((photographs / "test").glob("*/*.jpg"))
    names = {"RUN": run, "PHOTO": photo, "DATA": photographs, "WORK": tmp_path}
    assert len(blocks) == 5
    for block in blocks:
        exec(block, names)
    assert names["logits"].shape == (1, 4) and names["images"].shape[1:] == (3, 64, 64)
    assert abs(names["honest"].sum() - 1) < 1e-9
    assert (tmp_path / "audit" / "audit.json").is_file()
    assert "%" in capsys.readouterr().out

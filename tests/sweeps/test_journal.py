"""A sweep goes on with a journal that a killed process left, and names the line of one that is damaged."""

import json
from pathlib import Path
from random import Random

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution

from benchmarks.mutations import mutate_bytes, mutate_json_lines
from naturalist.errors import UserError
from naturalist.sweeps.store import Store, require_same_distributions
from naturalist.sweeps.workers import folder_in_log

SEARCHED = {
    "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
    "activation": CategoricalDistribution(["ReLU", "GELU"]),
}
FINGERPRINT = json.dumps({"method": "random"})


def search(folder: Path, trials: int = 2) -> optuna.Study:
    """Join the study in ``folder``, look at what was done, and do more."""
    with Store(folder, None) as store:
        study = store.open_study("search", FINGERPRINT, True, optuna.pruners.NopPruner())
        require_same_distributions(study, SEARCHED)
        for done in study.get_trials(deepcopy=False):
            float(max(done.intermediate_values.values(), default=0.0))
        for _ in range(trials):
            with store.choosing():
                store.end_cut_off(study)
                trial = study.ask(SEARCHED)
                store.begin(trial)
            trial.report(0.5, step=1)
            trial.set_user_attr("seconds", 1.5)
            study.tell(trial, 0.5)
    return study


@pytest.fixture
def journal(tmp_path) -> Path:
    search(tmp_path)
    return tmp_path / "journal.log"


def test_a_torn_last_line_is_cut_off_and_the_sweep_goes_on(journal, capsys):
    whole = journal.read_bytes()
    last = whole.rfind(b"\n", 0, -1) + 1
    for end in (last + 1, len(whole) - 2, len(whole) - 1):
        journal.write_bytes(whole[:end])
        assert len(search(journal.parent, trials=1).trials) == 3
        said = capsys.readouterr().out
        assert said.count("\n") == 1 and f"journal.log, line {whole.count(10)}, was torn" in said
        assert all(json.loads(line) for line in journal.read_bytes().splitlines())
        assert len(search(journal.parent, trials=1).trials) == 4 and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "damage",
    [
        b'{"op_code": 4, "work{"op_code": 5}',
        b"\0\0\0",
        b"\xff\xfe",
        b'{"op_code": 77, "worker_id": "x"}',
        b'{"op_code": 5, "worker_id": "x", "trial_id": 0}',
        b'{"op_code": "5", "worker_id": "x"}',
        b'{"op_code": 8, "worker_id": "x", "trial_id": 0, "user_attr": {"seconds": "long"}}',
        b"[]",
    ],
)
def test_a_damaged_line_is_named_and_nothing_is_written(journal, damage):
    lines = journal.read_bytes().splitlines(keepends=True)
    lines.insert(5, damage + b"\n")
    journal.write_bytes(b"".join(lines))
    with pytest.raises(UserError, match=r"journal\.log, line 6, is damaged .*--name"):
        search(journal.parent)
    assert journal.read_bytes() == b"".join(lines)


def test_a_journal_that_was_mutated_is_gone_on_with_or_refused_in_one_sentence(journal):
    whole = journal.read_bytes()

    @settings(max_examples=60, derandomize=True, deadline=None, database=None)
    @given(st.integers(0, 2**32), st.booleans())
    def check(seed: int, as_bytes: bool) -> None:
        journal.write_bytes((mutate_bytes if as_bytes else mutate_json_lines)(whole, Random(seed)))
        try:
            search(journal.parent, trials=1)
        except UserError as error:
            assert len(str(error).splitlines()) == 1

    check()


def test_a_damaged_log_of_a_trial_names_no_run(tmp_path):
    log = tmp_path / "trial-0000.log"
    run = tmp_path / "run \u2028"
    run.mkdir()
    log.write_text(f"Data: …\nRun: {run}\n")
    assert folder_in_log(log) == str(run)
    for line in (b"Run: \0", b"Run: \xff\xfe", b"Run: " + b"x" * 5000, b"Run: /not/there"):
        log.write_bytes(line + b"\n")
        assert folder_in_log(log) is None

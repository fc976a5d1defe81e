"""What is read back is a value or one sentence that names file and place, whatever became of the file."""

import json
from pathlib import Path
from random import Random

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from benchmarks.mutations import mutate_bytes, mutate_csv, mutate_json_lines, mutate_json_text
from naturalist.compare.compare import read_run
from naturalist.data.recorded_split import COLUMNS, RecordedSplit
from naturalist.errors import UserError
from naturalist.evaluation.looks import read_looks
from naturalist.evaluation.metrics import read_predictions_csv
from naturalist.reading import Count, DamagedRecord, Share, end_last_line, read_csv, read_json, read_json_lines
from naturalist.runs.folder import read_config, read_metrics
from naturalist.runs.identity import read_identity_file
from naturalist.runs.tracking import _environment_before
from naturalist.runs.weights_and_biases import read_wandb_record
from naturalist.settings.command_line import parse_settings
from naturalist.settings.part_a import CnnSettings
from naturalist.settings.resume import settings_of_run
from naturalist.settings.run_settings import RunSettings
from naturalist.sweeps.read_runs import read_runs

EXAMPLES = 60
"""Mutations of each kind of record; `python -m benchmarks.faults` tries many more."""


class Thing(Struct):
    count: Count
    share: Share | None = None


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(DamagedRecord) as error:
        read_json(path, Thing, "do this")
    assert str(error.value).startswith(str(path)) and str(error.value).endswith("do this.")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_fields_of_a_newer_version_are_let_be(tmp_path):
    path = tmp_path / "thing.json"
    path.write_text('{"count": 3, "share": 1, "newer": [{}]}')
    assert read_json(path, Thing, "") == Thing(3, 1.0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no valid JSON"),
        (b'{"count": 1', "no valid JSON at column 12"),
        (b'{"count": "1"}', r"count: expected int, got str"),
        (b'{"count": true}', "count: expected int, got bool"),
        (b'{"count": -1}', "count: expected int >= 0"),
        (b'{"count": 1e3}', "count: expected int, got float"),
        (b'{"count": 1, "share": 1.5}', "share: expected float <= 1.0"),
        (b'{"count": 1, "share": NaN}', "NaN is no number"),
        (b'{"count": 1, "newer": 1e999}', "1e999 is out of range"),
        (b'{"share": 1}', "missing required field count"),
        (b"[]", "expected object, got array"),
        (b"null", "expected object, got null"),
        (b'{"count": "\xff"}', "byte 12 is no UTF-8"),
        (b"[" * 99999, "nested too deeply"),
        (b'{"count": 1, "newer": "\\u0000"}', "it holds a NUL"),
        (b'{"count": ' + b"9" * 9999 + b"}", "digits"),
    ],
)
def test_damage_is_named_with_file_place_and_remedy(tmp_path, content, words):
    assert words in refused(tmp_path / "thing.json", content)


def test_what_is_not_there_or_no_file_is_one_sentence(tmp_path):
    for path in (tmp_path / "not there.json", tmp_path):
        with pytest.raises(DamagedRecord, match="is missing or damaged"):
            read_json(path, Thing, "do this")


@pytest.mark.parametrize("torn", [b'{"count', b'{"count": 3, "share": 0.', b"\xff\xfe", b'{"count": -1}'])
def test_a_torn_last_line_is_left_out(tmp_path, torn):
    path = tmp_path / "things.jsonl"
    path.write_bytes(b'{"count": 1}\n{"count": 2}\n' + torn)
    assert read_json_lines(path, Thing, "") == [Thing(1), Thing(2)]
    end_last_line(path)
    with path.open("a") as file:
        file.write('{"count": 4}\n')
    with pytest.raises(DamagedRecord, match=r"things\.jsonl, line 3, is damaged"):
        read_json_lines(path, Thing, "mend it")
    left_out = []
    assert read_json_lines(path, Thing, "", leave_out=left_out.append)[-1] == Thing(4) and len(left_out) == 1


def test_a_whole_last_line_counts_without_its_end_and_a_line_separator_is_no_line_end(tmp_path):
    path = tmp_path / "things.jsonl"
    path.write_text('{"count": 1, "newer": "\u2028"}\n{"count": 2}')
    assert read_json_lines(path, Thing, "") == [Thing(1), Thing(2)]


def test_rows_of_other_lengths_and_empty_tables_are_damaged(tmp_path):
    path = tmp_path / "table.csv"
    for content, words in ((b"", "empty"), (b"a,b\n1,2\n3\n", "row 3, .*1 of 2 columns"), (b'a,b\n"1,2\n', "damaged")):
        path.write_bytes(content)
        with pytest.raises(DamagedRecord, match=words):
            read_csv(path, "mend it")


# Each kind of record, mutated.


def line(**values: object) -> bytes:
    return json.dumps(values).encode() + b"\n"


EPOCHS = b"".join(
    line(
        epoch=epoch,
        train_loss=2.0,
        train_accuracy=0.3,
        val_loss=1.9,
        val_accuracy=0.25 * epoch,
        best_val_accuracy=0.25 * epoch,
        learning_rate=0.001,
        images_per_second=300.0,
        epoch_seconds=2.5,
    )
    for epoch in (1, 2, 3)
)
SPLIT = ",".join(COLUMNS) + "\r\n" + "".join(f"{c}/{i}.jpg,{c},{p},900,{'0a' * 16}\r\n" for c in "ab" for i, p in
                                               enumerate(("train", "val", "unused")))  # fmt: skip
SETTINGS = RunSettings.of(data="photos").recorded()
RECORDS = {
    "environment.json": line(started="2026-01-01T00:00:00+00:00", git={"commit": "c", "dirty": False}, cpu_count=2),
    "wandb.json": line(id="abc123", url="https://wandb.ai/someone/p/runs/abc123"),
    "test_looks.jsonl": line(test_set="t", checkpoint="c", run="first", epoch=3, accuracy=0.5, when="now") * 2,
    "summary.json": line(
        status="finished", epochs=3, seconds=9.0, parameters=99, peak_memory_mb=9.0, feature_seconds=0.0, exit_code=0
    ),
    "metrics.jsonl": EPOCHS,
    "identity.json": line(
        fingerprint="f", class_names=["a", "b"], validation="held out", settings={"seed": 0, "num_filters": 4}
    ),
    "split.csv": SPLIT.encode(),
    "config.yaml": yaml.safe_dump(SETTINGS).encode(),
    "evaluation/test/predictions.csv": b"file,truth,a,b\r\na/1.jpg,a,0.75,0.25\r\nb/1.jpg,b,0.5,0.5\r\n",
    "evaluation/test/metrics.json": line(accuracy=0.5, balanced_accuracy=0.5, fingerprint="f"),
}


def read_sweep(folder: Path) -> None:
    read_runs([folder], "val_accuracy", True)


def resume(folder: Path) -> None:
    settings_of_run(folder, SETTINGS)


READERS = {
    "environment.json": [lambda run: _environment_before(run / "environment.json"), read_sweep],
    "wandb.json": [lambda run: read_wandb_record(run / "wandb.json", "")],
    "test_looks.jsonl": [lambda run: read_looks(run)],
    "summary.json": [read_run, read_sweep],
    "metrics.jsonl": [read_metrics, read_run, read_sweep],
    "identity.json": [read_identity_file, resume],
    "split.csv": [lambda run: RecordedSplit.read(run, "held out"), read_identity_file],
    "config.yaml": [read_config, read_run, read_sweep, resume],
    "evaluation/test/predictions.csv": [lambda run: read_predictions_csv(run / "evaluation/test/predictions.csv")],
    "evaluation/test/metrics.json": [read_run],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    (folder / "evaluation" / "test").mkdir(parents=True)
    for name, content in RECORDS.items():
        (folder / name).write_bytes(content)
    return folder


def by_kind(name: str, rng: Random) -> bytes:
    """A record, mutated as such, or as bytes."""
    mutators = {".json": mutate_json_text, ".jsonl": mutate_json_lines, ".csv": mutate_csv}
    mutate = mutators.get(Path(name).suffix, mutate_bytes)
    return (mutate if rng.random() < 0.6 else mutate_bytes)(RECORDS[name], rng)


def test_undamaged_records_are_read_in_full(run):
    for name, readers in READERS.items():
        for read in readers:
            read(run)
        assert (run / name).read_bytes() == RECORDS[name]


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_that_was_mutated_is_a_value_or_one_sentence(run, name):
    @settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None)
    @given(st.integers(0, 2**32))
    def check(seed: int) -> None:
        (run / name).write_bytes(by_kind(name, Random(seed)))
        for read in READERS[name]:
            try:
                read(run)
            except UserError as error:
                assert len(str(error).splitlines()) == 1

    try:
        check()
    finally:
        (run / name).write_bytes(RECORDS[name])


@pytest.mark.parametrize("name", ["identity.json", "config.yaml"])
def test_settings_that_were_mutated_are_parsed_or_refused_in_one_sentence(run, name):
    for seed in range(8):  # a parser takes long to build
        (run / name).write_bytes(by_kind(name, Random(seed)))
        try:
            parse_settings(CnnSettings, "", ["--resume", str(run)])
        except UserError as error:
            assert len(str(error).splitlines()) == 1
    (run / name).write_bytes(RECORDS[name])


# What damage means, record by record.


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("../a/9.jpg,a,val,900," + "0a" * 16, "leads out of the data set"),
        ("a/../../9.jpg,a,val,900," + "0a" * 16, "leads out of the data set"),
        ("/a/9.jpg,a,val,900," + "0a" * 16, "leads out of the data set"),
        ("a/0.jpg,a,val,900," + "0a" * 16, "is there already"),
        ("a/9.jpg,a,val,-1," + "0a" * 16, "'-1' is no number of bytes"),
        ("a/9.jpg,a,test,900," + "0a" * 16, "'test' is none of train, val, unused"),
        ("a/9.jpg,a,val,900,zz", "is no hash"),
        ("a/9.jpg,,val,900," + "0a" * 16, "names no class"),
        ("a/9.jpg,z,val,900," + "0a" * 16, "has no class 'z'"),
    ],
)
def test_an_impossible_row_of_a_split_is_named(run, row, words):
    (run / "split.csv").write_text(SPLIT + row + "\r\n")
    with pytest.raises(UserError, match=words):
        read_identity_file(run)
    (run / "split.csv").write_text(SPLIT)


def test_one_path_may_be_in_both_folders_of_a_data_set_that_has_two(run):
    (run / "split.csv").write_text(SPLIT + f"a/0.jpg,a,val,900,{'0a' * 16}\r\n")
    assert len(RecordedSplit.read(run, "folder").of("val")) == 3
    (run / "split.csv").write_text(SPLIT)


def test_a_damaged_environment_or_wandb_record_costs_a_line_and_not_the_run(tmp_path, capsys):
    for name, read in (
        ("environment.json", _environment_before),
        ("wandb.json", lambda path: read_wandb_record(path, "the run begins anew there").id),
    ):
        (tmp_path / name).write_bytes(b"\xff{")
        assert read(tmp_path / name) is None
        said = capsys.readouterr().out
        assert said.count("\n") == 1 and name in said and "is damaged" in said


def test_a_damaged_look_is_named_and_the_others_count(tmp_path, capsys):
    path = tmp_path / "test_looks.jsonl"
    good = RECORDS["test_looks.jsonl"]
    path.write_bytes(good + b'{"run": 5}\n' + good)
    assert len(read_looks(tmp_path)) == 4
    assert "test_looks.jsonl, line 3, is damaged" in capsys.readouterr().out

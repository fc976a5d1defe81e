"""Mistakes: settings with values that they cannot have, odd folders, files and environments."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from benchmarks import forked
from naturalist.cli import VERBS
from naturalist.data.sources.sample import make_sample
from naturalist.settings.arguments import Argument, arguments_of
from naturalist.settings.part_a import CnnSettings
from naturalist.settings.part_b import FinetuneSettings
from naturalist.settings.run_settings import RunSettings

TINY = [
    "--image_size=32",
    "--num_filters=4",
    "--filter_organization=same",
    "--dense_units=8",
    "--batch_size=16",
    "--device=cpu",
    "--wandb=disabled",
    "--epochs=1",
    "--no_validation_pictures",
]
TINY_B = [
    "--backbone=squeezenet1_1",
    "--weights=none",
    "--image_size=32",
    "--device=cpu",
    "--wandb=disabled",
    "--epochs=1",
    "--no_validation_pictures",
]
VALUES = ("", "-1", "nan", "1e400", "99999999999999999999", "[1,2]", "{a: 1}", "null", "~nouser/x", "a" * 300)
VALUES_EACH = 3
"""So many of them are tried with each setting; which, the seed decides."""
ODD_NAMES = (
    "new\nline",
    "\x1b[31mred",
    "[bold]b[red]",
    "=1+1",
    "$x_1^2$",
    "%s{0}",
    "-flag",
    "ünïcödé",
    "名前",
    "a" * 200,
)
LEFT_OUT = ("dry_run", "find_lr", "resume", "max_megabytes", "host", "port")
YAMLS = {
    "empty": "",
    "a list": "- 1\n",
    "a word": "word\n",
    "nothing after the colon": "seed:\n",
    "nothing for a choice": "optimizer:\n",
    "another type": "epochs: ten\n",
    "a list for a number": "batch_size: [1, 2]\n",
    "nested deep": "epochs: " + "[" * 3000 + "]" * 3000 + "\n",
    "a bomb": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "a tab": "epochs:\t3\n\tseed: 1\n",
    "an object": "epochs: !!python/object/apply:os.system [true]\n",
    "a line separator": "name: a\u2028b\n",
    "a NUL": 'name: "a\\0b"\n',
    "a date": "name: 2025-11-25\n",
    "two documents": "epochs: 1\n---\nepochs: 2\n",
    "unknown": "epoch: 3\n",
    "a large seed": "seed: 4294967296\n",
    "a negative seed": "split_seed: -1\n",
}


def setups(folder: Path, chance: Random) -> Iterator[str | None]:
    """Every set-up in a process of its own."""
    make_sample(folder / "pictures", train_images=80, test_images=10)
    for name in ("first", "second"):
        forked.prepare("partA/train.py", "--data=pictures", *TINY, f"--name={name}", folder=folder)
    yield from _values(folder, chance)
    yield from _files(folder)
    yield from _folders(folder)
    yield from _surroundings(folder)


def _train(folder: Path, *more: str, data: str = "pictures", environment: dict[str, str] | None = None) -> str | None:
    command = ("partA/train.py", f"--data={data}", *TINY, *more)
    return _fault(forked.start(*command, folder=folder, environment=environment).wait())


def _fault(outcome: forked.Outcome, wanted: int | None = None) -> str | None:
    fault = outcome.fault
    if fault is None and wanted is not None and outcome.code != wanted:
        fault = f"exit code {outcome.code}"
    return fault and f"{' '.join(outcome.command)[:200]!r}: {fault[:300]}"


def _values(folder: Path, chance: Random) -> Iterator[str | None]:
    """Every setting of the scripts and every option of the verbs with some of the values."""
    scripts: tuple[tuple[str, type[RunSettings], Sequence[str]], ...] = (
        ("partA/train.py", CnnSettings, TINY),
        ("partB/finetune.py", FinetuneSettings, TINY_B),
    )
    for script, settings, tiny in scripts:
        for group in settings.groups().values():
            for argument in arguments_of(group):
                if argument.name not in LEFT_OUT:
                    for value in chance.sample(VALUES, VALUES_EACH):
                        flag = f"--{argument.name}={value}"
                        command = (script, "--data=pictures", *tiny, "--dry_run", flag)
                        yield _fault(forked.run(*command, folder=folder))
    for name, verb in VERBS.items():
        if name == "serve":
            continue
        for argument in arguments_of(verb.options):
            if not argument.is_positional and not argument.is_flag and argument.name not in LEFT_OUT:
                for value in chance.sample(VALUES, VALUES_EACH):
                    yield _fault(forked.run(*_call(name, argument, value), folder=folder))


def _call(name: str, argument: Argument, value: str) -> list[str]:
    """A verb with what it needs, and one option with a value."""
    needs = {
        "prepare": ["--data=pictures", "--image_size=32"],
        "compare": ["runs/first", "runs/second"],
        "sweep": ["no-sweep.yaml"],
        "sweep-report": ["runs"],
        "predict": ["runs/first", "pictures/test"],
        "clean": [],
    }
    return [name, *needs.get(name, ["runs/first"]), f"--{argument.name}={value}"]


def _files(folder: Path) -> Iterator[str | None]:
    """Configuration files."""
    for words, text in YAMLS.items():
        path = folder / f"{words}.yaml"
        path.write_bytes(text.encode())
        yield _train(folder, f"--config={path.name}", "--dry_run")
    for name, content in {"utf-16": "epochs: 1\n".encode("utf-16"), "latin": "name: é\n".encode("latin-1")}.items():
        (folder / f"{name}.yaml").write_bytes(content)
        yield _train(folder, f"--config={name}.yaml", "--dry_run")
    for place in ("nowhere.yaml", ".", "pictures", "/dev/null", "a" * 300):
        yield _train(folder, f"--config={place}", "--dry_run")


def _folders(folder: Path) -> Iterator[str | None]:
    """Folders of photographs, of runs, and names."""
    some = sorted((folder / "pictures" / "train").glob("*/*.jpg"))[:12]
    for number, name in enumerate((*ODD_NAMES, b"\xff\xfe".decode(errors="surrogateescape"))):
        home = folder / f"odd-{number}"
        for class_name in (name, "other"):
            (home / "data" / class_name).mkdir(parents=True)
            for photo in some:
                shutil.copy(photo, home / "data" / class_name)
        shutil.copy(some[0], home / "data" / "other" / f"{name[:100]}.jpg")
        yield _train(home, "--name=run", data="data")
        if (home / "runs" / "run" / "best.pt").is_file():
            yield _fault(forked.run("evaluate", "runs/run", "--split=val", folder=home))
            yield _fault(forked.run("predict", "runs/run", "data/other", "--csv", folder=home))
            yield _fault(forked.run("explain", "runs/run", "--only=grad_cam", "--images=1", folder=home))
        yield _train(home, f"--name={name}", data="data")
    for number, make in enumerate((_no_classes, _one_class, _empty_class, _all_damaged, _loop, _file, _train_class)):
        home = folder / f"folder-{number}"
        home.mkdir()
        make(home / "data", some)
        yield _train(home, data="data")
    (folder / "dangling").symlink_to("nowhere")
    for place in ("dangling", "pictures/train", "/dev/null", "/proc", "/", "nowhere/deep/er", "a" * 300):
        yield _train(folder, f"--runs_dir={place}/runs" if place == "/" else f"--runs_dir={place}", "--dry_run")
        yield _train(folder, f"--cache_dir={place}", "--dry_run")
        yield _train(folder, "--dry_run", data=place)
        yield _fault(forked.run("evaluate", place, folder=folder))
        yield _fault(forked.run("predict", "runs/first", place, folder=folder)) if place not in ("/", "/proc") else None
        yield _fault(forked.run("compare", "runs/first", place, folder=folder)) if place not in ("/", "/proc") else None
    for target in ("/dev/null", ".", "pictures", "nowhere/x.onnx"):
        yield _fault(forked.run("export", "runs/first", "--format=torch", "-o", target, folder=folder), 2)


def _surroundings(folder: Path) -> Iterator[str | None]:
    """Environments, and what may be piped in."""
    for name, value in {
        "WANDB_PROJECT": "a/b",
        "WANDB_MODE": "nonsense",
        "WANDB_DIR": "/dev/null",
        "HOME": "/nowhere",
        "TMPDIR": "/nowhere",
        "LC_ALL": "C",
        "COLUMNS": "1",
        "NO_COLOR": "1",
        "TERM": "dumb",
    }.items():
        yield _train(folder, environment={name: value})
    names = b"\0".join(os.fsencode(path) for path in sorted((folder / "pictures" / "test").glob("*/*.jpg")))
    for stdin in (b"", b"\n\n", names, names + b"\0", b"\xff\xfe\n", b"a\x00\x00b", b"nowhere.jpg\n" * 3):
        yield _fault(forked.start("predict", "runs/first", "-", folder=folder, stdin=stdin).wait())
    (folder / "program.py").write_text("def train(:\n")
    for program, values in (("program.py", "[1, 2]"), ("nowhere.py", "[1]"), ("partA/train.py", "[]")):
        head = f"program: {program}\nmethod: grid\nmetric: {{name: val_accuracy}}\n"
        (folder / "bad.yaml").write_text(f"{head}parameters: {{epochs: {{values: {values}}}}}\n")
        yield _fault(forked.run("sweep", "bad.yaml", "--count=1", "--data=pictures", folder=folder), 2)
    (folder / "large.yaml").write_text(
        "program: partA/train.py\nmethod: grid\nmetric: {name: val_accuracy}\nparameters:\n"
        "  seed: {min: 0, max: 9999999999}\n"
    )
    yield _fault(forked.run("sweep", "large.yaml", "--count=1", "--data=pictures", folder=folder), 2)


def _no_classes(data: Path, some: Sequence[Path]) -> None:
    data.mkdir()
    for photo in some:
        shutil.copy(photo, data)


def _one_class(data: Path, some: Sequence[Path]) -> None:
    data.mkdir()
    _no_classes(data / "only", some)


def _empty_class(data: Path, some: Sequence[Path]) -> None:
    _one_class(data, some)
    (data / "empty").mkdir()


def _all_damaged(data: Path, some: Sequence[Path]) -> None:
    _one_class(data, some)
    (data / "damaged").mkdir()
    for number, photo in enumerate(some):
        (data / "damaged" / f"{number}.jpg").write_bytes(photo.read_bytes()[:50])


def _loop(data: Path, some: Sequence[Path]) -> None:
    _one_class(data, some)
    _no_classes(data / "other", some)
    (data / "only" / "x").symlink_to("../other")
    (data / "other" / "y").symlink_to("../only")


def _file(data: Path, some: Sequence[Path]) -> None:
    shutil.copy(some[0], data)


def _train_class(data: Path, some: Sequence[Path]) -> None:
    _one_class(data, some)
    _no_classes(data / "train", some)

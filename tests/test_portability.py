"""What Linux and macOS have and Windows has not is used where it is there, and nowhere needed."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY, run_python

from naturalist.runs import environment as run_environment
from naturalist.runs.environment import shell_path, shell_word

PACKAGE = sorted((REPOSITORY / "naturalist").rglob("*.py"))

POSIX_ONLY = {
    "os": (
        *("fork", "forkpty", "getpgid", "getpriority", "getuid", "killpg", "mkfifo", "nice", "posix_fadvise", "pread"),
        *(
            "preadv",
            "pwrite",
            "pwritev",
            "sched_getaffinity",
            "sched_setaffinity",
            "setsid",
            "sync",
            "sysconf",
            "wait4",
        ),
    ),
    "signal": ("SIGALRM", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "alarm", "pthread_kill", "setitimer"),
}
"""Names by the modules that Windows has without them."""

WITHOUT_THEM = """
import multiprocessing.popen_spawn_posix, os, runpy, signal, subprocess, sys
import filelock, torch, wandb  # what libraries do where a system has these is theirs
for module, names in ((os, {os!r}), (signal, {signal!r})):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
for name in ("fcntl", "pwd", "grp", "resource", "termios"):
    sys.modules[name] = None
for name in [name for name in sys.modules if name.partition(".")[0] == "naturalist"]:
    del sys.modules[name]  # imported while these were there
sys.argv = sys.argv[1:]
sys.path.insert(0, {root!r})
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def used(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.value.id, node.attr


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_nothing_that_windows_lacks_is_used_without_asking_for_it(path):
    text = path.read_text(encoding="utf-8")
    for module, name in used(ast.parse(text)):
        if name in POSIX_ONLY.get(module, ()):
            assert f'hasattr({module}, "{name}")' in text or "AttributeError" in text, f"{module}.{name}"
    for module in ("fcntl", "pwd", "grp", "resource", "termios"):
        assert f"import {module}" not in text or "except ImportError" in text, module


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_text_is_utf8_whatever_the_system_writes(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name)):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        modes = [str(argument.value) for argument in node.args if isinstance(argument, ast.Constant)]
        is_binary = any(set(mode) <= set("rwabx+") and "b" in mode for mode in modes)
        is_text = name in ("read_text", "write_text") or (name == "open" and modes and not is_binary)
        if is_text:
            assert "encoding" in {keyword.arg for keyword in node.keywords}, f"line {node.lineno}"


def test_a_run_is_trained_and_tested_without_what_windows_lacks(photographs, tmp_path):
    (tmp_path / "without.py").write_text(WITHOUT_THEM.format(**POSIX_ONLY, root=str(REPOSITORY)), encoding="utf-8")
    train = [REPOSITORY / "partA" / "train.py", "--data", photographs, "--name=first", "--wandb=disabled"]
    tiny = ["--image_size=32", "--num_filters=4", "--dense_units=8", "--epochs=1", "--device=cpu"]
    done = run_python("without.py", *train, *tiny, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (tmp_path / "runs" / "first" / "evaluation" / "val" / "predictions.png").is_file()


@pytest.mark.parametrize(
    ("word", "on_posix", "on_windows"),
    [
        ("runs/first", "runs/first", "runs/first"),
        ("runs\\a b", "'runs\\a b'", '"runs\\a b"'),
        ("a&b$(x)", "'a&b$(x)'", '"a&b$(x)"'),
    ],
)
def test_a_command_that_is_printed_can_be_typed(word, on_posix, on_windows, monkeypatch):
    assert shell_word(word) == on_posix
    monkeypatch.setattr(run_environment.os, "name", "nt")
    assert shell_word(word) == on_windows


def test_a_path_on_another_drive_is_printed_as_it_is(monkeypatch):
    def relpath(path):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(run_environment.os.path, "relpath", relpath)
    assert shell_path(Path("D:/runs")) == "D:/runs"

"""Whatever goes wrong is one sentence, with what to do."""

import errno
import os

import pytest
import torch

from naturalist.entry import entry_point, show_tracebacks
from naturalist.errors import UserError, explain_error, reason_of


def system_error(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path)


def too_large() -> Exception:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**18)
    return raised.value


FORESEEN = [
    (UserError("there is no run."), "there is no run."),
    (system_error(errno.ENOSPC, "runs/a"), "cannot use 'runs/a': No space left on device; free some space"),
    (system_error(errno.EDQUOT), "Disk quota exceeded; free some space"),
    (system_error(errno.EACCES, "x"), "cannot use 'x': Permission denied; change who may use it"),
    (system_error(errno.EROFS, "x"), "Read-only file system; change who may use it, or name another place"),
    (system_error(errno.ENAMETOOLONG, "x"), "choose a shorter name"),
    (system_error(errno.ELOOP, "x"), "links lead to each other"),
    (system_error(errno.EMFILE, "x"), "ulimit -n"),
    (system_error(errno.EEXIST, "x"), "a link that leads nowhere"),
    (OSError("odd"), "odd."),
    (system_error(errno.ENOMEM), "out of memory: make something smaller, such as --batch_size"),
    (MemoryError(), "out of memory: make something smaller, such as --batch_size"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate"), "out of memory"),
    (too_large(), "out of memory"),
    (RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"), "another process of"),
    (torch.distributed.DistBackendError("a peer left"), "another process of this training has ended"),
]


@pytest.mark.parametrize(("error", "words"), FORESEEN, ids=lambda value: str(value)[:30])
def test_what_a_machine_refuses_is_one_sentence_and_exit_code_2(error, words, capsys):
    with pytest.raises(SystemExit) as left, entry_point():
        raise error
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert said.startswith("error: ") and said.count("\n") == 1 and said.endswith(".\n") and words in said
    assert words in reason_of(error)


def test_an_unforeseen_error_says_what_to_report_and_shows_its_origin_only_with_debug(capsys):
    error = KeyError("odd at postgresql://u:PASSWORD@h/db")
    assert explain_error(error) is None
    for debug in (False, True):
        show_tracebacks(debug)
        try:
            with pytest.raises(SystemExit) as left, entry_point():
                raise error
        finally:
            show_tracebacks(False)
        said = capsys.readouterr().err
        assert left.value.code == 1 and "KeyError: 'odd at postgresql://u:***@h/db'" in said
        assert said.splitlines()[-1].startswith("error: something unforeseen happened") and "please report it" in said
        assert ("Traceback" in said) is debug and ("--debug" in said) is not debug and "PASSWORD" not in said


def test_a_message_cannot_command_the_terminal(capsys):
    with pytest.raises(SystemExit), entry_point():
        raise UserError("there is no class \x1b]0;title\x07.")
    assert capsys.readouterr().err == "error: there is no class �]0;title�.\n"

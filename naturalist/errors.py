"""The one exception that is the user's to mend, and the words for all others."""

import errno

from naturalist.printable import without_secrets

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

OUT_OF_MEMORY = "out of memory"
"""How the words begin for whatever needed more memory than there is."""

MAKE_SMALLER = "make something smaller, such as --batch_size, --image_size or the model, or end other programs"

ADVICE = {
    **dict.fromkeys(NO_ROOM, "free some space, or name a folder on another disk with --runs_dir, --cache_dir or --out"),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "change who may use it, or name another place with --runs_dir, --cache_dir or --out",
    ),
    errno.ENOENT: "check the spelling; it may also have been removed while it was needed",
    errno.EEXIST: "a file, or a link that leads nowhere, has that name; remove it, or choose another name",
    errno.ENOTDIR: "a part of this path is a file and no folder; choose another path",
    errno.EISDIR: "name a file in it",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "links lead to each other there; mend them, or choose another path",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files with ulimit -n, or use fewer --workers"),
    **dict.fromkeys((errno.EIO, errno.ESTALE), "the disk or the network failed; try again, or use another disk"),
    errno.EAGAIN: "the system has no more processes or threads to give; end other programs, or use fewer --workers",
}
"""What to do about an error of the system, by its number."""

ALLOCATION_FAILED = (
    "not enough memory",
    "DefaultCPUAllocator",
    "out of memory",
    "can't allocate memory",
    "ALLOC_FAILED",
    "Storage size calculation overflowed",
    "Overflow when unpacking long",
    "bad_alloc",
)
"""What torch says, in errors of other kinds, of memory that it did not get."""


CONNECTION_LOST = ("/gloo/", "NCCL", "Connection closed by peer", "Connection reset by peer")
"""What torch says, in a RuntimeError, when another process of the same training has ended."""


class UserError(Exception):
    """A mistake in the input, told in one sentence: what is wrong, where, and what to do.

    Entry points print it after ``error:`` and exit with code 2; see :func:`naturalist.entry.entry_point`.
    """


def describe_error(error: BaseException) -> str:
    """What went wrong, in a few words for a line about what can be done again, and without passwords."""
    words: str = without_secrets(" ".join(str(error).partition("\n")[0].split()))
    if isinstance(error, UserError):
        return words
    if isinstance(error, KeyboardInterrupt):
        return "it was stopped"
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    if isinstance(error, OSError) and error.strerror:
        return f"{_path_of(error)}{error.strerror}"
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def explain_error(error: BaseException) -> str | None:
    """One sentence on a mistake of the user, or a fault of the machine: what, where, and what to do.

    Returns None for an error that nobody foresaw.
    """
    if isinstance(error, UserError):
        return str(without_secrets(str(error)))
    if is_out_of_memory(error):
        return f"{OUT_OF_MEMORY}: {MAKE_SMALLER}."
    if isinstance(error, OSError):
        return f"{_path_of(error)}{cause_of(error)}."
    if _is_connection_lost(error):
        return (
            "another process of this training has ended or cannot be reached, so that this one cannot go on; "
            "torchrun's table says which and how. What is saved goes on with --resume."
        )
    return None


def cause_of(error: OSError) -> str:
    """What the system says, and what to do about it, for the end of a sentence."""
    advice = ADVICE.get(error.errno or 0)
    what = error.strerror or without_secrets(" ".join(str(error).split())).rstrip(".") or type(error).__name__
    return f"{what}; {advice}" if advice else what


def reason_of(error: BaseException) -> str:
    """Why a run or a trial failed, as records keep it: a sentence, or the error's name and words."""
    return explain_error(error) or describe_error(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether more memory was asked for than there is: of the machine, or of its GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    words = str(error)
    is_torchs = isinstance(error, RuntimeError | TypeError)
    return is_torchs and any(part in words for part in ALLOCATION_FAILED)


def _is_connection_lost(error: BaseException) -> bool:
    is_torchs = any(kind.__name__ == "DistError" for kind in type(error).__mro__)
    return is_torchs or (isinstance(error, RuntimeError) and any(part in str(error) for part in CONNECTION_LOST))


def _path_of(error: OSError) -> str:
    return "" if error.filename is None else f"cannot use {error.filename!r}: "

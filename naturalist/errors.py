"""The one exception that is the user's to mend, and all others in a few words."""


class UserError(Exception):
    """A mistake in the input, told in one sentence: what is wrong, where, and what to do.

    Entry points print it after ``error:`` and exit with code 2; see :func:`naturalist.entry.entry_point`.
    """


def describe_error(error: BaseException) -> str:
    """What went wrong, in a few words for a line about what can be done again."""
    words = next(iter(str(error).splitlines()), "")
    if isinstance(error, UserError):
        return words
    if isinstance(error, KeyboardInterrupt):
        return "it was stopped"
    is_torchs = isinstance(error, RuntimeError) and "not enough memory" in str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or is_torchs:
        return "out of memory"
    return f"{type(error).__name__}: {words}" if words else type(error).__name__

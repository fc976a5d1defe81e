"""The one exception that is the user's to mend."""


class UserError(Exception):
    """A mistake in the input, told in one sentence: what is wrong, where, and what to do.

    Entry points print it after ``error:`` and exit with code 2; see :func:`naturalist.entry.entry_point`.
    """

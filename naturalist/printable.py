"""Text that others wrote (names, addresses, messages), made fit for a terminal and for records that go round."""

import json
import re
from typing import Any

HIDDEN = "***"

JOINERS = "\u200c\u200d"
"""Not shown, but without them other letters are: U+200C and U+200D."""

_MARKUP = re.compile(r"[\\`*\[\]<>#|~$&]|(?<![^\W_])_|_(?![^\W_])")
"""What means something to Markdown, its tables, its formulas or HTML; an underscore between two letters does not."""

_PASSWORD = re.compile(r"([a-z][a-z0-9+.-]*://[^\s/:@?#\"'<>]*):(?!\d+(?:[/?#\s]|$))[^\s\"'<>]*@", re.IGNORECASE)
"""``scheme://user:PASSWORD@``; in a password there may be anything, but what looks like a port is one."""

_TOKEN = re.compile(r"(https?://)[^\s/:@?#\"'<>]+@", re.IGNORECASE)
"""``https://TOKEN@host``; a database's user alone is no secret."""

_PARAMETER = re.compile(
    r"([?&][^=&\s]*(?:pass|pwd|token|secret|key|sig|cred|auth)[^=&\s]*=)[^&\s\"'<>]+", re.IGNORECASE
)
"""``?password=…``, and the signatures of addresses that are good for some time."""


def printable(name: object) -> str:
    """A name on one line, with whatever a terminal would obey or could not show replaced by ``�``.

    That are control characters, escape sequences with them, line ends of all kinds, and bytes that are no UTF-8. What
    joins letters, as Persian, Hindi and emoji need it, stays.
    """
    text = str(name).encode(errors="surrogateescape").decode(errors="replace")
    return "".join(character if character.isprintable() or character in JOINERS else "�" for character in text)


def in_markdown(name: object) -> str:
    """A name as Markdown shows it: nothing in it is taken for markup, HTML, a formula or the edge of a table's cell."""
    return _MARKUP.sub(r"\\\g<0>", printable(name))


def quoted(value: object, only_ascii: bool = False) -> str:
    """A plain value as JSON on one line, all of it printable; ``json.loads`` gives the same value back.

    So it does with names of files whose bytes are no UTF-8: ``os.fsencode`` makes those bytes of them again.
    """
    text = json.dumps(value, ensure_ascii=only_ascii)
    return "".join(character if character.isprintable() else json.dumps(character)[1:-1] for character in text)


def without_secrets(value: Any) -> Any:
    """Replace passwords and tokens in the addresses that a text, or the texts of a dict or list, name."""
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    if not isinstance(value, str):
        return value
    value = _PASSWORD.sub(rf"\1:{HIDDEN}@", value)
    return _PARAMETER.sub(rf"\1{HIDDEN}", _TOKEN.sub(rf"\1{HIDDEN}@", value))

"""YAML files of people: settings, sweeps, records."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from naturalist.errors import UserError

MOST_BYTES, MOST_VALUES, DEEPEST = 2**20, 100_000, 20
"""No file of people is as large; one that nobody wrote by hand could take all memory."""

WANDBS_OWN = ("_wandb", "wandb_version", "environment")
"""What W&B's ``config.yaml`` has beside the settings; the last is what a run's record sends along."""


class _Refused(Exception):
    """What YAML allows and nobody means; says where and what to do."""


class _Loader(yaml.SafeLoader):
    """PyYAML's, as W&B reads a sweep, but for what would silently become something else."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose keys and values; raises _Refused for a key that is there twice, of which the last would count."""
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and lines.setdefault(key.value, line) != line:
                raise _Refused(f"{key.value!r} stands in line {lines[key.value]} and in line {line}; keep one of them")
        return node

    def construct_plain_number(self, node: yaml.ScalarNode) -> int | float:
        """Read a number; raises _Refused for 010, which is 8 in YAML, and for 1:30, which is 90."""
        text = str(node.value)
        if ":" in text or re.match(r"[-+]?0[\d_]", text):
            place = f"line {node.start_mark.line + 1}"
            raise _Refused(f"YAML reads {text} in {place} as another number; write it in digits, or text in quotes")
        is_whole = node.tag.endswith(":int")
        return self.construct_yaml_int(node) if is_whole else float(self.construct_yaml_float(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_plain_number)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_plain_number)
_Loader.yaml_implicit_resolvers = {  # no setting is a date, but a name may look like one
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: Path, what: str, line: str = "setting: value") -> dict[str, Any]:
    """The content of a YAML file that holds keys and values; an empty file holds none.

    It may be UTF-8, or UTF-16 with its mark, as PowerShell writes it. A key that is there twice is refused.

    Args:
        path: the file.
        what: what it is called in messages, such as ``"configuration file"``.
        line: the form of its lines, in messages.

    Raises:
        UserError: when it cannot be read, is no YAML, is too large or too deeply nested, or holds something else.
    """
    too_much = UserError(f"{path} holds more, or more deeply nested, values than a {what} can need.")
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot read the {what} {str(path)!r}: {error.strerror}.") from None
    if len(data) > MOST_BYTES:
        raise too_much
    text = _decoded(path, data)
    try:
        content = yaml.load(text, _Loader)  # a SafeLoader
    except RecursionError:
        raise too_much from None
    except _Refused as error:
        raise UserError(f"{path}: {error}.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML{_place(error, text)}.") from None
    except (ValueError, TypeError, OverflowError) as error:  # a number of thousands of digits
        raise UserError(f"{path} is not valid YAML: {error}.") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold lines of the form '{line}'.")
    for number, depth in enumerate(_depths(content)):  # names that stand for what other names stand for multiply
        if number > MOST_VALUES or depth > DEEPEST:
            raise too_much
    return content


def without_wandb(content: dict[str, Any]) -> dict[str, Any]:
    """The settings in W&B's own ``config.yaml`` of a run, without what is W&B's; other settings as they are.

    There a setting is ``learning_rate: {desc: null, value: 0.001}``; newer versions leave ``desc`` out.
    """
    is_wandbs = "_wandb" in content or "wandb_version" in content
    settings = {name: value for name, value in content.items() if not (is_wandbs and name in WANDBS_OWN)}
    for name, value in settings.items():
        if isinstance(value, dict) and "value" in value and value.keys() <= {"desc", "value"}:
            settings[name] = value["value"]
    return settings


def _decoded(path: Path, data: bytes) -> str:
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path} is not UTF-8 (line {number}); save it as UTF-8.") from None
    if "\0" in text:
        raise UserError(f"{path} is no text, or not UTF-8; save it as UTF-8.")
    return text


def _place(error: yaml.YAMLError, text: str) -> str:
    """Where a file is no YAML, and why where that is easily told."""
    if isinstance(error, yaml.reader.ReaderError):
        number = text.count("\n", 0, error.position) + 1
        return f" (line {number} has a character that cannot be shown)"
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return ""
    has_tab = "\t" in "".join(text.splitlines()[mark.line : mark.line + 1])
    return f" (line {mark.line + 1}{' has a tab; write spaces' if has_tab else ''})"


def _depths(content: Any) -> Iterator[int]:
    """How deep each value lies, every name in the file replaced by what it stands for."""
    waiting = [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        yield depth
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | set) else ()
        waiting += [(item, depth + 1) for item in inner]

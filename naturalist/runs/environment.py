"""What a run was made with: versions, hardware, commit, command line, and no private paths."""

import os
import platform
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import naturalist
from naturalist.printable import without_secrets
from naturalist.ranks import this_rank


def describe_environment() -> dict[str, Any]:
    """Everything that ``environment.json`` says."""
    import torch  # here, so that reading a record does not cost its import

    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *map(without_private, sys.argv)]),
        "naturalist": naturalist.__version__,
        "git": _git_state(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "torchvision", "numpy")},
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "ranks": this_rank().count,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def without_private(value: Any) -> Any:
    """What may be shown of text, alone or in a dict or list: no passwords in addresses, and shorter paths.

    The working directory becomes ``.``, the home folder ``~``; see also
    :func:`naturalist.printable.without_secrets`.
    """
    if isinstance(value, dict):
        return {key: without_private(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_private(item) for item in value]
    if not isinstance(value, str):
        return value
    value = without_secrets(value)
    short_names = {Path.home(): "~", Path.cwd(): "."}
    for folder in sorted(short_names, key=lambda folder: -len(folder.parts)):  # the inner one first
        if folder != folder.parent:  # "/" as a home would match every path
            value = re.sub(rf"(?<![\w.~-]){re.escape(str(folder))}(?![\w.-])", short_names[folder], value)
    return value


def shell_path(path: str | Path) -> str:
    """A path as it is typed in a shell, from the working directory."""
    with suppress(ValueError):  # on another drive of Windows
        path = os.path.relpath(path)
    return shell_word(path)


def shell_word(word: str | Path) -> str:
    """A word as it is typed in a shell: on Windows in double quotes, where it needs any."""
    if os.name != "nt":
        return shlex.quote(str(word))
    return f'"{word}"' if re.search(r"[^\w./\\:=+-]", str(word)) else str(word)


def _git_state() -> dict[str, Any] | None:
    """Return the commit of the checkout this code runs from; None without a checkout or without git."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        # Refuses a copy that was installed inside another project's checkout.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _cpu_name() -> str:
    try:
        found = re.search(
            r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"), re.MULTILINE
        )
    except OSError:  # not Linux
        found = None
    return found[1] if found else platform.processor() or platform.machine()

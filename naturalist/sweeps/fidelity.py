"""Cheap first looks: all trials on smaller or fewer images, and the best of them on to the next round.

This is successive halving (Jamieson & Talwalkar 2016, https://arxiv.org/abs/1502.07943) over any settings that make a
trial cheaper. What is promoted is trained to its end: among a few good settings the first epochs say little about the
last, so a rule such as hyperband's would often stop the best of them.
"""

import math
import re
from typing import Any

from naturalist.sweeps.parameter import require
from naturalist.sweeps.program import Program, parse_some
from naturalist.sweeps.space import SweepFile
from naturalist.sweeps.trials import Trials

PROMOTED_SHARE = 10
"""One in so many settings goes on from a round to the next; benchmarks/RESULTS.md tells what that saves and costs."""

PROMOTED_AT_LEAST = 3
"""A cheap look is too rough to tell the very best from the next."""


def plan_rounds(options: list[str], sweep: SweepFile, program: Program) -> list[list[str]]:
    """The flags that each round adds to its trials; the last round has none.

    Each option is ``NAME=VALUE,VALUE``, a value for each cheap round; several make the same rounds cheaper. Raises
    :class:`UserError` for one that cannot be read, that the sweep searches, or that makes no difference.
    """
    searched = [name.replace("-", "_") for name in sweep.searched]
    columns = []
    for option in options:
        name, _, values = option.partition("=")
        setting = name.replace("-", "_")
        require(values, "--fidelity must be NAME=VALUE,VALUE …, such as image_size=32,64.")
        require(setting not in searched, f"--fidelity {setting}: the sweep searches that setting itself.")
        columns.append([f"--{setting}={value}" for value in values.split(",")])
    is_even = len({len(column) for column in columns}) <= 1
    require(is_even, "every --fidelity must have as many values as the others, one for each cheap round.")
    require(
        not columns or sweep.run_cap is None,
        f"{sweep.path}: run_cap counts runs, but --fidelity runs the best settings more than once; take run_cap "
        "out and say --count N for the first round.",
    )
    rounds = [list(flags) for flags in zip(*columns, strict=True)]
    seen = [parse_some(sweep, program, {})] if rounds else []
    for flags in rounds:
        settings = parse_some(sweep, program, {}, flags)
        shown = ", ".join(flags).replace("--", "")
        require(
            settings not in seen,
            f"--fidelity: with {shown} a round would be no other than the last or an earlier one.",
        )
        seen.append(settings)
    return [*rounds, []]


def name_round(flags: list[str]) -> str:
    """What a round adds to the names of its folders, such as ``@image_size=32``; nothing for the last."""
    return re.sub(r"[^\w@=.,+-]", "-", f"@{','.join(flags)}".replace("--", "")) if flags else ""


def promoted(trials: Trials) -> list[dict[str, Any]]:
    """What the best tenth of a round searched, best first."""
    candidates = trials.ranked()
    require(candidates, "no trial of the round ended well, so none can be promoted.")
    keep = max(PROMOTED_AT_LEAST, math.ceil(len(candidates) / PROMOTED_SHARE))
    return [trial.params for trial in candidates[:keep]]

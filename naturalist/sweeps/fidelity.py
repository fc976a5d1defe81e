"""Cheap first looks: all trials on smaller or fewer images, and the best of them on to the next round.

This is successive halving (Jamieson & Talwalkar 2016, https://arxiv.org/abs/1502.07943) over any settings that make a
trial cheaper. What is promoted is trained to its end: among a few good settings the first epochs say little about the
last, so a rule such as hyperband's would often stop the best of them.
"""

import math
import re

from naturalist.errors import UserError
from naturalist.sweeps.program import Program, parse_some
from naturalist.sweeps.space import SweepFile
from naturalist.sweeps.trials import Trials

PROMOTED_SHARE = 10
"""One in so many settings goes on from a round to the next; benchmarks/RESULTS.md tells what that saves and costs."""

PROMOTED_AT_LEAST = 3
"""A cheap look is too rough to tell the very best from the next."""


def plan_rounds(options: list[str] | None, sweep: SweepFile, program: Program, arguments: list[str]) -> list[list[str]]:
    """The flags that each round adds to its trials; the last round has none.

    Args:
        options: ``NAME=VALUE,VALUE``, a value for each cheap round; several make the same rounds cheaper.
        sweep: the search.
        program: reads the settings.
        arguments: flags of every trial beside the sweep's.

    Raises:
        UserError: for an option that cannot be read, that the sweep searches, or that makes no difference.
    """
    columns = []
    for option in options or []:
        name, _, values = option.partition("=")
        setting = name.replace("-", "_")
        if not values:
            raise UserError("--fidelity must be NAME=VALUE,VALUE …, such as image_size=32,64.")
        if setting in [item.name.replace("-", "_") for item in sweep.parameters if not item.is_constant]:
            raise UserError(f"--fidelity {setting}: the sweep searches that setting itself.")
        columns.append([f"--{setting}={value}" for value in values.split(",")])
    if len({len(column) for column in columns}) > 1:
        raise UserError("every --fidelity must have as many values as the others, one for each cheap round.")
    if columns and sweep.run_cap is not None:
        raise UserError(
            f"{sweep.path}: run_cap counts runs, but --fidelity runs the best settings more than once; "
            "take run_cap out and say --count N for the first round."
        )
    rounds = [list(flags) for flags in zip(*columns, strict=True)]
    seen = [parse_some(sweep, program, arguments, {})] if rounds else []
    for flags in rounds:
        settings = parse_some(sweep, program, arguments, {}, flags)
        if settings in seen:
            raise UserError(
                f"--fidelity: with {', '.join(flags).replace('--', '')} a round would be no other than the "
                "last or an earlier one."
            )
        seen.append(settings)
    return [*rounds, []]


def name_round(flags: list[str]) -> str:
    """What a round adds to the names of its folders, such as ``@image_size=32``; nothing for the last."""
    return re.sub(r"[^\w@=.,+-]", "-", f"@{','.join(flags)}".replace("--", "")) if flags else ""


def promoted(trials: Trials) -> list[dict]:
    """What the best tenth of a round searched, best first."""
    candidates = [
        trial for trial in trials.shown() if trials.value(trial) is not None and "failure" not in trial.user_attrs
    ]
    keep = max(PROMOTED_AT_LEAST, math.ceil(len(candidates) / PROMOTED_SHARE))
    if not candidates:
        raise UserError("no trial of the round ended well, so none can be promoted.")
    return [trial.params for trial in sorted(candidates, key=trials.value, reverse=trials.sweep.maximize)[:keep]]

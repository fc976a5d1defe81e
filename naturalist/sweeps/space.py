"""``sweep.yaml``, read as Weights & Biases reads it: every key is honoured, or refused by name.

The format is W&B's, https://docs.wandb.ai/guides/sweeps/define-sweep-configuration.
"""

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution

from naturalist.settings.groups import BOOKKEEPING
from naturalist.settings.spelling import nearest
from naturalist.settings.yaml_file import read_yaml
from naturalist.sweeps.hyperband import HyperbandRule
from naturalist.sweeps.parameter import Parameter, is_whole, read_parameter, refuse_unknown, require, require_number

NAMING_KEYS = ("name", "description", "project", "entity")
"""Keys that only name things at W&B."""

SWEEP_KEYS = ("program", "method", "metric", "parameters", "early_terminate", "run_cap", "command", *NAMING_KEYS)
"""Keys that are understood."""

LARGEST_GRID = 100_000
"""More runs than anybody makes; a grid is kept in memory."""

METHODS = ("grid", "random", "bayes")


@dataclass(frozen=True)
class SweepFile:
    """A search, as ``sweep.yaml`` defines it."""

    path: Path
    name: str
    program: Path
    method: str
    metric: str
    maximize: bool
    target: float | None
    parameters: tuple[Parameter, ...]
    rule: HyperbandRule | None
    run_cap: int | None
    command: tuple[str, ...]
    given: tuple[str, ...] = ()
    """Flags of every trial beside the file's, such as ``--image_size=64``."""

    @property
    def varied(self) -> list[Parameter]:
        """The parameters that are not constant."""
        return [item for item in self.parameters if not item.is_constant]

    @property
    def searched(self) -> dict[str, BaseDistribution]:
        """Optuna's distribution of every parameter that is not constant."""
        return {item.name: item.optuna_distribution() for item in self.varied}

    def settings(self, searched: dict[str, Any]) -> dict[str, Any]:
        """The settings of a trial, by name, for what Optuna searched."""
        return {item.name: item.value(searched.get(item.name)) for item in self.parameters}

    def size(self) -> int | None:
        """How many different settings there are; None when there is no end of them."""
        counts = [item.count() for item in self.varied]
        return None if None in counts else math.prod(count or 0 for count in counts)

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every combination of what Optuna could search, the last parameter varying fastest."""
        for combination in itertools.product(*(item.choices() or [] for item in self.varied)):
            yield {item.name: choice for item, choice in zip(self.varied, combination, strict=True)}

    def fingerprint(self) -> str:
        """What two sweeps must have in common to be the same one."""
        content = {
            "method": self.method,
            "metric": self.metric,
            "maximize": self.maximize,
            "rule": self.rule and vars(self.rule),
            "command": self.command,
            "program": self.program.name,
            "parameters": {item.name: [item.distribution, item.spec] for item in self.parameters},
            **self._given(),
        }
        return json.dumps(content, sort_keys=True)

    def _given(self) -> dict[str, str]:
        """What was given beside the file, of a path only its last part, for machines keep things in other places."""
        pairs = [flag[2:].replace("-", "_").partition("=")[::2] for flag in self.given]
        return {f"--{name}": value.rstrip("/").rpartition("/")[2] for name, value in pairs if name not in BOOKKEEPING}


def read_sweep(path: Path) -> SweepFile:
    """Read and check ``sweep.yaml``; whether the program takes the parameters is checked with the program.

    Raises :class:`UserError` naming the first key that cannot be honoured.
    """
    content = read_yaml(path, "sweep file", "key: value")
    for key in content:
        hint = nearest(str(key), SWEEP_KEYS)
        require(key in SWEEP_KEYS, f"{path}: a sweep that runs here has no {key!r}{hint}")
    method: Any = content.get("method")
    require(method in METHODS, f"{path}: method must be grid, random or bayes, but it is {method!r}.")
    parameters: Any = content.get("parameters")
    require(isinstance(parameters, dict) and parameters, f"{path}: 'parameters' must name the settings to search.")
    metric, maximize, target = _metric(path, content)
    parsed = tuple(read_parameter(f"{path}: {name}", str(name), spec) for name, spec in parameters.items())
    for item in parsed if method == "grid" else ():
        sentence = f"a grid needs values, whole numbers or q_uniform, not {item.distribution}."
        require(item.is_constant or item.count() is not None, f"{path}: {item.name}: {sentence}")
    run_cap = content.get("run_cap")
    is_cap = run_cap is None or (is_whole(run_cap) and run_cap > 0)
    require(is_cap, f"{path}: run_cap must be a whole number above 0, but it is {run_cap!r}.")
    command = content.get("command", ["${env}", "${interpreter}", "${program}", "${args}"])
    require(isinstance(command, list), f'{path}: command must be a list, as in [python, "${{program}}", "${{args}}"].')
    program: Any = content.get("program")
    require(isinstance(program, str), f"{path}: 'program' must name the script to run, such as partA/train.py.")
    name, rule = str(content.get("name") or path.stem), _rule(path, content)
    parts = tuple(map(str, command))
    sweep = SweepFile(path, name, Path(program), method, metric, maximize, target, parsed, rule, run_cap, parts)
    size = sweep.size() if method == "grid" else 0
    sentence = f"the grid has {size:,} combinations, but at most {LARGEST_GRID:,} can be gone through"
    require((size or 0) <= LARGEST_GRID, f"{path}: {sentence}; take values out, or search with method random or bayes.")
    return sweep


def _metric(path: Path, content: dict[str, Any]) -> tuple[str, bool, float | None]:
    metric = content.get("metric")
    if metric is None:
        is_needed = content["method"] == "bayes" or content.get("early_terminate")
        require(not is_needed, f"{path}: 'metric' is needed for method bayes and for early_terminate.")
        return "val_accuracy", True, None
    refuse_unknown(f"{path}: metric", metric, ("name", "goal", "target"))
    name, goal, target = metric.get("name"), metric.get("goal", "minimize"), metric.get("target")
    require(isinstance(name, str), f"{path}: metric needs a name, such as val_accuracy.")
    is_goal = goal in ("minimize", "maximize")
    require(is_goal, f"{path}: metric.goal must be minimize or maximize, but it is {goal!r}.")
    if target is not None:
        require_number(f"{path}: metric.target", target)
    return name, goal == "maximize", target


def _rule(path: Path, content: dict[str, Any]) -> HyperbandRule | None:
    spec = content.get("early_terminate")
    if spec is None:
        return None
    where = f"{path}: early_terminate"
    refuse_unknown(where, spec, ("type", "min_iter", "max_iter", "s", "eta", "strict"))
    require(spec.get("type") == "hyperband", f"{where}.type must be hyperband, but it is {spec.get('type')!r}.")
    is_either = ("min_iter" in spec) != ("max_iter" in spec) and ("max_iter" in spec) == ("s" in spec)
    require(is_either, f"{where} needs either min_iter, or max_iter and s.")
    for key in ("min_iter", "max_iter", "s"):
        is_count = key not in spec or (is_whole(spec[key]) and spec[key] >= 1)
        require(is_count, f"{where}.{key} must be a whole number from 1 on, but it is {spec.get(key)!r}.")
    eta, strict = spec.get("eta", 3), spec.get("strict", True)
    require_number(f"{where}.eta", eta)
    require(eta > 1, f"{where}.eta must be greater than 1, but it is {eta!r}.")
    require(isinstance(strict, bool), f"{where}.strict must be true or false, but it is {strict!r}.")
    rule = HyperbandRule(spec.get("min_iter"), spec.get("max_iter"), spec.get("s"), eta, strict)
    shortest = f"max_iter ({spec.get('max_iter')}) is below eta ({eta})"
    require(rule.bands, f"{where} would never stop a run: {shortest}.")
    return rule

"""``python -m naturalist evaluate RUN RUN …``: several runs on the same images.

Runs that differ in nothing but the seed have a mean and a deviation; two runs, whatever they are, are compared image
by image.
"""

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from naturalist.errors import UserError
from naturalist.evaluation.evaluate import evaluate_run
from naturalist.evaluation.metrics import mcnemar, paired_interval, read_predictions_csv
from naturalist.evaluation.variants import HEADINGS, NUMBERS, names_of_variants, show
from naturalist.printable import printable
from naturalist.progress import print_numbers, print_table
from naturalist.ranks import this_rank
from naturalist.runs.folder import read_config
from naturalist.settings.groups import BOOKKEEPING
from naturalist.wording import counted, number, p_value, points

NO_MATTER = ("seed", *BOOKKEEPING)
"""Settings in which runs may differ and still be repetitions of each other."""


def evaluate_runs(runs: list[Path], split: str = "test", **options: Any) -> dict[str, Any]:
    """Evaluate each run, then print what they say together.

    Args:
        runs: run folders, or checkpoint files; at least two.
        split: see :func:`naturalist.evaluation.evaluate.evaluate_run`.
        options: see there.

    Returns:
        ``runs`` (the metrics of each), ``mean`` and ``deviation`` (of the sample, n - 1) of accuracy, balanced
        accuracy, loss and calibration error, the same of every variant under its name, with ``gain``; for two runs also
        ``paired``, see :func:`mcnemar`, with the interval of how much more accurate the first is.

    Raises:
        UserError: when runs were shown different images, or one cannot be evaluated.
    """
    folders = [run if run.is_dir() else run.parent for run in runs]
    all_metrics, predictions = [], []
    for run, folder in zip(runs, folders, strict=True):
        all_metrics.append(evaluate_run(run, split, quiet=True, **options))
        if not this_rank().is_first:
            continue
        # Read at once: two checkpoints of one run write to the same place.
        predictions.append(read_predictions_csv(folder / "evaluation" / split / "predictions.csv"))
    if not this_rank().is_first:
        return {"runs": all_metrics}
    for folder, (files, truth, _, _) in zip(folders[1:], predictions[1:], strict=True):
        if (files, truth) != predictions[0][:2]:
            raise UserError(
                f"{folders[0].name} and {folder.name} were shown different images; pass --data to show "
                "both the same, or --split test."
            )
    result: dict[str, Any] = {"runs": all_metrics, **_mean_and_deviation(all_metrics)}
    for name in names_of_variants(all_metrics[0]):
        own = _mean_and_deviation([metrics[name] for metrics in all_metrics])
        gain = {key: own["mean"][key] - result["mean"][key] for key in NUMBERS}
        result[name] = {**own, "gain": gain}
    if len(runs) == 2:
        right = [
            np.array([names[i] for i in p.argmax(axis=1)]) == np.array(truth) for _, truth, p, names in predictions
        ]
        result["paired"] = {**mcnemar(*right), "difference_95_interval": list(paired_interval(*right))}
    _print(result, [folder.resolve().name for folder in folders], split, _differences(folders))
    return result


def _mean_and_deviation(all_metrics: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    values = {key: np.array([metrics[key] for metrics in all_metrics]) for key in NUMBERS}
    return {
        "mean": {key: float(value.mean()) for key, value in values.items()},
        "deviation": {key: float(value.std(ddof=1)) for key, value in values.items()},
    }


def _differences(folders: list[Path]) -> list[str]:
    """Settings, other than the seed, in which the runs differ."""
    configs = [read_config(folder) for folder in folders]
    names = sorted({name for config in configs for name in config} - set(NO_MATTER))
    return [name for name in names if any(config.get(name) != configs[0].get(name) for config in configs)]


def _print(result: dict[str, Any], names: list[str], split: str, differences: list[str]) -> None:
    for variant in ("", *names_of_variants(result["runs"][0])):
        _print_table(result, names, split, variant)
    if differences:
        print_numbers(
            f"The runs differ in more than the seed ({', '.join(differences)}), so mean and deviation "
            "describe this choice of runs, not chance."
        )
    if "paired" in result:
        paired, first, second = result["paired"], *map(printable, names)
        low, high = paired["difference_95_interval"]
        gain = result["runs"][0]["accuracy"] - result["runs"][1]["accuracy"]
        print_numbers(
            f"Only {first} right: {counted(paired['only_first_right'], 'image')}; only {second} right: "
            f"{paired['only_second_right']:,}; {first} − {second}: {points(gain)} (95 % interval "
            f"{number(100 * low)} to {points(high)}); McNemar's exact test: {p_value(paired['p_value'])}"
        )


def _print_table(result: dict[str, Any], names: list[str], split: str, variant: str) -> None:
    """What the runs say, plainly or in a variant, which shows in brackets what it gains."""
    words = f", {variant.replace('_', ' ')}, in brackets the gain" if variant else ""
    table = Table("run", title=f"{split}: {counted(result['runs'][0]['n'], 'image')}{words}", title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    for name, metrics in zip(names, result["runs"], strict=True):
        own, plain = (metrics[variant], metrics) if variant else (metrics, {})
        table.add_row(printable(name), *(show(key, own[key], plain.get(key)) for key in NUMBERS))
    table.add_section()
    both = result[variant] if variant else result
    numbers = (
        f"{show(key, both['mean'][key]).removesuffix(' %')} ± {show(key, both['deviation'][key])}" for key in NUMBERS
    )
    table.add_row("mean ± deviation", *numbers)
    print_table(table)

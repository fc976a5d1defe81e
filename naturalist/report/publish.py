"""The report at Weights & Biases, beside the runs that are there."""

import os
from typing import Any

from naturalist.errors import UserError, describe_error
from naturalist.report.blocks import Report, Section
from naturalist.report.page import render_markdown
from naturalist.runs.weights_and_biases import why_unreachable

INSTALL = "pip install 'naturalist[wandb-report]'"
LONGEST_TITLE = 128
SWEPT = ("learning_rate", "num_filters", "filter_organization", "activation", "batch_norm", "dropout", "batch_size")


def require_login() -> None:
    """Raise :class:`UserError` when a report cannot be published: no library, no login, or no server that answers."""
    try:
        import wandb_workspaces.reports.v2  # noqa: F401
    except ImportError:
        raise UserError(f"--wandb needs a library that is not installed: {INSTALL}") from None
    import wandb

    if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        raise UserError("--wandb needs W&B's server, but WANDB_MODE switches it off; unset it, or leave --wandb out.")
    session = wandb.setup(wandb.Settings(silent=True))
    if not wandb.login(prompt=False, verify=False):
        raise UserError("nobody is logged in to W&B: run `wandb login`, or leave --wandb out.")
    if cause := why_unreachable(session.settings.base_url):
        raise UserError(f"W&B's server does not answer ({cause}); try again later, or leave --wandb out.")


def publish(report: Report, project: str) -> str:
    """Publish sentences, tables and commands, and W&B's own panels of the project's runs; returns the address.

    Pictures stay in the page: a report there shows only pictures that lie at a public address.

    Raises:
        UserError: when the server does not take it.
    """
    import wandb_workspaces.reports.v2 as reports

    project = os.environ.get("WANDB_PROJECT") or project
    blocks: list[Any] = [reports.TableOfContents()]
    for section in report.sections:
        part = Report("", "", [Section(section.key, section.title, section.blocks)])
        text = render_markdown(part, None).partition("\n## ")[2].partition("\n")[2]
        blocks += [reports.H1(text=section.title), reports.MarkdownBlock(text=text.strip())]
        if section.key == "part-a":
            blocks.append(_panels(reports, project))
    try:
        made = reports.Report(
            project=project,
            title=report.title[:LONGEST_TITLE],
            description=report.subtitle,
            blocks=blocks,
        )
        made.save()
    except Exception as error:  # of many kinds: of W&B's library, of its transport, of the server
        cause = describe_error(error)
        raise UserError(f"W&B did not take the report ({cause}); the page itself is written.") from error
    return str(made.url)


def _panels(reports: Any, project: str) -> Any:
    """W&B's parallel coordinates, importance and curves of the runs that it has."""
    columns = [reports.ParallelCoordinatesPlotColumn(metric=f"c::{name}") for name in SWEPT]
    columns.append(reports.ParallelCoordinatesPlotColumn(metric="best_val_accuracy"))
    return reports.PanelGrid(
        runsets=[reports.Runset(project=project)],
        panels=[
            reports.ParallelCoordinatesPlot(columns=columns),
            reports.ParameterImportancePlot(with_respect_to="best_val_accuracy"),
            reports.LinePlot(x="epoch", y=["val_accuracy"]),
        ],
    )

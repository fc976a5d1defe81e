"""Train the five-block CNN, from scratch or with a teacher.

python partA/train.py --config configs/partA/default.yaml --data nature_12K
python partA/train.py --data sample --num_filters 64 --activation GELU --no_batch_norm
python partA/train.py --data FOLDER --teacher runs/finetuned
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naturalist.entry import entry_point
from naturalist.settings.command_line import parse_settings
from naturalist.settings.part_a import CnnSettings

if TYPE_CHECKING:
    from naturalist.data.dataset import Scan
    from naturalist.training.fit import ShouldStop

RECIPES = Path(__file__).resolve().parent.parent / "configs" / "partA"
EXAMPLE = "python partA/train.py --config default.yaml --data nature_12K --num_filters 64"


def main() -> None:
    """Parse the command line and train."""
    words = "Train the five-block CNN, from scratch or, with a teacher, distilled."
    train(parse_settings(CnnSettings, words, example=EXAMPLE, recipes=RECIPES))


def train(settings: CnnSettings, should_stop: "ShouldStop | None" = None, scan: "Scan | None" = None) -> dict[str, Any]:
    """Settings → data → model → a teacher's outputs → fit → a look at the validation set.

    Args:
        settings: everything that can be set.
        should_stop: asked after every epoch with its metrics; a sweep ends hopeless runs by it.
        scan: lists a folder; a sweep remembers what it found.

    Returns:
        The run's summary, see :func:`naturalist.training.fit.fit`, with ``folder``.
    """
    print(f"The five-block CNN, {settings.beginning}, on {settings.data.data}", flush=True)
    # Imported now, so that --help does not wait for torch, and nobody waits for the line above.
    import torch

    from naturalist.evaluation.closing import finish_run
    from naturalist.models import build_model
    from naturalist.models.summary import summarize
    from naturalist.runs.checkpoint import goes_on
    from naturalist.runs.identity import identify_run
    from naturalist.runs.recording import record_run
    from naturalist.seeding import derive_seed
    from naturalist.training.find_rate import find_learning_rate
    from naturalist.training.fit import fit
    from naturalist.training.recipe import plan_growth, release_groups, set_up
    from naturalist.training.start import start_training
    from naturalist.training.teacher import find_teacher

    start = start_training(settings, scan)
    description = {
        "kind": "five_block_cnn",
        "num_classes": start.plan.num_classes,
        "image_size": settings.data.image_size,
        **vars(settings.model),
    }
    seed, growth = derive_seed(settings.training.seed, "weights"), plan_growth(settings)
    torch.manual_seed(seed)
    model = build_model(description)
    summary = summarize(model, settings.data.image_size)
    print(f"Data: {start.plan.description}")
    print(
        f"Model: {summary.parameters:,} parameters, {summary.multiply_accumulates / 1e6:,.0f} million "
        "multiply–accumulates per image"
    )
    if growth is not None:
        print(f"Training images: {growth}")
    teacher = find_teacher(settings, start.plan.class_names, None if start.data is None else start.data.split)
    if start.data is None:
        print(start.steps)
        return {"status": "dry run"}
    release = release_groups(model, settings.training, settings.recipe)
    data = replace(start.data, growth=growth)
    if settings.record.find_lr:
        set_up(model, settings.recipe, data, seed)
        taught = data if teacher is None else teacher.teach(settings, data, start.compute)[0]
        return find_learning_rate(model, taught, settings, start.compute, release.groups(0) if release else None)

    with record_run(settings, job_type="partA", may_begin=True) as tracker:
        tracker.write("model.txt", f"The five-block CNN, {settings.beginning}\n\n{summary}\n")
        tracker.set_summary({"parameters": summary.parameters, "multiply_accumulates": summary.multiply_accumulates})
        origin = identify_run(tracker.folder, settings, start.data, description)
        resume = goes_on(settings.record.resume)
        set_up(model, settings.recipe, None if resume else data, seed)
        if teacher is not None:
            data, about_teacher = teacher.teach(settings, data, start.compute)
            tracker.set_summary(about_teacher)
        result = fit(
            model,
            data,
            settings.training,
            settings.augmentation,
            start.compute,
            tracker,
            origin,
            resume=resume,
            checkpoint_seconds=settings.record.checkpoint_seconds,
            should_stop=should_stop,
            release=release,
        )
        return finish_run(tracker, result, settings, model)


if __name__ == "__main__":
    with entry_point(trains=True):
        main()

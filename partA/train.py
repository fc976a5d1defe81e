"""Train the five-block CNN from scratch.

python partA/train.py --config configs/partA/default.yaml --data nature_12K
python partA/train.py --data sample --num_filters 64 --activation GELU --no_batch_norm
"""

from collections.abc import Callable

from naturalist.settings.config import CnnSettings, entry_point, parse_settings


def main() -> None:
    """Parse the command line and train."""
    train(parse_settings(CnnSettings, "Train the five-block CNN from scratch."))


def train(settings: CnnSettings, should_stop: Callable[[dict], bool] | None = None) -> dict:
    """Settings → data → model → fit → a look at the validation set.

    Args:
        settings: everything that can be set.
        should_stop: asked after every epoch with its metrics; a sweep ends hopeless runs by it.

    Returns:
        The run's summary, see :func:`naturalist.training.engine.fit`, with ``folder``.
    """
    # Imported after parsing, so that --help does not wait for torch.
    import torch

    from naturalist.data.dataset import load_training_data
    from naturalist.device import choose_device
    from naturalist.evaluation.closing import finish_run, record_run
    from naturalist.models import build_model
    from naturalist.models.summary import summarize
    from naturalist.seeding import derive_seed
    from naturalist.training.engine import fit

    device = choose_device(settings.device)
    data = load_training_data(settings)
    description = {
        "kind": "five_block_cnn",
        "num_classes": len(data.class_names),
        "image_size": settings.image_size,
        "num_filters": settings.num_filters,
        "filter_organization": settings.filter_organization,
        "kernel_size": settings.kernel_size,
        "padding": settings.padding,
        "activation": settings.activation,
        "batch_norm": settings.batch_norm,
        "pooling": settings.pooling,
        "dropout": settings.dropout,
        "dense_units": settings.dense_units,
    }
    torch.manual_seed(derive_seed(settings.seed, "weights"))
    model = build_model(description)
    summary = summarize(model, settings.image_size)
    print(f"Data: {data.description}")
    print(
        f"Model: {summary.parameters:,} parameters, {summary.multiply_accumulates / 1e6:,.0f} million "
        "multiply–accumulates per image"
    )

    with record_run(settings, job_type="partA") as tracker:
        (tracker.folder / "model.txt").write_text(f"{summary}\n", encoding="utf-8")
        tracker.set_summary({"parameters": summary.parameters, "multiply_accumulates": summary.multiply_accumulates})
        result = fit(model, description, data, settings, tracker, device, should_stop)
        finish_run(tracker, result, settings)
    return {**result, "folder": str(tracker.folder)}


if __name__ == "__main__":
    with entry_point():
        main()

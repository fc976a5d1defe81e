"""``python -m naturalist export RUN``: a model for other programs, with its preprocessing in the file."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from naturalist.entry import stops_wait
from naturalist.errors import UserError, cause_of, is_out_of_memory
from naturalist.evaluation.classifier import Classifier, load_classifier, require_finite
from naturalist.evaluation.split_images import images_of_split
from naturalist.files import write_atomically, written_whole
from naturalist.printable import printable
from naturalist.runs.checkpoint import load_checkpoint
from naturalist.runs.environment import shell_path

T = TypeVar("T")

FILE_NAMES = {"onnx": "model.onnx", "torch": "model.pt2"}
METADATA = "naturalist.json"
"""Key of the metadata, a JSON text, in the exported file."""

CHECKED_IMAGES = 16
TOLERANCE = 1e-3
"""Largest difference of logits, relative to the largest logit, that passes for rounding."""

_PREPARE = '''
sys.stdout.reconfigure(errors="backslashreplace")
with contextlib.suppress(ImportError):  # HEIC, where pip install pillow-heif was done
    import pillow_heif
    pillow_heif.register_heif_opener()


def prepare(path, about):
    """A photograph as the network's input, float32 [3, S, S], by the steps with which it was trained."""
    photo = Image.open(open(path, "rb"))  # given a name, Pillow 12 misreads a TIFF that has to be turned
    photo.draft(None, [about["jpeg_size"]] * 2)  # a large JPEG is decoded at 1/2, 1/4 or 1/8
    photo.load()
    orientation = photo.getexif().get(274)
    if photo.mode.startswith("I"):  # 16 bits
        deep = np.asarray(photo)
        photo = Image.fromarray((deep // (257 if deep.max() > 255 else 1)).clip(0, 255).astype(np.uint8))
    if photo.has_transparency_data:  # is laid on white
        photo = photo.convert("RGBA")
        photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo)
    pixels, squash = np.asarray(photo.convert("RGB")), about["resize_mode"] == "squash"
    pixels = resize(pixels if squash else middle(pixels, min(photo.size)), about["resize_size"], about["interpolation"])
    pixels = pixels.transpose(1, 0, 2) if orientation in (5, 6, 7, 8) else pixels
    pixels = pixels[::-1] if orientation in (3, 4, 7, 8) else pixels
    pixels = pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels
    if squash:
        pixels = resize(pixels, about["image_size"], about["interpolation"], rounded=False)
    pixels = middle(pixels, about["image_size"])
    return ((pixels / 255 - about["mean"]) / about["std"]).astype(np.float32).transpose(2, 0, 1)


def middle(pixels, side):
    """The square in the middle of [H, W, 3]."""
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return pixels[top : top + side, left : left + side]


def resize(pixels, side, how, rounded=True):
    """[H, W, 3] to [side, side, 3] with antialiasing: what Pillow does, but rounded as PyTorch rounds."""
    reach = {"bilinear": 1, "bicubic": 2}[how]
    for _ in range(2):  # columns, then rows
        pixels = pixels.transpose(1, 0, 2)
        if len(pixels) == side:
            continue
        scale = len(pixels) / side
        stretch, weights = max(scale, 1), []
        for centre in (np.arange(side) + 0.5) * scale:
            start = int(max(centre - reach * stretch + 0.5, 0))
            end = int(min(centre + reach * stretch + 0.5, len(pixels)))
            far = abs(np.arange(start, end) - centre + 0.5) / stretch
            near, wide = np.polyval([1.5, -2.5, 0, 1], far), np.polyval([-0.5, 2.5, -4, 2], far)
            share = np.maximum(1 - far, 0) if reach == 1 else np.where(far < 1, near, np.where(far < 2, wide, 0))
            weights.append((start, end, share / share.sum()))
        most = max(share.max() for _, _, share in weights)
        one = 2 ** max(bits for bits in range(23) if int(0.5 + most * 2**bits) < 2**15)  # weights have 15 bits
        rows = []
        for start, end, share in weights:
            share = np.trunc(share * one + np.copysign(0.5, share)) / one if rounded else share
            rows.append(np.tensordot(share, pixels[start:end].astype(float), 1))
        pixels = np.stack(rows)
        pixels = np.floor(pixels + 0.5).clip(0, 255) if rounded else pixels
    return pixels


'''

_ARGUMENTS = """\
model, photos = os.path.join(os.path.dirname(os.path.abspath(__file__)), MODEL), sys.argv[1:]
if photos and photos[0].endswith((".onnx", ".pt2")):  # another model than the one beside it
    model, *photos = photos
if not photos:
    sys.exit(print(__doc__.replace("FILE", sys.argv[0]), file=sys.stderr) or 2)
"""

_SAY = """\
    name, shown = about["class_names"][probabilities.argmax()], path.encode(errors="replace").decode()
    print(shown, name, f"{100 * probabilities.max():.1f} %")
"""

EXAMPLES = {
    "onnx": '''\
"""Classify photographs: python FILE [model.onnx] PHOTO …  (needs numpy, pillow, onnxruntime)."""
import contextlib, json, os, sys, numpy as np, onnxruntime
from PIL import Image
'''
    + _PREPARE
    + _ARGUMENTS
    + """\
session = onnxruntime.InferenceSession(model)
about = json.loads(session.get_modelmeta().custom_metadata_map["naturalist.json"])
for path in photos:
    logits = session.run(None, {"images": prepare(path, about)[None]})[0][0]
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
"""
    + _SAY,
    "torch": '''\
"""Classify photographs: python FILE [model.pt2] PHOTO …  (needs numpy, pillow, torch)."""
import contextlib, json, os, sys, numpy as np, torch
from PIL import Image
'''
    + _PREPARE
    + _ARGUMENTS
    + """\
model = torch.export.load(model, extra_files=(extra := {"naturalist.json": ""})).module()
about = json.loads(extra["naturalist.json"])
for path in photos:
    probabilities = model(torch.from_numpy(prepare(path, about)[None])).softmax(1)[0].detach().numpy()
"""
    + _SAY,
}
"""What is written beside the model: it needs nothing of this package, and sees what that sees of any photograph."""


def export_run(
    run: Path,
    format: str = "onnx",
    *,
    out: Path | None = None,
    data: str | None = None,
    cache_dir: str | None = None,
    display_names: Path | None = None,
) -> float:
    """Write the best checkpoint's network as ONNX or as ``torch.export`` program, and check it against the original.

    The network takes normalised float32 ``[N, 3, S, S]`` named ``images``, for any N, and gives ``logits``
    ``[N, classes]``. The metadata ``naturalist.json`` in the file says how to get there from a photograph. An example
    that does so without this package is written beside it.

    Args:
        run: run folder, or a checkpoint file.
        format: ``"onnx"`` or ``"torch"``.
        out: file to write; by default ``model.onnx`` or ``model.pt2`` beside the checkpoint.
        data: data set whose images it is checked on, if not the run's own.
        cache_dir: folder for decoded images, if not the run's own.
        display_names: how classes are called, see :func:`naturalist.settings.display_names.read_display_names`.

    Returns:
        The largest difference of a logit between the exported network and the original, on real images where the data
        is at hand, else on noise.

    Raises:
        UserError: for a checkpoint that cannot be used, a missing library, a file that cannot be written, or an
            exported network that says something else than the original.
    """
    checkpoint = load_checkpoint(run)
    classifier = load_classifier(run, "cpu", checkpoint=checkpoint).called(display_names)
    folder = run if run.is_dir() else run.parent
    out = out or folder / FILE_NAMES[format]
    _require_place(out)
    inputs, source = _inputs_to_check(folder, checkpoint, classifier, data, cache_dir)
    with torch.inference_mode():
        expected = classifier.model(inputs)
    require_finite(expected)
    export = {"onnx": _export_onnx, "torch": _export_torch}[format]
    example = out.with_name(f"{out.stem}_example_{format}.py")
    try:
        exported = export(classifier, json.dumps(describe_preprocessing(classifier)), out)
        difference = _largest_difference(exported, inputs, expected)
        write_atomically(example, EXAMPLES[format].replace("MODEL", repr(out.name)))
    except OSError as error:
        if is_out_of_memory(error):
            raise
        raise UserError(f"cannot write {str(out)!r}: {cause_of(error)}.") from None
    except UserError:  # nobody shall use it
        out.unlink(missing_ok=True)
        raise
    print(
        f"{printable(out)}: {out.stat().st_size / 1e6:.1f} MB; largest difference of a logit from torch's "
        f"{difference:.1e}, on {len(inputs)} {source}\nUse it without this package: python {shell_path(example)} PHOTO"
    )
    return difference


def _require_place(out: Path) -> None:
    """Raise :class:`UserError` where no file can be written."""
    if not out.parent.is_dir():
        raise UserError(f"cannot write {str(out)!r}: there is no folder {str(out.parent)!r}.")
    if out.exists() and not out.is_file():
        raise UserError(f"cannot write {str(out)!r}: it is a folder, a device or a pipe; name a file with -o.")


def describe_preprocessing(classifier: Classifier) -> dict[str, object]:
    """How a photograph becomes the network's input, and what its output means, as plain JSON values.

    See :meth:`naturalist.data.preprocessing.Preprocessing.describe`.
    """
    return {
        "input": "images",
        "layout": "NCHW float32 RGB",
        "output": "logits",
        **classifier.preprocessing.describe(),
        "class_names": list(classifier.class_names),
        "run": classifier.name,
    }


def _inputs_to_check(
    folder: Path, checkpoint: dict[str, Any], classifier: Classifier, data: str | None, cache_dir: str | None
) -> tuple[Tensor, str]:
    """Inputs ``[CHECKED_IMAGES, 3, S, S]`` and what they are."""
    try:
        images = images_of_split(folder, checkpoint, "val", data=data, cache_dir=cache_dir)
    except UserError as error:
        if data is not None:
            raise
        print(f"Checked on noise, since the run's images are not at hand: {printable(error)}")
        size = classifier.preprocessing.image_size
        noise = torch.randn(CHECKED_IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0))
        return noise, "images of noise"
    return classifier.inputs(images.cache.read(images.indices[:CHECKED_IMAGES])), "images held out in training"


def _largest_difference(exported: Callable[[Tensor], Tensor], inputs: Tensor, expected: Tensor) -> float:
    """Of a logit, between the exported network and the original; raises :class:`UserError` if more than rounding."""
    # One image and several: a batch size that was fixed by mistake shows here.
    got = torch.cat([exported(inputs[:1]), exported(inputs[1:])])
    difference = float((got - expected).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise UserError(
            f"the exported network differs from the original by {difference:.2g} in a logit; it was removed."
        )
    return difference


def _export_onnx(classifier: Classifier, metadata: str, output: Path) -> Callable[[Tensor], Tensor]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it and would say so at length
    except ImportError as error:
        raise UserError(f"ONNX needs the package {error.name}: pip install onnx onnxruntime onnxscript.") from None
    program = _quietly(
        lambda: torch.onnx.export(
            classifier.model,
            (_example_input(classifier),),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    )
    assert program is not None  # it is None for torch's older exporter alone
    model = program.model_proto
    onnx.helper.set_model_props(model, {METADATA: metadata})
    onnx.checker.check_model(model)
    with written_whole(output) as file:
        file.write(model.SerializeToString())
    session = onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def _export_torch(classifier: Classifier, metadata: str, output: Path) -> Callable[[Tensor], Tensor]:
    program = _quietly(
        lambda: torch.export.export(
            classifier.model, (_example_input(classifier),), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
    )
    with stops_wait(), written_whole(output) as file:  # given a path, torch ends the process when the disk is full
        torch.export.save(program, file, extra_files={METADATA: metadata})
    module = torch.export.load(output).module()

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = module(images)
        return logits

    return run


def _example_input(classifier: Classifier) -> Tensor:
    size = classifier.preprocessing.image_size
    return torch.zeros(2, 3, size, size)  # a batch of one would be taken for a constant


def _quietly(export: Callable[[], T]) -> T:
    """Run an exporter without its progress, warnings and hints, which are for its developers."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return export()
    finally:
        logging.disable(logging.NOTSET)

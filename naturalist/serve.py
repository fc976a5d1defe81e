"""``python -m naturalist serve RUN``: a local page to drop photographs on."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from naturalist.data.budget import set_decode_budget
from naturalist.data.decode import FIT, UnreadableImage, decode_file
from naturalist.errors import UserError
from naturalist.evaluation.classifier import load_classifier
from naturalist.evaluation.selective import Threshold
from naturalist.explain.attribution import grad_cam
from naturalist.explain.layers import last_feature_layer
from naturalist.plots.explanations import overlay_heat
from naturalist.printable import in_markdown, printable
from naturalist.runs.checkpoint import load_checkpoint
from naturalist.serve_facts import Example, Facts, find_examples, read_facts
from naturalist.serve_guard import Guard
from naturalist.settings.display_names import name_in_markdown
from naturalist.wording import percent

if TYPE_CHECKING:
    import gradio
    from starlette.middleware import Middleware

Answer = tuple[str, dict[str, float] | None, NDArray[np.uint8] | None, NDArray[np.uint8] | None]
"""A sentence (Markdown), the probabilities by class, the photograph as the model sees it, the same under Grad-CAM."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SHOWN_CLASSES = 5
KEPT_SECONDS = 600
"""How long the server keeps a photograph."""

PICTURE_PIXELS, PICTURE_LEAST, PREVIEW_PIXELS = 480, 140, 960
DECODE_BYTES = 2**29
"""What all photographs together may take while they are decoded: anybody may send one."""

HINT = "Drop a photograph, choose, paste or take one."
CSS = """
footer {display: none !important}
#photo .image-frame img {padding-top: 36px; box-sizing: border-box}  /* the button that takes it away stands there */
#examples .grid-wrap {height: auto; min-height: 0; max-height: none; overflow: visible}
#examples .grid-container {grid-template-columns: repeat(auto-fit, minmax(76px, 1fr))}
#examples .thumbnail-item {aspect-ratio: auto; height: auto; max-width: 160px}
#examples .thumbnail-item img {aspect-ratio: 1}
#examples .caption-label {position: static; max-width: none; border: 0; white-space: normal; overflow-wrap: anywhere}
"""
PASTE = """() => addEventListener("paste", event => {
    const box = document.querySelector("#photo input[type=file]"), files = event.clipboardData.files;
    if (box && files.length) { box.files = files; box.dispatchEvent(new Event("change", {bubbles: true})); }
})"""
"""JavaScript: Ctrl+V anywhere on the page is as good as choosing a file."""


def serve_run(
    run: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    max_megabytes: int = 20,
    device: str = "auto",
    display_names: Path | None = None,
) -> None:
    """Serve the page until it is interrupted.

    Args:
        run: run folder, or a checkpoint file; it holds all that is needed.
        host: address to listen on; the default is reached from this machine only.
        port: port to listen on.
        max_megabytes: largest file that is taken.
        device: see :func:`naturalist.device.choose_device`.
        display_names: how classes are called, see :func:`naturalist.settings.display_names.read_display_names`.

    Raises:
        UserError: for a checkpoint that cannot be used, a missing gradio, or an address that cannot be listened on.
    """
    if max_megabytes < 1:
        raise UserError(f"--max_megabytes must be at least 1, but it is {max_megabytes}.")
    set_decode_budget(DECODE_BYTES)
    page = _build_page(run, max_megabytes, device, display_names)
    if host not in LOOPBACK:
        print(
            f"Everybody who reaches {host} can use this page and see its example photographs; there is no password.",
            flush=True,
        )
    try:
        page.launch(
            server_name=host,
            server_port=port,
            max_file_size=max_megabytes * 2**20,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            css=CSS,
            js=PASTE,
            theme=_theme(),
            ssr_mode=False,
            run_history=False,
            app_kwargs={"middleware": [_guard(host, max_megabytes * 2**20)]},
        )
    except OSError as error:
        raise UserError(f"cannot listen on {host}, port {port}: {error}; choose another --port.") from None
    print(f"Serving {printable(run)} at http://{host}:{port} ; stop it with Ctrl+C.", flush=True)
    page.block_thread()


def make_answer(
    run: Path,
    device: str = "auto",
    threshold: Threshold | None = None,
    checkpoint: dict[str, Any] | None = None,
    display_names: Path | None = None,
) -> tuple[str, Callable[[str | None], Answer]]:
    """What the page does with a file.

    Args:
        run: run folder, or a checkpoint file.
        device: see :func:`naturalist.device.choose_device`.
        threshold: tells sure answers from unsure ones; without one the sentence does not say.
        checkpoint: the content, where it has been read already.
        display_names: how classes are called, see :func:`naturalist.settings.display_names.read_display_names`.

    Returns:
        The run's name, and a function from the path of a file, or None, to an :data:`Answer`. Its last three parts are
        None when the file is no image; the last is None for models without feature maps, too.
    """
    classifier = load_classifier(run, device, checkpoint=checkpoint).called(display_names)
    size = classifier.preprocessing.image_size
    layer = None
    with contextlib.suppress(UserError):
        layer = last_feature_layer(classifier.model, torch.zeros(1, 3, size, size, device=classifier.device))

    def answer(path: str | None) -> Answer:
        if path is None:
            return HINT, None, None, None
        try:
            pixels = classifier.decode(Path(path))
        except UnreadableImage as reason:
            return f"This file cannot be read as a photograph: {in_markdown(reason)}.", None, None, None
        probabilities = classifier.probabilities(pixels[None])[0]
        inputs = classifier.inputs(pixels[None])
        picture = classifier.pictures(inputs)[0]
        best = int(probabilities.argmax())
        heat = None
        if layer is not None:
            evidence = grad_cam(classifier.model, layer.module, inputs, best).cpu().numpy()
            heat = _enlarged(overlay_heat(picture, evidence, "grad_cam"))
        names = [printable(name) for name in classifier.class_names]
        by_class = dict(zip(names, probabilities.tolist(), strict=True))
        sureness = _sureness(float(probabilities[best]), threshold)
        words = f"Most likely **{name_in_markdown(classifier.class_names[best])}**.{sureness}"
        return words, by_class, _enlarged(picture), heat

    return classifier.name, answer


def _sureness(confidence: float, threshold: Threshold | None) -> str:
    """Another paragraph: what became of such answers on the validation images."""
    if threshold is None:
        return ""
    if confidence >= threshold.confidence:
        return (
            f"\n\nIt is sure: {percent(confidence)}. On validation images, {percent(threshold.accuracy)} of answers "
            f"from {percent(threshold.confidence)} on were right."
        )
    if threshold.accuracy_below is None:
        return f"\n\n**It is unsure**: {percent(confidence)}, less than on any validation image."
    return (
        f"\n\n**It is unsure**: {percent(confidence)}. On validation images, {percent(threshold.accuracy_below)} of "
        f"answers below {percent(threshold.confidence)} were right."
    )


def _enlarged(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Scale up ``[S, S, 3]`` uint8 to what fills its frame; the page itself never does."""
    side = max(PICTURE_PIXELS, picture.shape[0])
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))


def _build_page(run: Path, max_megabytes: int, device: str, display_names: Path | None) -> "gradio.Blocks":
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    checkpoint = load_checkpoint(run)
    facts, examples = read_facts(run, checkpoint, display_names), find_examples(run, checkpoint, display_names)
    name, answer = make_answer(run, device, facts.threshold, checkpoint, display_names)
    try:
        import gradio
    except ImportError:
        raise UserError("the page needs gradio: pip install -r requirements-app.txt") from None
    page = gradio.Blocks(
        title=f"{printable(name)} – naturalist", analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)
    )
    with page:
        gradio.Markdown(_introduction(name, facts), latex_delimiters=[], elem_id="facts")
        with gradio.Row():
            with gradio.Column():
                photo = _photo_box(max_megabytes)
                sentence = gradio.Markdown(HINT, elem_id="sentence", latex_delimiters=[])
            with gradio.Column(visible=False) as answered:
                label = gradio.Label(
                    show_label=False, show_heading=False, num_top_classes=SHOWN_CLASSES, elem_id="confidence"
                )
                with gradio.Row():
                    with gradio.Column(min_width=PICTURE_LEAST):
                        gradio.Markdown("What the model sees")
                        picture = _picture("picture", "The photograph as the model sees it")
                    with gradio.Column(min_width=PICTURE_LEAST, visible=False) as explained:
                        gradio.Markdown("Evidence: Grad-CAM")
                        heat = _picture("heat", "The same under Grad-CAM, brighter where there is more evidence")
        gallery = _gallery(examples) if examples else None

        def show(path: str | None) -> dict[Any, Any]:
            words, by_class, seen, evidence = answer(path)
            return {
                sentence: words,
                label: by_class,
                picture: seen,
                heat: evidence,
                answered: gradio.update(visible=seen is not None),
                explained: gradio.update(visible=evidence is not None),
            }

        def show_photo(path: str) -> dict[Any, Any]:
            shown = show(path)
            is_read = shown[label] is not None
            return {photo: decode_file(Path(path), PREVIEW_PIXELS, FIT) if is_read else None, **shown}

        def show_example(chosen: gradio.SelectData) -> dict[Any, Any]:
            return {gallery: gradio.update(selected_index=None), **show_photo(str(examples[chosen.index].path))}

        quietly = {"api_visibility": "private", "show_progress": "minimal"}
        outputs = {sentence, label, picture, heat, answered, explained}
        photo.upload(show_photo, photo, {photo, *outputs}, **quietly)
        photo.clear(lambda: show(None), None, outputs, **quietly)  # the box still sends what was in it
        if gallery is not None:
            gallery.select(show_example, None, {gallery, photo, *outputs}, **quietly)
    return page


def _introduction(name: str, facts: Facts) -> str:
    return (
        f"## What is on this photograph?\nAsked is the run {in_markdown(name)}. {facts.knows}\n\n{facts.quality}\n\n"
        f"{facts.doubt}"
    )


def _photo_box(max_megabytes: int) -> "gradio.Image":
    import gradio

    box = gradio.Image(
        show_label=False,
        sources=["upload", "webcam", "clipboard"],
        webcam_options=gradio.WebcamOptions(mirror=False, constraints={"video": {"facingMode": "environment"}}),
        buttons=[],
        height=340,
        elem_id="photo",
        alt_text="The photograph that was chosen",
        placeholder=f"Drop a photograph here, or click to choose one\nUp to {max_megabytes} MB, deleted in minutes",
    )
    # Its own way opens the file by any reader that Pillow has, and refuses what is no image in words of its own.
    box.preprocess = lambda payload: None if payload is None else payload.path
    return box


def _picture(elem_id: str, words: str) -> "gradio.Image":
    import gradio

    return gradio.Image(show_label=False, interactive=False, buttons=[], elem_id=elem_id, alt_text=words)


def _gallery(examples: list[Example]) -> "gradio.Gallery":
    import gradio

    gradio.Markdown("Or one of its validation images, which it did not learn from; below each is its label.")
    return gradio.Gallery(
        [(example.thumbnail, printable(example.class_name)) for example in examples],
        show_label=False,
        interactive=False,
        allow_preview=False,
        object_fit="cover",
        buttons=[],
        elem_id="examples",
    )


def _guard(host: str, max_bytes: int) -> "Middleware":
    from starlette.middleware import Middleware

    return Middleware(Guard, host=host, max_bytes=max_bytes)


def _theme() -> "gradio.themes.Base":
    import gradio

    return gradio.themes.Base(primary_hue="blue", font=["DejaVu Sans", "sans-serif"], font_mono=["monospace"])

"""The page: a gradio app for one person at one computer, served to that computer only."""

from __future__ import annotations

import functools
import html
import os
import tempfile
import threading
from typing import Any

from PIL import Image

from genprior.checks import UnsupportedError, optional
from genprior.demo import work
from genprior.devices import pick_device
from genprior.likelihoods import Likelihood, Poisson, PoissonGaussian, Quantised
from genprior.priors.base import Prior
from genprior.priors.store import load_prior

ADDRESS = "127.0.0.1"
# Pictures fill their frames below the labels; pixels stay square, since a measured image may have few.
CSS = """
.picture img { object-fit: contain; width: 100%; height: 100%; padding-top: 30px; }
#measured img, #mean img, #truth img, #samples img { image-rendering: pixelated; }
#samples .grid-wrap { min-height: 0; height: auto; max-height: 600px; }
#samples .grid-container { grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); }
"""
SIMULATE, RESTORE = "simulate", "restore"
FIRST = "chelsea"  # the photograph that the page begins with
MODES = [
    ("Try on a clean photo: damage it, restore it, compare with the truth", SIMULATE),
    ("Restore a photo that is damaged already", RESTORE),
]
OPERATORS = [
    ("fill holes", "inpaint"),
    ("enlarge (super-resolution)", "super-resolution"),
    ("remove a Gaussian blur", "gaussian-deblur"),
    ("remove a motion blur", "motion-deblur"),
    ("add colour", "colorize"),
    ("remove noise", "denoise"),
    ("undo JPEG compression", "jpeg"),
]
GAUSSIAN, PHOTONS = "gaussian", "photons"
NOISES = [("Gaussian, everywhere the same", GAUSSIAN), ("photons: the brighter, the more", PHOTONS)]
PARAMETERS = {
    "super-resolution": ("scale",),
    "gaussian-deblur": ("width",),
    "motion-deblur": ("length", "angle"),
    "jpeg": ("quality",),
}
ABOUT = f"""# genprior
What may the photograph have been? Several draws from the posterior, their mean, and how far they differ.
Everything stays on this computer. At most {work.LARGEST} pixels a side: a clean photo is made smaller, of a damaged one
the middle, or what is about its holes, is cut out."""
EXPECTED = (ValueError, TypeError, OSError, ArithmeticError, UnsupportedError, RuntimeError, MemoryError)


class Stopped(Exception):
    """Somebody pressed Stop."""


def serve(port: int, *, browser: bool) -> None:
    """Serve the page at `port` of this computer until interrupted; nothing is sent anywhere else, or kept.

    Raises:
        UnsupportedError: gradio is not installed.
        OSError: the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="genprior-demo-") as pictures:
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=pictures)
        blocks = page()
        _, address, _ = blocks.launch(
            server_name=ADDRESS,
            server_port=port,
            share=False,
            inbrowser=browser,
            ssr_mode=False,
            run_history=False,
            enable_monitoring=False,
            max_file_size="50mb",
            footer_links=[],
            css=CSS,
            quiet=True,
            prevent_thread_lock=True,
        )
        print(f"The page is at {address}, for this computer only; Ctrl-C ends it.", flush=True)
        blocks.block_thread()


def page() -> Any:
    """The gradio Blocks of the page.

    Raises:
        UnsupportedError: gradio is not installed.
    """
    gr = optional("gradio", 'The page needs gradio: pip install "genprior[demo]".')
    stop, tracked = threading.Event(), gr.Progress(track_tqdm=True)

    def listen() -> None:
        if stop.is_set():
            raise Stopped

    # Gradio passes a handler of a set of components their values by component.
    def task(given):
        """The photograph, what was done to it, with its parameters, and whether it is clean."""
        clean = given[mode] == SIMULATE
        known = (
            name for name in parameters_of(given[op], clean) if clean or name not in unknown or not given[unknown[name]]
        )
        used = {name: given[controls[name]] for name in known}
        return photo_of(given[image], given.get(drawn)), given[op], used, clean

    def noise_of(given):
        """The noise for `degrade` and `restore`; None or "poisson" to have it estimated."""
        clean, photons = given[mode] == SIMULATE, given[law] == PHOTONS
        if given[op] == "jpeg":
            return 0.0 if clean else None  # rounding to its steps is all the noise there is
        if given[estimate] and not clean:
            return "poisson" if photons else None
        return Poisson(given[gain]) if photons else given[noise]

    # Gradio shows the tqdm bar of `restore` if a parameter defaults to a tracking Progress.
    def run(given, progress=tracked):
        stop.clear()
        try:
            photo, kind, parameters, clean = task(given)
            operator = work.operator_of(photo, kind, parameters, clean=clean)
            drawing = {
                "prior": work.listening(loaded(given[prior]).sized(*operator.image_shape[1:]), listen),
                "sampler": given[sampler],
                "n": int(given[n]),
                "steps": whole("steps", given[steps]),
                "seed": whole("seed", given[seed]),
                "noise": noise_of(given),
            }
            outcome = (work.simulate if clean else work.restore_photo)(photo, kind, parameters, **drawing)
        except Stopped:
            gr.Info("Nothing was finished.", title="Stopped")
            return [gr.skip()] * len(results)
        except EXPECTED as error:
            text = html.escape(str(error) or type(error).__name__, quote=False)
            raise gr.Error(text, duration=None, print_exception=False) from None
        shown = [outcome.measured, outcome.mean, outcome.deviation, outcome.truth]
        pictures = [gr.Image(image, visible=image is not None) for image in shown]
        return [*pictures, outcome.samples, table({"prior": given[prior], **outcome.facts})]

    def offer(given):
        """Offer the priors and samplers that go with the photograph and what was done to it."""
        try:
            photo, kind, parameters, clean = task(given)
            operator = work.operator_of(photo, kind, parameters, clean=clean)
            names = work.priors_for(operator)
            chosen = given[prior] if given[prior] in names else names[0]
            task_of = loaded(chosen), operator, kind_of_noise(kind, given[law])
            samplers, best = work.samplers_for(*task_of), work.automatic_for(*task_of)
            choices = [(f"auto ({best})", "auto")] * (best is not None) + [(name, name) for name in samplers]
            _, first = choices[0]
        except (*EXPECTED, IndexError):  # the Restore button says what is wrong
            return gr.skip(), gr.skip()
        return gr.Dropdown(names, value=chosen), gr.Dropdown(choices, value=first)

    def show(mode, op, estimate, law, *ignorance):
        """Show the controls that matter for this operator, and enable those with values to state."""
        asked, noisy = mode == RESTORE, op != "jpeg"
        used = parameters_of(op, clean=not asked)
        hidden = {name for name, ignored in zip(unknown, ignorance) if ignored and asked}
        return [
            gr.Radio(visible=noisy),
            gr.Checkbox(visible=noisy and asked),
            gr.Slider(visible=noisy and law == GAUSSIAN, interactive=not (estimate and asked)),
            gr.Slider(visible=noisy and law == PHOTONS, interactive=not (estimate and asked)),
            *(gr.Slider(visible=name in used, interactive=name not in hidden) for name in controls),
            *(gr.Checkbox(visible=name in used and asked) for name in unknown),
            gr.ImageEditor(visible=op == "inpaint"),
        ]

    def ready(given):
        """Enable the Restore button if it can work; else say what it lacks."""
        try:
            photo, kind, parameters, clean = task(given)
            lacking = work.obstacle(photo, kind, parameters, clean=clean)
        except EXPECTED as error:
            lacking = str(error)
        return gr.Button(interactive=lacking is None), gr.Markdown(html.escape(lacking or "", quote=False))

    def busy(working):
        return gr.Button(interactive=not working), gr.Button(interactive=working)

    with gr.Blocks(title="genprior", analytics_enabled=False) as blocks:
        gr.Markdown(ABOUT)
        with gr.Row():
            with gr.Column(scale=2, min_width=360):
                mode = gr.Radio(MODES, value=SIMULATE, label="What to do", elem_id="mode")
                sample = gr.Dropdown(list(work.SAMPLES), value=FIRST, label="Pick a photograph …", elem_id="sample")
                image = gr.Image(
                    label="… or drop your own",
                    type="filepath",
                    image_mode=None,
                    format="png",
                    sources=["upload", "clipboard"],
                    height=240,
                    buttons=[],
                    elem_id="photo",
                )
                op = gr.Dropdown(
                    OPERATORS,
                    value="super-resolution",
                    label="Task",
                    elem_id="op",
                )
                drawn = gr.ImageEditor(
                    label="Paint the holes",
                    type="pil",
                    format="png",
                    sources=[],
                    brush=gr.Brush(default_size=8, colors=["rgb(255, 0, 128)"], color_mode="fixed"),
                    layers=False,
                    transforms=[],
                    height=320,
                    visible=False,
                    elem_id="holes",
                )
                controls = {
                    "scale": gr.Slider(2, 8, 4, step=1, label="Times larger", elem_id="scale"),
                    "width": gr.Slider(0.5, 9.5, 2, step=0.1, label="Width of the blur in pixels", visible=False),
                    "length": gr.Slider(1, 61, 15, step=0.5, label="Length of the motion in pixels", visible=False),
                    "angle": gr.Slider(-90, 90, 30, step=1, label="Angle of the motion in degrees", visible=False),
                    "quality": gr.Slider(
                        1, 95, 10, step=1, label="Quality of the JPEG file", visible=False, elem_id="quality"
                    ),
                }
                unknown = {
                    name: gr.Checkbox(
                        False, label=f"I do not know the {name}", visible=False, elem_id=f"unknown-{name}"
                    )
                    for name in ("width", "length", "angle")
                }
                law = gr.Radio(NOISES, value=GAUSSIAN, label="Noise", elem_id="law")
                estimate = gr.Checkbox(True, label="Estimate the noise from the photo", visible=False)
                noise = gr.Slider(0, 0.5, 0.025, step=0.005, label="Noise: standard deviation, where white is 1")
                gain = gr.Slider(
                    0.002,
                    0.5,
                    0.034,
                    step=0.002,
                    label="Gain: what one photon adds, where white is 1",
                    visible=False,
                    elem_id="gain",
                )
                with gr.Row():
                    prior = gr.Dropdown(["ddpm-photo"], value="ddpm-photo", label="Prior", min_width=120)
                    sampler = gr.Dropdown(["auto"], value="auto", label="Sampler", min_width=120, elem_id="sampler")
                n = gr.Slider(1, 16, 4, step=1, label="Samples", elem_id="n")
                with gr.Row():
                    steps = gr.Textbox(label="Steps", placeholder="the sampler's own", min_width=120, elem_id="steps")
                    seed = gr.Textbox(label="Seed", placeholder="a fresh one", min_width=120, elem_id="seed")
                hint = gr.Markdown(elem_id="hint")
                with gr.Row():
                    start = gr.Button("Restore", variant="primary", interactive=False, elem_id="start")
                    halt = gr.Button("Stop", variant="stop", interactive=False, elem_id="stop")
            with gr.Column(scale=3, min_width=360):
                picture = functools.partial(
                    gr.Image,
                    format="png",
                    interactive=False,
                    height=300,
                    min_width=240,
                    buttons=["download", "fullscreen"],
                    elem_classes="picture",
                )
                with gr.Row():
                    measured = picture(label="Measured", elem_id="measured")
                    mean = picture(label="Picture", elem_id="mean")
                with gr.Row():
                    deviation = picture(label="Uncertainty: standard deviation", elem_id="deviation")
                    truth = picture(label="Truth", elem_id="truth")
                gallery = gr.Gallery(
                    label="Samples",
                    format="png",
                    columns=4,
                    height="auto",
                    object_fit="contain",
                    interactive=False,
                    buttons=["download", "fullscreen"],
                    elem_id="samples",
                )
                facts = gr.Markdown(elem_id="facts")

        results = [measured, mean, deviation, truth, gallery, facts]
        on = functools.partial(gr.on, api_visibility="private", show_progress="hidden")
        # `input` fires twice for one choice, and a file would be written while the browser reads it.
        on([blocks.load, sample.select], work.sample_photo, sample, image)
        on(image.change, to_paint, image, drawn)
        shown = [law, estimate, noise, gain, *controls.values(), *unknown.values(), drawn]
        ticked = [each.change for each in unknown.values()]
        chosen = [mode, op, estimate, law]
        on([*(each.change for each in chosen), *ticked], show, [*chosen, *unknown.values()], shown)
        asked = {mode, image, op, *controls.values(), *unknown.values()}
        changes = [image.change, mode.change, op.change, *ticked]
        changes.append(controls["scale"].release)
        on([*changes, drawn.change], ready, {*asked, drawn}, [start, hint])
        on([*changes, law.change, prior.input], offer, {*asked, law, prior}, [prior, sampler])
        on(start.click, functools.partial(busy, True), None, [start, halt], queue=False)
        start.click(
            run,
            {*asked, drawn, law, estimate, noise, gain, prior, sampler, n, steps, seed},
            results,
            concurrency_limit=1,
            api_visibility="private",
        ).then(functools.partial(busy, False), None, [start, halt], show_progress="hidden", api_visibility="private")
        halt.click(stop.set, queue=False, api_visibility="private")
    return blocks


def parameters_of(op: str, clean: bool) -> tuple[str, ...]:
    """The names of the parameters to ask of the operator: a JPEG file states them all."""
    return () if op == "jpeg" and not clean else PARAMETERS.get(op, ())


def kind_of_noise(op: str, law: str) -> Likelihood | None:
    """A likelihood of the kind that samplers must support, whatever its parameters; None for Gaussian noise.

    For photons it has every part that an estimate may find.
    """
    if op == "jpeg":
        return Quantised(1.0)
    return PoissonGaussian(1.0, 1.0) if law == PHOTONS else None


def photo_of(path: str | None, drawn: dict[str, Any] | None = None) -> work.Photo:
    """The photograph in a file, with the holes in the layer of gradio's editor.

    Raises:
        ValueError: nothing was chosen, or the file is not an image.
    """
    if path is None:
        raise ValueError("There is no photograph yet: pick one of the list, or drop your own.")
    return work.as_photo(path, drawn["layers"][0] if drawn and drawn["layers"] else None)


def to_paint(path: str | None) -> Image.Image | None:
    """The photograph to paint on, no larger than the one that will be restored."""
    if path is None:
        return None
    # Gradio names a file by its bytes: if they were those of `path`, it would be written while others read it.
    return work.fit_clean(work.as_photo(path)).image.convert("RGBA")


def whole(name: str, text: str) -> int | None:
    """The number that was typed; None if nothing was.

    Raises:
        ValueError: it is not a whole number.
    """
    try:
        return int(text) if text.strip() else None
    except ValueError:
        raise ValueError(f"{name} is a whole number, or left empty; got {text!r}.") from None


@functools.lru_cache(maxsize=2)
def loaded(name: str) -> Prior:
    """The prior of that name, kept for the next photograph."""
    return load_prior(name, pick_device("auto"))


def table(facts: dict[str, str]) -> str:
    """The facts as a Markdown table, the first as its head."""
    head, *rows = (f"| {name} | {fact} |" for name, fact in facts.items())
    return "\n".join([head, "|---|---|", *rows])

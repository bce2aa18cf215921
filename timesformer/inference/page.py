"""A page in the browser to try a model on: made with Gradio, asked for by `timesformer serve`.

page = make_page(timesformer.load("runs/a"))
page.launch()
"""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timesformer.clips.sampling import RateSampler, sampler_of
from timesformer.inference import page_html as html
from timesformer.inference.prediction import TOPK, Prediction
from timesformer.inference.predictor import Predictor
from timesformer.inference.shown import Answer, Limits, is_long, look_at, timeline_of
from timesformer.inference.timeline_picture import timeline_picture
from timesformer.utils.errors import UserError, VideoError
from timesformer.utils.files import is_inside
from timesformer.utils.text import counted

if TYPE_CHECKING:
    import gradio as gr

EMPTY = "Drop a video on the left, or record one: what is in it will stand here."
EMPTY_TABLE = "Drop several videos: each will have a row here."
# Else browsers record all that a camera can, and slow computers lose most frames over it.
CAMERA = {"video": {"width": {"ideal": 640}, "height": {"ideal": 480}}}
WAITING = "Looking at it all, from its start to its end …"
Shown = tuple[str, str, str]
"""HTML of the answer, of the clip, and of the timeline."""


class Answers:
    """What the page does when somebody brings videos; knows nothing of Gradio.

    Attributes:
        predictor: the model.
        limits: what is taken.
        topk: classes that are named.
        uploads: the folder of what people bring. Whoever reaches the page can name any other file
            of this computer in a request of his own, and is told nothing of it.
    """

    def __init__(self, predictor: Predictor, limits: Limits, topk: int, uploads: str) -> None:
        self.predictor = predictor
        self.limits = limits
        self.topk = topk
        self.uploads = os.path.realpath(uploads)

    def _look_at(self, path: str) -> Answer:
        if not is_inside(self.uploads, os.path.realpath(path)):
            error = "only files that are brought to this page are looked at"
            nothing = Prediction(path, None, self.predictor.testing, error=error)
            return Answer(nothing)
        return look_at(self.predictor, path, self.limits, self.topk)

    def one(self, path: str | None) -> Iterator[Shown]:
        """Yield what is shown of a video: first the answer, then the timeline if it gets one."""
        if path is None:
            yield html.hint(EMPTY), "", ""
            return
        try:
            given = self._look_at(path)
        except UserError as error:
            yield html.error_note(str(error)), "", ""
            return
        shown = html.answer(given), html.clip_strip(given)
        if given.prediction.error is not None or not is_long(self.predictor, given.seconds):
            yield *shown, ""
            return
        yield *shown, html.hint(WAITING)
        yield *shown, self._timeline(path, given.seconds)

    def _timeline(self, path: str, seconds: float) -> str:
        try:
            found = timeline_of(self.predictor, path, seconds)
        except UserError as error:
            reason = error.reason if isinstance(error, VideoError) else str(error)
            return html.error_note(reason)
        return "" if found is None else html.timeline_block(timeline_picture(found))

    def several(self, paths: Sequence[str] | None) -> Iterator[str]:
        """Yield the table of the answers, one more each time."""
        if not paths:
            yield html.hint(EMPTY_TABLE)
            return
        names = [Path(path).name for path in paths]
        found: list[Prediction] = []
        yield html.table(names, found)
        try:
            for path in paths:
                found.append(self._look_at(path).prediction)
                yield html.table(names, found)
        except UserError as error:  # of the model, not of a video
            yield html.error_note(str(error))

    def about(self) -> list[str]:
        """Return what the model takes, and the limits, in lines."""
        model, testing = self.predictor.model, self.predictor.testing
        frames, sampler = model.sampling["num_frames"], sampler_of(**model.sampling)
        apart = "from equal parts of the video"
        if isinstance(sampler, RateSampler):
            apart = f"{sampler.sampling_rate / sampler.target_fps:.2g} s apart"
        side = model.crops(1).crop_size
        classes = (
            f", {counted(len(model.class_names), 'class', 'classes')}" if model.class_names else ""
        )
        return [
            f"{counted(frames, 'frame')} of {side} × {side} pixels, {apart}; "
            f"{counted(testing.num_clips, 'clip')} × {counted(testing.num_crops, 'crop')} of each "
            f"video{classes}.",
            f"Up to {self.limits.words} a video. Files stay on the computer that runs this page, "
            "and are deleted when it ends.",
        ]


def make_page(
    predictor: Predictor,
    *,
    title: str = "timesformer",
    examples: Sequence[str] = (),
    limits: Limits | None = None,
    topk: int = TOPK,
) -> gr.Blocks:
    """Make a page on which a model can be tried.

    It sends nothing anywhere. `page_server.serve` also keeps browsers from fetching anything, as
    Gradio 5 asks them to.

    Args:
        predictor: the model.
        title: headline.
        examples: paths of videos that are offered.
        limits: what is taken; `Limits()` when None.
        topk: classes that are named.

    Raises:
        ModuleNotFoundError: the extra `serve` isn't installed.
    """
    import gradio as gr

    answers = Answers(predictor, limits or Limits(), topk, upload_folder())
    # One video at a time, whoever asks: two would take twice as long and twice the memory.
    queue: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}
    with gr.Blocks(analytics_enabled=False, title=title, **styled(gr.Blocks)) as page:
        gr.HTML(html.heading(title, answers.about()))
        with gr.Tab("One video"):
            with gr.Row():
                with gr.Column():
                    # With its sound, and not mirrored: both would need ffmpeg to be taken away.
                    video = gr.Video(
                        label="Video",
                        sources=["upload", "webcam"],
                        include_audio=True,
                        webcam_options=gr.WebcamOptions(mirror=False, constraints=CAMERA),
                        elem_id="video",
                    )
                with gr.Column():
                    answer = gr.HTML(html.hint(EMPTY), elem_id="answer")
            if examples:
                paths = [[path] for path in examples]
                gr.Examples(paths, video, cache_examples=False, examples_per_page=12)
            clip = gr.HTML(elem_id="clip")
            timeline = gr.HTML(elem_id="timeline")
            video.change(
                answers.one, video, [answer, clip, timeline], show_progress_on=[answer], **queue
            )
        with gr.Tab("Several videos"):
            files = gr.File(label="Videos", file_count="multiple", elem_id="files", height=180)
            table = gr.HTML(html.hint(EMPTY_TABLE), elem_id="table")
            files.change(answers.several, files, table, **queue)
    return page


def upload_folder() -> str:
    """Return where Gradio keeps what people bring, and copies of the examples."""
    told = os.environ.get("GRADIO_TEMP_DIR")
    return told or str(Path(tempfile.gettempdir()) / "gradio")


def styled(function: Any) -> dict[str, Any]:
    """Return the looks that a function of Gradio takes: versions 5 and 6 ask others for them."""
    import gradio as gr

    fonts = "system-ui", "sans-serif"  # none that would be fetched
    looks = {
        "theme": gr.themes.Default(font=fonts, font_mono=("ui-monospace", "monospace")),
        "run_history": False,
    }
    known = inspect.signature(function).parameters
    return {name: value for name, value in looks.items() if name in known}

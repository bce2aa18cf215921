"""`timesformer serve` as people use it: in a browser, until Ctrl-C."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec

import pytest
from small_run import PYTHONPATH, small_model
from video_fixtures import numbered_frames, write_video

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
    pytest.mark.skipif(find_spec("gradio") is None, reason="needs gradio: the extra serve"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="needs playwright"),
]
SECONDS = 60_000  # milliseconds that a page may take, on a machine that does other things, too


@pytest.fixture(scope="module")
def place(synthetic_dir, tmp_path_factory):
    """A folder with weights, examples, a long video, a broken one and a large file."""
    folder = tmp_path_factory.mktemp("served")
    model = small_model(synthetic_dir, folder / "run")
    model.class_names = ("up", "down", "left", "<b>${1+1} {{x}}", "in", "out")
    model.save_pretrained(folder / "weights")
    (folder / "examples").mkdir()
    write_video(folder / "examples" / "one.mp4", numbered_frames(20, 64, 80))
    write_video(folder / "long.mp4", numbered_frames(200, 64, 80))
    (folder / "broken.mp4").write_bytes(b"no video at all")
    (folder / "large.mp4").write_bytes(bytes(3_000_000))
    return folder


@contextmanager
def served(place):
    """The address of a server, and the process; it is ended with what it leaves of the folder."""
    command = [sys.executable, "-m", "timesformer", "serve", "--port", "0", "--device", "cpu"]
    command += ["--checkpoint", "weights", "--examples", "examples", "--max-mb", "2"]
    (place / "tmp").mkdir(exist_ok=True)
    env = os.environ | {"PYTHONPATH": PYTHONPATH, "TMPDIR": str(place / "tmp")}
    process = subprocess.Popen(
        command, cwd=place, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), line + process.stderr.read()
        yield re.match(r"http://[\d.]+:\d+", line)[0], process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def browsed(url):
    """A page in Chromium, and what it asked for."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(SECONDS)
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        yield page, asked
        browser.close()


def bring(page, *paths, to="#video"):
    page.set_input_files(f"{to} input[type=file]", [str(path) for path in paths])


def test_a_person_tries_a_model(place):
    with served(place) as (url, process):
        with browsed(url) as (page, asked):
            bring(page, place / "long.mp4")
            page.wait_for_selector("#answer .first")
            names = page.locator("#answer .name").all_inner_texts()
            assert len(names) == 5
            assert {*names} <= {"up", "down", "left", "<b>${1+1} {{x}}", "in", "out"}
            chances = [
                float(c.split()[0]) for c in page.locator("#answer .chance").all_inner_texts()
            ]
            assert sorted(chances, reverse=True) == chances
            assert page.locator("#clip img").count() == 4
            page.wait_for_selector("#timeline img")
            page.get_by_label("Clear").first.click()
            page.wait_for_selector("#answer >> text=Drop a video")
            bring(page, place / "broken.mp4")
            error = page.wait_for_selector("#answer .error").inner_text()
            assert error == "No answer: damaged, or not a video (invalid data)"
            assert page.locator("#clip img").count() == 0
            page.get_by_label("Clear").first.click()
            page.wait_for_selector("#answer >> text=Drop a video")
            bring(page, place / "large.mp4")
            page.wait_for_selector("text=/exceed|too large|maximum/i")
            page.get_by_role("tab", name="Several videos").click()
            files = [place / "examples" / "one.mp4", place / "broken.mp4"]
            bring(page, *files, to="#files")
            page.wait_for_selector("#table >> text=2 of 2 videos")
            rows = page.locator("#table tr").all_inner_texts()
            assert re.match(r"one\.mp4\s.+ %", rows[1])
            assert rows[2].split(None, 1) == [
                "broken.mp4",
                "damaged, or not a video (invalid data)",
            ]
        elsewhere = [a for a in asked if not a.startswith((url, "data:", "blob:"))]
        assert elsewhere == []
        assert [*(place / "tmp").glob("timesformer-serve-*/**/*.mp4")]
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
    assert (out, error, process.returncode) == ("", "interrupted\n", 130)
    assert [*(place / "tmp").glob("timesformer-serve-*")] == []


def test_an_example_is_clicked(place):
    with served(place) as (url, _), browsed(url) as (page, _):
        page.locator("button:has(video), td:has(video), .gallery-item").first.click()
        page.wait_for_selector("#answer .first")
        assert page.locator("#clip img").count() == 4

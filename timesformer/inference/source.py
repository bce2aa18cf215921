"""Where live pictures come from: what a word of the command line means."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field

from timesformer.utils.errors import UserError
from timesformer.utils.files import is_file

SCHEMES = (*("rtsp", "rtsps", "http", "https", "udp", "rtp", "tcp", "srt", "rtmp", "rtmps"),)
PROTOCOLS = "udp,rtp,rtsp,tcp,tls,http,https,httpproxy,hls,crypto,srt,rtmp,rtmps"
SETTLES = 2.0  # seconds of a stream that are looked at for its format


@dataclass(frozen=True)
class Source:
    """Where live pictures come from.

    Attributes:
        word: as it was given.
        url: what is opened.
        format: of FFmpeg, where the URL doesn't tell.
        options: of FFmpeg.
        again: it is opened again when it ends or fails.
        paced: it is a file, which would come faster than it plays.
    """

    word: str
    url: str
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    again: bool = False
    paced: bool = False


def source_of(word: str) -> Source:
    """Return the source that a word means: a camera, a URL, a file, or "-" for stdin.

    Raises:
        UserError: there is no such thing.
    """
    if word == "-":
        return Source("stdin", "pipe:0")
    scheme = word.partition("://")[0].lower()
    if "://" in word:
        if scheme not in SCHEMES:
            raise UserError(f"{word:.200}: a URL begins with {', '.join(SCHEMES)}")
        options = {
            "protocol_whitelist": PROTOCOLS,  # a playlist mustn't reach files
            "analyzeduration": str(round(SETTLES * 1e6)),
        }
        if scheme.startswith("rtsp"):
            options["rtsp_transport"] = "tcp"
        return Source(word, word, options=options, again=True)
    if word.isdecimal() and sys.platform == "darwin":
        return Source(word, word, "avfoundation", {"framerate": "30"}, again=True)
    camera = f"/dev/video{word}" if word.isdecimal() else word
    if camera.startswith("/dev/video"):
        if not os.path.exists(camera):  # noqa: PTH110  (a device)
            raise UserError(f"{camera}: there is no such camera")
        return Source(word, camera, "v4l2", again=True)
    if not is_file(word):
        raise UserError(f"{word}: there is no such file or camera; a URL begins with rtsp://, …")
    options = {"protocol_whitelist": "file"}
    return Source(word, f"file:{word}", options=options, paced=True)

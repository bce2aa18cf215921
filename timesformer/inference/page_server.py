"""Serves a page: on which address, with what limits, until when."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from timesformer.inference.page import styled
from timesformer.inference.shown import MEGABYTE, Limits
from timesformer.utils.errors import UserError, sigterm_unwinds

if TYPE_CHECKING:
    import gradio as gr

LOCAL = "127.0.0.1"
PATIENCE = 1  # seconds that open connections get when the server ends
# The browser itself keeps the page, whatever Gradio puts into it, from fetching anything elsewhere.
POLICY = (
    b"default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    b"style-src 'self' 'unsafe-inline'"
)
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; the port is ours from then on.

    Raises:
        UserError: there is no such address, or it is taken or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise UserError(f"--host {host:.200}: there is no such address: {error}") from error
    found = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # else a port that was in use a minute ago would be taken
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen()
    except OSError as error:
        found.close()
        said = os.strerror(error.errno or 0).lower()
        raise UserError(
            f"--host {host} --port {port}: {said}; another --port may be free"
        ) from error
    return found


def where(sock: socket.socket) -> str:
    """Say where the page is, and who can reach it."""
    host, port = sock.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    if host in ("0.0.0.0", "::"):
        return (
            f"http://{socket.gethostname()}:{port}: whoever reaches this computer can use it, "
            "without a password"
        )
    if host == "::1" or host.startswith("127."):
        return f"http://{shown}:{port}: for this computer alone (--host 0.0.0.0 for others, too)"
    return f"http://{shown}:{port}: whoever reaches this address can use it, without a password"


@contextmanager
def own_folder() -> Iterator[str]:
    """Let Gradio keep the files that people bring in a folder that goes with the server."""
    with tempfile.TemporaryDirectory(prefix="timesformer-serve-") as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        yield folder


def serve(page: gr.Blocks, sock: socket.socket, limits: Limits) -> None:
    """Serve a page until it is interrupted.

    Args:
        page: see `make_page`.
        sock: see `listen`; is closed.
        limits: whose megabytes larger files aren't even uploaded.

    Raises:
        KeyboardInterrupt: that is how it ends.
    """
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_Policy)
    mounted = gr.mount_gradio_app(
        app,
        page,
        path="",  # "/" doubles slashes in Gradio 5
        max_file_size=int(limits.megabytes * MEGABYTE),
        show_error=False,
        ssr_mode=False,
        **styled(gr.mount_gradio_app),
    )
    config = uvicorn.Config(
        mounted, log_level="critical", timeout_graceful_shutdown=PATIENCE, access_log=False
    )
    with closing(sock), sigterm_unwinds():  # else the folder of uploads would stay
        uvicorn.Server(config).run(sockets=[sock])


class _Policy:
    """Adds `POLICY` to each answer."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Callable[..., Any], send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()), (b"content-security-policy", POLICY)
                ]  # fmt: skip
            await send(message)

        await self.app(scope, receive, send_with_policy)

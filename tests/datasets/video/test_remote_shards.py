"""Shards behind a URL: read in ranges, once more where storage fails; what's wrong is one line."""

from __future__ import annotations

import pickle
import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from dataset_layouts import write_pictures, write_tiny
from fsspec.implementations.memory import MemoryFileSystem
from shard_fixtures import pack
from small_run import small_cfg

from timesformer.clips.sampling import RateSampler
from timesformer.datasets.build import build_dataset
from timesformer.datasets.video.reader import VideoReader
from timesformer.datasets.video.shards import Shards, open_shards
from timesformer.utils import remote, retry
from timesformer.utils.errors import AnnotationError, ShardsError, UserError, VideoError
from timesformer.utils.remote import is_url

URL = "memory://bucket/data"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    root = tmp_path_factory.mktemp("local")
    write_tiny(root / "in" / "a b.mp4", 30)
    write_tiny(root / "in" / "more" / "é.avi", 30, seed=1)
    write_pictures(root / "in" / "frames", 8)
    return pack(root / "in", root / "out", "2")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(retry, "WAITS", (0, 0))
    return tmp_path / "hub" / "shards"


@pytest.fixture
def memory(local: Shards) -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    for path in Path(local.root).iterdir():
        system.pipe_file(f"{URL}/{path.name}", path.read_bytes())
    yield system
    system.store.clear()


def clips(shards: Shards, name: str) -> list[torch.Tensor]:
    sampler = RateSampler(4, 2, 30.0)
    read = VideoReader(shards=shards)
    found = read(f"{shards.root}/{name}", lambda n, fps: [sampler.place(n, fps, (0, 1))])
    assert not found.damage
    return found.frames


def same(one: Shards, other: Shards) -> bool:
    return all(
        torch.equal(*pair)
        for name in ("a b.mp4", "more/é.avi", "frames")
        for pair in zip(clips(one, name), clips(other, name), strict=True)
    )


def opened(url: str = URL) -> Shards:
    found = open_shards(url)
    assert found is not None
    return pickle.loads(pickle.dumps(found))


def test_what_is_a_url() -> None:
    assert all(map(is_url, ("s3://b/x", "gs://b", "http://h:80/x", str(Path("s3://b/x")), URL)))
    assert not any(map(is_url, ("", "/a/b", "C:/a", "c:\\a", "a b/c", "a/b://c", "1s://b", "a::b")))


def test_a_url_of_this_machine_is_a_path_from_the_root_on(local: Shards) -> None:
    url = f"file://{local.root}"
    assert url.startswith("file:///")
    assert same(opened(url), local)
    assert same(opened(str(Path(url))), local)  # which has one slash left


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("simplecache::s3://bucket/shards", "chains of URLs"),
        ("zip://shards::file:///a.zip", "chains of URLs"),
        ("dir:///a", "can't be opened"),  # fsspec has an AttributeError for it
    ],
)
def test_urls_that_arent_taken(url: str, said: str) -> None:
    with pytest.raises(UserError, match=f"{url}.*: {said}"):
        open_shards(url)


def test_frames_are_those_of_a_folder(local: Shards, memory: Any, own_cache: Path) -> None:
    shards = opened()
    assert same(shards, local)
    cached = own_cache / f"{shards.contents.index_digest}.tsv"
    assert cached.read_bytes() == (Path(local.root) / local.contents.index).read_bytes()
    memory.rm(f"{URL}/{shards.contents.index}")  # another process has no need of it
    assert same(opened(), local)


@pytest.mark.usefixtures("memory")
def test_small_blocks(local: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BLOCK", 1000)
    monkeypatch.setattr(remote, "BLOCKS", 2)
    assert same(opened(), local)


def test_lists_and_a_data_set(synthetic_dir: Path, tmp_path: Path, memory: Any) -> None:
    pack(synthetic_dir, tmp_path / "out")
    for path in [*(tmp_path / "out").iterdir(), synthetic_dir / "train.csv"]:
        if path.is_file():
            memory.pipe_file(f"memory://synthetic/{path.name}", path.read_bytes())
    cfg = small_cfg(synthetic_dir, tmp_path)
    items = [build_dataset("synthetic", cfg, "train")[5]]
    for folder, prefix in (
        ("memory://synthetic/", ""),
        ("memory://synthetic", "memory://synthetic"),
    ):
        cfg.DATA.PATH_TO_DATA_DIR, cfg.DATA.PATH_PREFIX = folder, prefix
        items.append(build_dataset("kinetics", cfg, "train")[5])
    assert all(torch.equal(items[0][0], item[0]) for item in items)
    memory.rm("memory://synthetic/train.csv")
    with pytest.raises(AnnotationError, match=r"^memory://synthetic/train.csv: there is no such"):
        build_dataset("kinetics", cfg, "train")


def test_what_is_missing_is_one_line(memory: Any, own_cache: Path) -> None:
    shards = opened()
    with pytest.raises(ShardsError, match=r"^memory://no/shards.json: no such object; at a URL,"):
        open_shards("memory://no")
    with pytest.raises(VideoError, match=r"data/b.mp4: not in the shards' index"):
        clips(shards, "b.mp4")
    tar = f"{URL}/shard-000000.tar"
    content = memory.cat_file(tar)
    memory.pipe_file(tar, content[:3000])
    with pytest.raises(ShardsError, match=r"shard-000000.tar: 3,000 bytes, where"):
        open_shards(URL)
    said = rf"^{tar}!a b.mp4: its shard ends after 2,488 bytes of this file"
    with pytest.raises(VideoError, match=said):
        clips(shards, "a b.mp4")
    memory.pipe_file(tar, b"\0" * len(content))
    with pytest.raises(VideoError, match="another file there"):
        clips(shards, "a b.mp4")
    memory.rm(tar)
    with pytest.raises(VideoError, match=rf"^{tar}!a b.mp4: no such object$"):
        clips(shards, "a b.mp4")
    with pytest.raises(ShardsError, match=rf"^{tar}: no such object: copy"):
        open_shards(URL)
    shards = pickle.loads(pickle.dumps(shards))
    (own_cache / f"{shards.contents.index_digest}.tsv").unlink()
    index = f"{URL}/{shards.contents.index}"
    memory.pipe_file(index, memory.cat_file(index)[::-1])
    with pytest.raises(VideoError, match=r"index-.*: not the index of shards.json"):
        clips(shards, "a b.mp4")
    with pytest.raises(UserError, match=r"can't be opened .*nonsense.*timesformer.remote"):
        open_shards("nonsense://x")


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize(
    ("error", "times", "said"),
    [
        (ConnectionResetError("gone"), 2, ""),
        (ConnectionResetError("gone"), 3, r"a b.mp4: storage fails \(gone\)"),
        (TimeoutError(), 2, ""),
        (RuntimeError("of a library"), 2, ""),
        (PermissionError("no"), 1, "a b.mp4: access is denied"),
        (type("Answer", (Exception,), {"status": 503})("busy"), 2, ""),
        (type("Answer", (Exception,), {"status": 403})("no"), 1, r"access is denied \(403\)"),
        (type("Answer", (Exception,), {"status": 418})("tea"), 1, r"can't be read \(tea\)"),
    ],
    ids=str,
)
def test_storage_that_fails(
    error: Exception, times: int, said: str, local: Shards, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What may pass is tried again, in the middle of a video too; what won't isn't."""
    shards = opened()
    shards.index  # noqa: B018  (is there)
    good, left = MemoryFileSystem.cat_file, [times]
    monkeypatch.setattr(remote, "BLOCK", 4096)

    def fails(self: Any, path: str, start: int = 0, end: int = 0, **_: Any) -> bytes:
        if left[0] and start > 4096:
            left[0] -= 1
            raise error
        return good(self, path, start, end)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", fails)
    if said:
        with pytest.raises(VideoError, match=said):
            clips(shards, "a b.mp4")
    else:
        assert torch.equal(clips(shards, "a b.mp4")[0], clips(local, "a b.mp4")[0])
    assert not left[0]


class Ranges(SimpleHTTPRequestHandler):
    """Serves files, ranges of them if `ranges`, and denies `denied`."""

    ranges = True
    denied = ""
    asked: list[str] = []  # noqa: RUF012

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.denied and self.path.endswith(self.denied):
            return self.send_error(403)
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not found or not self.ranges:
            return super().do_GET()
        self.asked.append(found[0])
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            return self.send_error(404)
        first, last = int(found[1]), int(found[2])
        content = path.read_bytes()[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Range", f"bytes {first}-{last}/{path.stat().st_size}")
        self.end_headers()
        self.wfile.write(content)
        return None


@pytest.fixture
def serve(local: Shards) -> Iterator[Callable[..., str]]:
    servers: list[ThreadingHTTPServer] = []

    def start(**how: Any) -> str:
        handler = type("Handler", (Ranges,), how)
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=local.root))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_http(local: Shards, serve: Callable[..., str]) -> None:
    pytest.importorskip("aiohttp", reason="aiohttp isn't installed: the extra `remote`")
    asked: list[str] = []
    shards = opened(serve(asked=asked))
    assert same(shards, local)
    spans = {(m.entry.offset - 512, m.entry.offset + m.entry.size - 1) for m in shards.members()}
    assert len(set(asked)) >= 3
    assert set(asked) <= {f"bytes={i}-{j}" for i, j in spans}  # no byte of another member
    with pytest.raises(VideoError, match="its server gives whole files, not ranges"):
        clips(opened(serve(ranges=False)), "a b.mp4")
    with pytest.raises(ShardsError, match=r"shards.json: access is denied \(403\)"):
        open_shards(serve(denied="shards.json"))
    with pytest.raises(VideoError, match=r"shard-000000.tar!a b.mp4: access is denied \(403\)"):
        clips(opened(serve(denied="shard-000000.tar")), "a b.mp4")
    with pytest.raises(ShardsError, match=r"no/shards.json: no such object"):
        open_shards(f"{serve()}/no")

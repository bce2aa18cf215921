"""Hostile lists: each is read exactly as stated, or refused in one line that names the place.

A third way, an error of Python's or a list that is read as something else, is what this table is
against: labels that become a part of a path, numbers that are guessed, files that never end.
"""

from __future__ import annotations

import codecs
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from fvcore.common.config import CfgNode

from timesformer.config.defaults import get_cfg
from timesformer.datasets.build import build_dataset
from timesformer.datasets.catalogue.ssv2 import read_answers
from timesformer.datasets.lists.class_names import read_class_names
from timesformer.datasets.lists.frame_rows import image_name, read_frame_list
from timesformer.datasets.lists.json_entries import read_json
from timesformer.datasets.lists.records import Images, Record
from timesformer.datasets.lists.rows import read_list
from timesformer.utils.errors import AnnotationError, ConfigError

NAMES = ("abseiling", "air drumming", "drumming", "arranging, flowers", "yoga")
FRAMES = "original_vido_id video_id frame_id path labels\n"
PROVIDER = "label,youtube_id,time_start,time_end\n"
HUGE = "9" * 5000
# Rows, options of read_list, and the records: (path, label) or (path, label, start, end).
READ: list[tuple[str, dict, list[tuple]]] = [
    ("frames/abc 300 17", {}, [("frames/abc", 17, 0, 300)]),
    ("frames/abc 12 300 17", {}, [("frames/abc", 17, 12, 300)]),
    ("frames/abc\t12\t300\t17\r\n", {}, [("frames/abc", 17, 12, 300)]),
    ('"frames/abc 3" 17', {}, [("frames/abc 3", 17)]),
    ('"frames/abc 3",300,17', {}, [("frames/abc 3", 17, 0, 300)]),
    ('"frames, a","12","300","17"', {}, [("frames, a", 17, 12, 300)]),
    ('"a ""b"".mp4"\t17', {}, [('a "b".mp4', 17)]),
    ("frames/abc 3,17", {"separator": ","}, [("frames/abc 3", 17)]),
    ("frames/abc 3,17", {"multi_label": True}, [("frames/abc", (3, 17))]),
    ("a.mp4::1,3", {"multi_label": True}, [("a.mp4", (1, 3))]),
    ("a\t1,3", {"multi_label": True}, [("a", (1, 3))]),
    ("x y.mp4,3\nb 1,3", {"multi_label": True}, [("x y.mp4", (3,)), ("b", (1, 3))]),
    ("a.mp4 1 3 2 4", {"multi_label": True}, [("a.mp4", (1, 2, 3, 4))]),
    ("a;b.mp4,3\n", {}, [("a;b.mp4", 3)]),
    ("a b/c,d/e.mp4 3", {}, [("a b/c,d/e.mp4", 3)]),
    ("take 12.mp4 3", {}, [("take 12.mp4", 3)]),
    ("12:30:00 4", {}, [("12:30:00", 4)]),
    ("a.mp4 007", {}, [("a.mp4", 7)]),
    ("\ufeffa.mp4 3\r\n\r\n", {}, [("a.mp4", 3)]),
    ("a.mp4 air_drumming", {"class_names": NAMES}, [("a.mp4", 1)]),
    ('yoga.mp4,"arranging, flowers"', {"class_names": NAMES}, [("yoga.mp4", 3)]),
    ('"x yoga" drumming', {"class_names": NAMES}, [("x yoga", 2)]),
    ("path,num_frames,label\na,5,3", {}, [("a", 3, 0, 5)]),
    (f"{PROVIDER}yoga,xy,1.5,2", {"class_names": NAMES}, [("xy_000001_000002.mp4", 4)]),
    ("x\u2028y.mp4 3", {}, [("x\u2028y.mp4", 3)]),
]
# Rows, options of read_list, line at fault (0: the list as a whole), part of the message.
REFUSED: list[tuple[str | bytes, dict, int, str]] = [
    ("a.mp4 1\nframes/abc 3,17", {}, 2, "3 before the label|'3' before the label"),
    ("a.mp4::1,3", {}, 1, "several labels"),
    ("a\t1,3", {}, 1, "a tab, or one quote"),
    ("a::1 3", {"separator": "::"}, 1, "'1' before the label"),
    ("a.mp4 1 2 3", {}, 1, "several labels"),
    ("a.mp4 0 3", {}, 1, "several labels"),
    ("f/a.b 12 300 3", {}, 1, "12 300 before the label, of 'f/a.b': .* put its path in quotes"),
    ("frames/abc 1 2 3 4", {}, 1, "1 2 3 before the label"),
    ("frames/abc 0 4", {}, 1, "0 before the label"),
    ("frames/abc 5 0 4", {}, 1, "5 0 before the label"),
    (f"frames/abc {HUGE} 4", {}, 1, "before the label"),
    ("my frames/a 300 2", {}, 1, "300 before the label.*in quotes"),
    ("frames/a 1.5 3", {}, 1, "'1.5' before the label"),
    ("frames/a -1 3", {}, 1, "'-1' before the label"),
    ("frames/a \u0663 3", {}, 1, "before the label"),
    ("a.mp4 10.5 3", {}, 1, "between path and label"),
    ("a.mp4;1 3", {}, 1, "several labels"),
    ("a.mp4|yoga 3", {}, 1, "between path and label"),
    ("a.mp4 yoga,3", {"multi_label": True}, 1, "between path and label"),
    ("frames/a yoga,3", {"multi_label": True}, 1, "column too many"),
    ("frames/a 1 2 3", {"multi_label": True}, 1, "join labels with commas"),
    ("a.mp4;1 3", {"multi_label": True}, 1, "join labels with commas"),
    ("frames/a yoga 3", {"class_names": NAMES}, 1, "'yoga' before the label"),
    ("frames/a air drumming,3", {"class_names": NAMES}, 1, "'air drumming' before the label"),
    ("a.mp4;air drumming", {"class_names": NAMES}, 1, "';' seems to part the path 'a.mp4'"),
    ("yoga/a.mp4;3", {"class_names": NAMES}, 1, "from the label 3: set DATA.PATH_LABEL_SEP"),
    ("yoga/a\u00a03", {"class_names": NAMES}, 1, "'3' before the label"),
    ("3 x/yoga/a.mp4", {"class_names": NAMES}, 1, "a number before the path"),
    ("0,a.mp4,3", {}, 1, "a number before the path"),
    ("frames,a,3", {}, 1, "column too many"),
    ("id,path,label\n1,a.mp4,3", {}, 1, "the column 'id' isn't read"),
    ("path,name,label\na,b,3", {}, 1, "the column 'name' isn't read"),
    (f"{FRAMES}1 1 0 1/a.jpg 3", {}, 1, "column 'original_vido_id'"),
    ('a, b.mp4",3', {}, 1, "one quote alone"),
    ("my frames/b\t12\t3x\t4", {}, 1, "a tab"),
    ("f::,300,00,2", {"separator": ","}, 1, "column too many"),
    ("a,, 3", {}, 1, "ends in a separator"),
    ("a.mp4\u00a0 3", {}, 1, "between path and label|ends in a sep"),
    ("a.mp4 \u0663", {}, 1, "label \u0663 is not in 0..17"),
    ("a.mp4 \u00b2", {}, 1, "label \u00b2 is not in 0..17"),
    ("a.mp4 -0", {}, 1, "label -0 is not in 0..17"),
    ("a.mp4 +3", {}, 1, r"label \+3 is not in"),
    (f"a.mp4 {HUGE}", {}, 1, "label 9{60} is not in"),
    ("a.mp4 3000000000", {"num_classes": 10**10}, 1, "label 3000000000"),
    ("a.mp4 3e1", {}, 1, "'3e1' is not an integer"),
    ("a.mp4 0x3", {}, 1, "'0x3' is not an integer"),
    ("a.mp4 3\rb.mp4 4\r", {}, 1, r"control character '\\r': lines must end"),
    ("a.mp4 1\r,2", {"class_names": NAMES, "multi_label": True}, 1, r"control character '\\r'"),
    ("a.mp4 3\nb\x1fc.mp4 4", {}, 2, r"control character '\\x1f'"),
    ("a.mp4 3\n\ufeffb.mp4 4", {}, 2, "byte order mark"),
    ("a.mp4 3\n\0", {}, 2, "NUL"),
    ("a.mp4 3\n".encode("utf-16"), {}, 0, "UTF-16"),
    ("a.mp4 3\n".encode("utf-32"), {}, 0, "UTF-16, or 32"),
    (b"a.mp4 3\n\xe9.mp4 4", {}, 2, "not UTF-8"),
    (codecs.BOM_UTF8, {}, 0, "no videos"),
    ('"a.mp4 3', {}, 1, "quotes that aren't closed"),
    ('"" 3', {}, 1, "no path"),
    (',"a, b"', {"class_names": ("a, b",)}, 1, "no path"),
    ('"a, b.mp4",1",17', {}, 1, "is not an integer"),
    ('d.mp:"yoga"', {"class_names": NAMES}, 1, "no label"),
    ('"a.mp4"x3', {}, 1, "nothing that parts"),
    ('"a.mp4" 1 2 3', {}, 1, "several labels"),
    ('a.mp4,"3', {}, 1, "is not an integer"),
    ("a.mp4 3\n./a.mp4 3", {}, 2, "in line 1 already"),
    ("3 a.mp4", {}, 1, "no label"),
    ("x " + "1 " * 40_000 + "y", {}, 1, "no label|is not an integer"),
    ("a" * 1_000_000, {}, 1, "1,000,000 characters"),
    ("a.mp4 " + "1," * 1_000_000 + "y", {"multi_label": True}, 1, "2,000,007 characters"),
    (f"{PROVIDER}yoga,xy,1e300,2", {"class_names": NAMES}, 2, "no label, youtube_id"),
    (f"{PROVIDER}yoga,xy,1_0,2", {"class_names": NAMES}, 2, "no label, youtube_id"),
    (f"{PROVIDER}yoga,xy,\u0661,2", {"class_names": NAMES}, 2, "no label, youtube_id"),
    (f"{PROVIDER}yoga,,1,2", {"class_names": NAMES}, 2, "no youtube_id"),
    (f"label,{PROVIDER}", {}, 1, "there is no column 'label', or several"),
    (f'{PROVIDER}"{"a" * 90_000}"', {}, 2, "no label, youtube_id"),
]


@pytest.mark.parametrize(("rows", "options", "expected"), READ)
def test_lists_that_are_read(tmp_path: Path, rows: str, options: dict, expected: list) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(rows.encode())
    records = read_list(path, **{"num_classes": 18, **options})
    assert list(records) == [
        Record(path, label, images=Images(*images) if images else None)
        for path, label, *images in expected
    ]


@pytest.mark.parametrize(
    ("rows", "options", "line", "message"), REFUSED, ids=[str(i) for i in range(len(REFUSED))]
)
def test_lists_that_are_refused(
    tmp_path: Path, rows: str | bytes, options: dict, line: int, message: str
) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(rows.encode() if isinstance(rows, str) else rows)
    place = f"{path}, line {line}: " if line else f"{path}: "
    with OneLine(AnnotationError, place, message):
        read_list(path, **{"num_classes": 18, **options})


def test_braces_in_a_list_of_the_provider(tmp_path: Path) -> None:
    """They stand for nothing, neither in the name of the list nor in a split."""
    path = tmp_path / "train{0}{x}.csv"
    path.write_text("label,youtube_id,time_start,time_end,split\nyoga,a,1,2,{y}\n")
    (record,) = read_list(path, 5, class_names=NAMES, prefix="v")
    assert record.path == "v/a_000001_000002.mp4"


@pytest.mark.parametrize("kind", ["folder", "FIFO", "device", "socket"])
@pytest.mark.parametrize("reader", ["list", "frames", "json", "answers", "names"])
def test_lists_that_are_no_files(
    tmp_path: Path, kind: str, reader: str, make_fifo: Callable[[Path], None]
) -> None:
    """Opening a FIFO or a terminal waits for ever, and `/dev/zero` never ends."""
    path = special(tmp_path, kind, make_fifo)
    read = {
        "list": lambda: read_list(path, 5),
        "frames": lambda: read_frame_list(path, 5, tmp_path),
        "json": lambda: read_json(path),
        "answers": lambda: read_answers(path, {}, tmp_path),
        "names": lambda: read_class_names(str(path), 5),
    }[reader]
    with OneLine(AnnotationError, f"{path}: can't be read: ", "Is a dir|not a regular"):
        read()


@pytest.mark.parametrize(
    ("rows", "line", "message"),
    [
        ("7 0 0 7/1.jpg 1\n7 0 1 8/2.jpg 1\n", 3, "folder '8' and label '1', but '7'"),
        ("7 0 0 7/1.jpg 1\n7 0 1 7/2.jpg 0\n", 3, "label '0', but '7' and '1'"),
        ("7 0 0 7/1.jpg -0\n", 2, "label must be a number from 0 to 1"),
        ("7 0 0 7/1.jpg \u0661\n", 2, "label must be a number from 0 to 1"),
        (f"7 0 0 7/1.jpg {HUGE}\n", 2, "label must be a number from 0 to 1"),
        ("7 0 0 7/1.jpg 1,0\n", 2, "label must be a number from 0 to 1"),
        ("7 0 0 my 7/1.jpg 1\n", 2, "must have 5 columns"),
        ("7 0 0 7/a.jpg 1\n", 2, "'7/a.jpg' must be an image with a number"),
        ("7 0 0 7/1.jpg 1\n7 0 1 7/2.jpg 1\n7 0 2 7/4.jpg 1\n", 4, "image 4 after 2: .* one after"),
        ("7 0 0 7/1.jpg 1\n7 0 1 7/a2.jpg 1\n", 3, "'a2.jpg' where '2.jpg' should follow"),
        ("7 0 0 7/1.jpg 1\n7 0 1 7/02.jpg 1\n", 3, "'02.jpg' where '2.jpg' should follow"),
        ("7 0 0 7/1.jpg 1\n7 0 1 7/1.jpg 1\n", 3, "image 1 after 1: .* folder of their own"),
        ("7 0 0 7/1.jpg 1\n7 0 1 7/2.jpg 1\n8 0 1 8/1.jpg 2\n", 4, "label must be"),
        ("7\t0\t0\t7/1.jpg\t1\n7\t0\t1\t7/2.jpg\n", 3, "must have 5 columns"),
        ("7 0 0 7/1.jpg 1 " + "x" * 1_000_000, 2, "must have 5 columns"),
    ],
)
def test_hostile_frame_lists(tmp_path: Path, rows: str, line: int, message: str) -> None:
    (tmp_path / "train.csv").write_text(FRAMES + rows)
    with OneLine(AnnotationError, f"{tmp_path}/train.csv, line {line}: ", message):
        build_dataset("ssv2", ssv2(tmp_path), "train")


@pytest.mark.parametrize("end", ["\n", "\r\n", " \n"])
@pytest.mark.parametrize("separator", [" ", "\t"])
def test_frame_lists_that_are_read(tmp_path: Path, end: str, separator: str) -> None:
    rows = [f"{i} {i} {j} {i}/{j}.jpg {i % 2}" for i in (7, 8) for j in range(3)]
    text = end.join([FRAMES.strip(), *rows]).replace(" ", separator)
    (tmp_path / "train.csv").write_bytes(codecs.BOM_UTF8 + text.encode())
    records = build_dataset("ssv2", ssv2(tmp_path), "train").records
    assert [(Path(r.path).name, r.label, r.images) for r in records] == [
        ("7", 1, Images(0, 3, "0.jpg")),
        ("8", 0, Images(0, 3, "0.jpg")),
    ]
    assert [records.where(i)[-6:] for i in range(2)] == ["line 2", "line 5"]


@pytest.mark.parametrize("name", ["%d.jpg", "img_%05d.jpg", "a%%d_%d_x.jpg", "12345678901%03d.jpg"])
def test_frame_lists_know_which_images_they_name(tmp_path: Path, name: str) -> None:
    """Rows may differ in what says nothing, and numbers may get longer."""
    rows = [f"7 0 {n} 7/{name % n} 1{' ' * (n % 3 == 0)}" for n in range(7, 112)]
    rows.insert(50, "")
    (tmp_path / "train.csv").write_text(FRAMES + "\n".join(rows))
    ((_, _, _, _, images),) = read_frame_list(tmp_path / "train.csv", 2, tmp_path)
    assert images is not None
    assert images[1:] == (105, name % 7)
    assert images.first % 1000 == 7
    assert image_name(images.name, images.first + 104) == name % 111


DEEP = '[{"id": ' + "[" * 100_000 + "]" * 100_000 + ', "template": "Turning"}]'


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("train.json", DEEP, "not JSON that can be read"),
        *(("train.json", DEEP.replace("[" * 10**5, "[" * n).replace("]" * 10**5, "]" * n), "json")
          for n in range(100, 1000, 50)),
        ("train.json", f'[{{"id": {HUGE}, "template": "Turning"}}]', "not JSON that can be read"),
        ("train.json", f'[{{"id": {"9" * 4000}, "template": "Turning"}}]', "neither 9{60}.webm"),
        ("train.json", '[{"id": "\\ud800", "template": "Turning"}]', "half a character"),
        ("train.json", '[{"id": "8\\n", "template": "Turning"}]', "entry 1: 'id' must be a plain"),
        ("train.json", '[{"id": 8.0, "template": "Turning"}]', "entry 1: 'id' must be text"),
        ("train.json", '[{"id": "8", "template": NaN}]', "entry 1: 'template' must be text"),
        ("train.json", '[{"id": "8", "template": "Oh no\\n"}]', r"entry 1: .*'Oh no\\n'"),
        ("train.json", '[{"id": "8", "id": "9", "template": "Turning"}]', "'id' is given twice"),
        ("labels.json", '{"Turning": "0", "Turning": "1"}', "'Turning' is given twice"),
        ("labels.json", '{"Turning": "\u0660", "b": "1"}', "entry 1: '\u0660' is not the id"),
        ("labels.json", f'{{"Turning": {"9" * 4000}, "b": "1"}}', "entry 1: 9.* is not the id"),
        ("labels.json", '{"\\udfff": "0", "Turning": "1"}', "half a character"),
        ("labels.json", '{"Turning": "-0", "b": "1"}', "entry 1: '-0' is not the id"),
        ("labels.json", '{"Turning": true, "b": "1"}', "entry 1: True is not the id"),
        ("labels.json", '{"Turning": ' + "[" * 400 + "]" * 400 + "}", "entry 1"),
    ],
)  # fmt: skip
def test_hostile_json(tmp_path: Path, file: str, text: str, message: str) -> None:
    (tmp_path / "labels.json").write_text('{"Turning": "0", "b": "1"}')
    (tmp_path / "train.json").write_text('[{"id": "8", "template": "Turning"}]')
    (tmp_path / "8.webm").touch()
    assert len(build_dataset("ssv2", ssv2(tmp_path), "train")) == 1
    (tmp_path / file).write_text(text)
    with OneLine(AnnotationError, str(tmp_path), message):
        build_dataset("ssv2", ssv2(tmp_path), "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 a\n2 b\n", "its lines are numbered"),
        ("0,a\n1,b\n", "its lines are numbered"),
        ("a\n\nb\n", "line 2: no name"),
        ("a\na\n", "'a' is in lines 1 and 2"),
        ("a\rb\r", "has 1 names|control character"),
        ("a\x1b[2J\nb\n", "line 1: a control character"),
        ("a\n", "has 1 names, but MODEL.NUM_CLASSES is 2"),
        ("", "has 1 names|no name"),
    ],
)
def test_hostile_class_names(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "names.txt").write_bytes(text.encode())
    with OneLine(ConfigError, "DATA.CLASS_NAMES ", message):
        read_class_names(str(tmp_path / "names.txt"), 2)


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    """`Path.exists` raises an error of Python's for them, where it tells of others."""
    name = "x" * 5000
    with OneLine(ConfigError, "DATA.CLASS_NAMES 'xxx", "neither a file nor"):
        read_class_names(name, 2)
    for dataset in ("kinetics", "ssv2", "ssv2test", "diving48", "synthetic", "videofolder"):
        for mode in ("train", "test"):
            with OneLine((AnnotationError, ConfigError), "", "x{100}"):
                build_dataset(dataset, ssv2(tmp_path / name), mode)


@pytest.mark.parametrize(
    "dataset",
    ["kinetics", "howto100m", "ssv2", "ssv2test", "diving48", "synthetic", "videofolder"],
)
@pytest.mark.parametrize("mode", ["train", "val", "test"])
def test_a_folder_that_was_forgotten_is_named_by_its_key(
    dataset: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with OneLine((AnnotationError, ConfigError), "", "DATA.PATH_TO_DATA_DIR is empty: set it to"):
        build_dataset(dataset, ssv2(""), mode)


def ssv2(folder: Path | str) -> CfgNode:
    cfg = get_cfg()
    cfg.DATA.PATH_TO_DATA_DIR, cfg.MODEL.NUM_CLASSES = str(folder), 2
    cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.DATA.RANDOM_FLIP = 1, False
    return cfg


def special(tmp_path: Path, kind: str, make_fifo: Callable[[Path], None]) -> Path:
    if kind == "folder":
        return tmp_path
    if kind == "device":
        if not Path("/dev/zero").exists():
            pytest.skip("this system has no /dev/zero")
        return Path("/dev/zero")
    if kind == "FIFO":
        make_fifo(tmp_path / "pipe")
        return tmp_path / "pipe"
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(tmp_path / "s"))
    return tmp_path / "s"


class OneLine:
    """Expect an error of one line, that begins with a place and has a message."""

    def __init__(self, kind: type | tuple[type, ...], place: str, message: str) -> None:
        self.raises, self.place = pytest.raises(kind, match=message), place

    def __enter__(self) -> None:
        self.caught = self.raises.__enter__()

    def __exit__(self, *error: object) -> bool:
        done = self.raises.__exit__(*error)
        text = str(self.caught.value)
        assert len(text.splitlines()) == 1
        assert text.startswith(self.place)
        return bool(done)

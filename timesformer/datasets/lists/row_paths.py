"""Where the path of a row ends: what may be a label's text is never taken for a part of it."""

from __future__ import annotations

import re

from timesformer.datasets.lists.label_reader import BadRowError, LabelReader, is_number

SEPARATORS = ("::", "\t", ",", " ")
VIDEO_SUFFIXES = frozenset((
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".flv", ".f4v", ".mpg", ".mpeg",
    ".m2ts", ".mts", ".ts", ".vob", ".ogv", ".3gp", ".3g2", ".asf", ".divx",
))  # fmt: skip
MOST_WORDS = 50  # separators inside a label or behind a path; bounds the time of a hostile row
QUOTE_IT = 'if it is a part of the path, put the path in quotes ("…")'

CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
SUFFIX = "(?i:" + "|".join(re.escape(suffix) for suffix in sorted(VIDEO_SUFFIXES)) + ")"
_BEHIND_FILE = re.compile(rf"{SUFFIX}[\s,;|:]")
_ENDS_IN_FILE = re.compile(rf"{SUFFIX}$")
_COLUMN_BEFORE = re.compile(r"\d+\s*(?:[\t,;|]|::)")
_NUMBER_BEFORE = re.compile(r"\d+\s")
# A path that no row can be parted from wrongly: without anything that parts, or a video's file
# whose name is, in whatever folders. (\\s would be several times slower than what it stands for.)
_WHITE = r"\x00- \x7f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
_PLAIN_NAME = rf'[^{_WHITE},;|:"/]+'
PLAIN_FILE = rf'(?!\d+\s*(?:[\t,;|]|::))(?:(?=\S)[^"\x00-\x1f\x7f\ufeff]*/)?{_PLAIN_NAME}{SUFFIX}'
PLAIN = rf'(?:[^{_WHITE},;|:"]+|{PLAIN_FILE})'


def is_plain_ascii(path: str) -> bool:
    """Tell whether a path is PLAIN, for most paths of ASCII; False may be wrong."""
    if not (path.isascii() and path.isprintable()) or '"' in path or not path:
        return False
    if "," in path or ";" in path or "|" in path or ":" in path:
        return False
    if " " not in path:
        return True
    _, _, name = path.rpartition("/")
    suffix = name[name.rfind(".") :].lower()
    return " " not in name and suffix in VIDEO_SUFFIXES and path[0] not in " 0123456789"


def has_extension(path: str) -> bool:
    """Tell whether a path is that of a file, as its name says."""
    stem, _, extension = path.rpartition(".")
    return bool(stem) and len(extension) <= 5 and extension.isalnum() and not extension.isdecimal()


def is_video(path: str) -> bool:
    """Tell whether a path ends as those of videos do, in any case."""
    return _ENDS_IN_FILE.search(path) is not None


def behind(path: str, separator: str) -> tuple[str, list[str], list[str]]:
    """Part a path from numbers behind it.

    Returns:
        What is before them, the numbers as text, and what stands before each of them.
    """
    numbers: list[str] = []
    gaps: list[str] = []
    between = " \t,;|:" + (separator if not separator.isalnum() else "")
    for _ in range(MOST_WORDS):
        head = path.rstrip("0123456789")
        body = head.rstrip(between)
        gap = head[len(body) :]
        if head == path or not body or gap in ("", ":"):  # a time, 12:30
            break
        numbers.insert(0, path[len(head) :])
        gaps.insert(0, gap)
        path = body
    return path, numbers, gaps


def check_path(path: str, separator: str, read_label: LabelReader, trusted: bool) -> None:
    """Refuse a path, not in quotes, that may hold a label or another column.

    Args:
        path: what stands before the separator.
        separator: of this row; "" if there is none.
        read_label: knows the classes.
        trusted: the separator is the one configured, and isn't the default one.

    Raises:
        BadRowError: it may.
    """
    if path[-1].isspace() or path[-1] in ",;|":
        raise BadRowError(f"{path!r:.200} ends in a separator: {QUOTE_IT}")
    in_file = is_video(path)
    if not in_file and (found := _BEHIND_FILE.search(path)):
        raise BadRowError(
            f"{path[found.end() - 1 :]!r:.200} between path and label is neither a label nor a "
            f"number of frames; {QUOTE_IT}"
        )
    before = _COLUMN_BEFORE if separator else _NUMBER_BEFORE
    if before.match(path) and not (trusted and separator not in path):
        raise BadRowError(f"a number before the path, in {path!r:.200}: remove it; {QUOTE_IT}")
    if "\t" in path or (path.endswith('"') and path.count('"') % 2):
        raise BadRowError(f"a tab, or one quote alone, in {path!r:.200}; {QUOTE_IT}")
    if in_file or (trusted and separator not in path):
        return
    name = path.rpartition("/")[2]
    for text in _ends(name, separator):
        if _number_like(text) or read_label.named(text) is not None:
            raise BadRowError(
                f"{text!r:.60} before the label may be another label or a number of frames; "
                f"{QUOTE_IT}"
            )
        if separator == "," and ("," in name or read_label.multi_label):
            raise BadRowError(f"{name!r:.200} has a column too many; {QUOTE_IT}")


def _ends(name: str, separator: str) -> list[str]:
    """Last words of a name, one to many; not all of them, which are the name itself."""
    parting = re.finditer(rf"[\s,;|]|::|{re.escape(separator or ' ')}", name)
    return [name[found.end() :].strip() for found in parting][-MOST_WORDS:]


def _number_like(text: str) -> bool:
    return is_number(text) or re.fullmatch(r"[-+]?(\d+(\.\d*)?|\.\d+)", text) is not None

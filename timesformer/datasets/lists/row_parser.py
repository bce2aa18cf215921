"""From a row of a list to a path, a label and, where it says so, images of a folder."""

from __future__ import annotations

import re
from collections.abc import Sequence

from timesformer.datasets.lists.label_reader import REMEMBERED, BadRowError, Label, LabelReader
from timesformer.datasets.lists.records import Images
from timesformer.datasets.lists.row_paths import (
    MOST_WORDS,
    PLAIN,
    PLAIN_FILE,
    QUOTE_IT,
    SEPARATORS,
    behind,
    check_path,
    has_extension,
    is_plain_ascii,
    is_video,
)

Row = tuple[str, Label, Images | None]
BLANKS = " \t"
LABEL_COLUMNS = {"label", "labels", "class", "label_id", "class_id", "class_name", "target", "tag"}
FRAME_COLUMNS = ("frame", "num", "n_", "total", "offset", "start", "length", "count")
QUOTED = r'"((?:[^"]|"")*)"'
OTHERS = (";", "|")  # taken where DATA.PATH_LABEL_SEPARATOR says so; parts of a path else
FEW = 9  # digits of a number of frames
PARTING = r"(?:::|\t|,| ) *"
# One separator, and between it and others like it perhaps an offset, and a number of frames.
NUMBERS = rf"(?:(::|\t|,| )(?:([0-9]{{1,{FEW}}})\2)?([1-9][0-9]{{0,{FEW - 1}}})\2|{PARTING})"
PLAIN_QUOTED = re.compile(rf'"([^"\s][^"\x00-\x1f\x7f]*)"{NUMBERS}([0-9]{{1,9}})\r?')


class RowParser:
    """Parser of rows `path label`. Raises BadRowError if there is no label, or an unknown one.

    Most lists are made of rows that can be read in one way only; `plain` reads them faster.
    """

    def __init__(self, separator: str, read_label: LabelReader) -> None:
        self.read_label = read_label
        self.configured = separator or " "
        self.separators: tuple[str, ...] = tuple(dict.fromkeys((self.configured, *SEPARATORS)))
        if read_label.multi_label:  # a comma is first of all what stands between labels
            self.separators = (*(s for s in self.separators if s != ","), ",")
        self._plain, self._plain_named = self._plain_rows()
        self._plain_labels: dict[str, Label] = {}  # numbers that stood in plain rows

    def _plain_rows(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        """Patterns of plain rows with numbers, and of those with names, of which a match may be."""
        never = re.compile("(?!)")
        names = self.read_label.index
        if self.configured not in (*SEPARATORS, *OTHERS):
            return never, never
        blanks = r"(?:::|\t| ) *" if self.read_label.multi_label else PARTING
        named = re.compile(rf"({PLAIN_FILE}){blanks}(\S[^\x00-\x1f\x7f]*)\r?") if names else never
        if any("/" in name or re.search(r"[\s,:]\S*[0-9]$", name) for name in names):
            return never, never
        if self.read_label.multi_label:
            return re.compile(rf"({PLAIN}){blanks}([0-9]{{1,9}}(?:,[0-9]{{1,9}})*)\r?"), named
        return re.compile(rf"({PLAIN}){NUMBERS}([0-9]{{1,9}})\r?"), named

    def plain(self, line: str) -> Row | None:
        """Return what a row says that is plain, else None."""
        path, _, text = line.rpartition(self.separators[0])
        label = self._plain_labels.get(text)
        if label is not None and is_plain_ascii(path):  # what PLAIN says, and several times faster
            return path, label, None
        if line.startswith('"'):
            match = PLAIN_QUOTED.fullmatch(line)
            label = self.read_label(match[5]) if match else None
            return _plain_row(match, label) if match and label is not None else None
        match = self._plain.fullmatch(line) or self._plain_named.fullmatch(line)
        if match is None:
            return None
        label = self.read_label(match[match.lastindex or 0])
        if label is None or (row := _plain_row(match, label)) is None:
            return None
        separator = line[match.end(1)]
        self._keep("::" if separator == ":" else separator)
        if match.re is self._plain and len(self._plain_labels) < REMEMBERED:
            self._plain_labels[line[match.start(match.lastindex or 0) :]] = label  # "\r" and all
        return row

    def __call__(self, row: str) -> Row:
        try:
            return self._parse(row)
        except BadRowError as error:
            if found := self._other_separator(row):
                raise BadRowError(found) from error
            raise

    def _parse(self, row: str) -> Row:
        if row.startswith('"'):
            return self._quoted(row)
        start = max(0, row.find('"'))
        if row[:start].endswith(self.separators) and re.fullmatch(QUOTED, row[start:]):
            return self._with_quoted_label(row[:start], _unquoted(row[start + 1 : -1]))
        for separator in self.separators:
            if separator not in row:
                continue
            fields = row.rsplit(separator, MOST_WORDS)
            # Longest label first: the end of a label of several words may be another label.
            for i in range(1, len(fields)):
                label = self.read_label(separator.join(fields[i:]))
                video = separator.join(fields[:i])
                if label is not None and video.strip(f"{BLANKS},;|:"):
                    self._keep(separator)
                    return self._without_numbers(video, separator, label)
        return self._labelled_by_folder(row)

    def _other_separator(self, row: str) -> str:
        """Say which separator a row that couldn't be parted seems to have; "" if none is seen."""
        for other in OTHERS:
            if other not in row or other in self.separators:
                continue
            parser = RowParser(other, self.read_label)
            try:
                path, label, _ = parser._parse(row)
            except BadRowError:
                continue
            if parser.separators[0] != other:  # another one parted it
                continue
            return (
                f"{other!r} seems to part the path {path!r:.200} from the label {label}: set "
                f"DATA.PATH_LABEL_SEPARATOR '{other}'"
            )
        return ""

    def _keep(self, separator: str) -> None:
        """Try first what stood in the row before: a list has one separator."""
        between_labels = separator == "," and self.read_label.multi_label
        if separator != self.separators[0] and not between_labels:
            self.separators = tuple(dict.fromkeys((separator, *self.separators)))

    def _without_numbers(self, video: str, separator: str, label: Label) -> Row:
        """Part a path from the numbers behind it: further labels, a number of frames, an offset."""
        path = self._without_gap(video, separator)
        if not path.strip(f"{BLANKS},;|:"):
            raise BadRowError("no path before the label")
        gap = video[len(path) :] + separator
        trusted = separator == self.configured != " "
        found: Row = path, label, None
        path, numbers, gaps = behind(path, separator)
        gaps.append(gap)
        if numbers and has_extension(path):
            found = self._behind_file(path, numbers, gaps, separator, label)
        elif numbers and isinstance(label, tuple) and not trusted:
            raise _before_labels(numbers)
        elif numbers and isinstance(label, int) and all(_are(gap, separator) for gap in gaps):
            found = _behind_folder(path, numbers, separator, label)
        check_path(found[0], separator, self.read_label, trusted)
        return found

    def _without_gap(self, video: str, separator: str) -> str:
        """Part a path from blanks behind it and, in "a.mp4, 3", from the other separator."""
        path = video.rstrip(BLANKS)
        for other in (",", "::", self.configured) if not separator.strip() else ():
            if other.strip() and path.endswith(other):
                return path.removesuffix(other).rstrip(BLANKS)
        return path

    def _behind_file(
        self, path: str, numbers: Sequence[str], gaps: Sequence[str], separator: str, label: Label
    ) -> Row:
        if isinstance(label, tuple):
            several = {*label}
            for number in numbers:
                several.update(self.read_label(number) or ())  # type: ignore[arg-type]
            alike = all(_are(f"{gap.replace(',', '')}{separator}", separator) for gap in gaps)
            if alike and len(label) == 1:  # "163 1,3" may be a number of frames and two labels
                return path, tuple(sorted(several)), None
            raise _before_labels(numbers)
        count = _count(numbers[0]) if len(numbers) == 1 else None
        if count and all(_are(gap, separator) for gap in gaps):
            return path, label, Images(0, count)
        joined = ", ".join((*numbers, str(label)))
        if len(numbers) <= 2 and not is_video(path):
            raise BadRowError(
                f"{' '.join(numbers):.60} before the label, of {path!r:.200}: if it is a folder, "
                'put its path in quotes ("…"); if a file has several labels, set DATA.MULTI_LABEL '
                "True"
            )
        raise BadRowError(
            f"several labels ({joined:.60}): set DATA.MULTI_LABEL True and MODEL.LOSS_FUNC bce, or "
            "leave one"
        )

    def _quoted(self, row: str) -> Row:
        """Read a row whose path is in quotes, and is just what stands there."""
        match = re.match(QUOTED, row)
        path = _unquoted(match[1]) if match else ""
        rest = row[match.end() :] if match else ""
        if not path.strip():
            raise BadRowError(f"no path, or quotes that aren't closed, in {row!r:.200}")
        if not rest:
            return self._labelled_by_folder(path, quoted=True)
        separator = next(
            (s for s in self.separators if s.strip() and rest.lstrip(BLANKS).startswith(s)), rest[0]
        )
        if separator == rest[0] and separator not in self.separators:
            raise BadRowError(f"nothing that parts path and label in {row!r:.200}")
        text = rest.lstrip(BLANKS).removeprefix(separator).strip(BLANKS)
        if quoted := re.fullmatch(QUOTED, text):
            text = _unquoted(quoted[1])
        if (label := self.read_label(text)) is not None:
            return path, label, None
        fields = [field.strip() for field in text.split(separator.strip() or None)]
        fields = [f[1:-1] if re.fullmatch(r'"[^"]*"', f) else f for f in fields]
        for i in range(1, min(len(fields), 4)):
            label = self.read_label(separator.join(fields[i:]))
            if label is not None and all(f.isascii() and f.isdecimal() for f in fields[:i]):
                if has_extension(path) and (is_video(path) or i != 2):
                    return self._behind_file(path, fields[:i], (separator,), separator, label)
                # The path may hold separators: its quotes say where it ends.
                _, _, images = _behind_folder("", fields[:i], separator, label)
                return path, label, images
        raise self.read_label.unknown(text)

    def _with_quoted_label(self, video: str, text: str) -> Row:
        label = self.read_label(text)
        if label is None:
            raise self.read_label.unknown(text)
        for separator in self.separators:
            if separator.strip() and video.rstrip(BLANKS).endswith(separator):
                video = video.rstrip(BLANKS)
                return self._without_numbers(video.removesuffix(separator), separator, label)
        return self._without_numbers(video[:-1], video[-1], label)

    def _labelled_by_folder(self, video: str, quoted: bool = False) -> Row:
        folder, _, file = video.rpartition("/")
        label = self.read_label.named(folder.rpartition("/")[2])
        texts = [file.rpartition(s)[2].strip() for s in self.separators if s in file]
        if texts and not has_extension(file) and not quoted:
            raise self.read_label.unknown(texts[0])
        if label is None or not file:
            accepted = ", ".join(repr(separator) for separator in self.separators)
            raise BadRowError(
                f"no label in {video!r:.200}; a row is a path, one of {accepted}, and a label "
                "(DATA.PATH_LABEL_SEPARATOR may be another), or a path in a folder named after its "
                "class (DATA.CLASS_NAMES)"
            )
        if not quoted:
            check_path(video, "", self.read_label, trusted=False)
        return video, (label,) if self.read_label.multi_label else label, None


def is_header(row: str, separators: Sequence[str], read_label: LabelReader) -> bool:
    """Tell whether a first row names columns, a path and last a label.

    Raises:
        BadRowError: it does, and there are others, which would be taken for parts of a path.
    """
    for separator in (*separators, '"', *OTHERS):
        row = row.replace(separator, " ")
    *others, last = row.lower().split() or [""]
    if last not in LABEL_COLUMNS or read_label.named(last) is not None:
        return False
    if not any(map(_names_path, others)) or not all(map(str.isidentifier, others)):
        return False
    unread = [] if _names_path(others[0]) else others[:1]
    unread += [c for c in others[1:] if not any(word in c for word in FRAME_COLUMNS)]
    if unread:
        raise BadRowError(
            f"the column {unread[0]!r:.60} isn't read: leave path and label, in that order"
        )
    return True


def _names_path(column: str) -> bool:
    return column.startswith(("path", "video", "file"))


def _behind_folder(path: str, numbers: Sequence[str], separator: str, label: Label) -> Row:
    if isinstance(label, tuple):
        raise _before_labels(numbers)
    offset = _count(numbers[0], least=0) if len(numbers) == 2 else 0
    count = _count(numbers[-1]) if len(numbers) <= 2 else None
    if separator not in path and offset is not None and count:
        return path, label, Images(offset, count)
    joined = " ".join(numbers)
    raise BadRowError(
        f"{joined:.60} before the label: neither a number of frames nor offset and number of "
        f"frames of a folder whose path has no {separator!r}. {QUOTE_IT}; several labels need "
        "DATA.MULTI_LABEL True and commas"
    )


def _before_labels(numbers: Sequence[str]) -> BadRowError:
    return BadRowError(
        f"{numbers[-1]:.60} before the labels: join labels with commas (3,17), and leave a number "
        "of frames out; of a folder all images count then"
    )


def _plain_row(match: re.Match[str], label: Label) -> Row | None:
    """Return what a match of NUMBERS between path and label says, None if that isn't plain."""
    if match.re.groups < 5 or not (count := match[4]):
        return match[1], label, None
    if not isinstance(label, int) or (match[3] and has_extension(match[1])):
        return None
    return match[1], label, Images(int(match[3] or 0), int(count))


def _are(gap: str, separator: str) -> bool:
    """Tell whether between two fields stands the separator, and blanks, and nothing else."""
    return separator in gap and not gap.replace(separator, "").strip()


def _count(number: str, least: int = 1) -> int | None:
    """Return a number of frames, None if there can't be so many or so few."""
    return int(number) if len(number) <= FEW and int(number) >= least else None


def _unquoted(text: str) -> str:
    return text.replace('""', '"')

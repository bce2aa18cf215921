"""Names of classes, in label order: shipped with the package, or from a file."""

from __future__ import annotations

import os
import re
from pathlib import Path

from timesformer.datasets.lists.row_paths import CONTROL
from timesformer.datasets.lists.text_file import read_text
from timesformer.utils.errors import ConfigError

LABELS_DIR = Path(__file__).parents[1] / "labels"


def read_class_names(
    source: str,
    num_classes: int | None,
    key: str = "DATA.CLASS_NAMES",
    of_classes: str = "MODEL.NUM_CLASSES",
) -> tuple[str, ...]:
    """Read class names in label order.

    Args:
        source: a text file with a name a line or the name of a shipped list; empty for none.
        num_classes: how many names there must be; None for any number.
        key: what messages call `source`: where the user has said it.
        of_classes: what they call `num_classes`.

    Returns:
        The names; () where `source` is empty.

    Raises:
        AnnotationError: the file can't be read.
        ConfigError: there is no such list, or it has another number of names.
    """
    if not source:
        return ()
    path = Path(source)
    if not os.path.exists(path):  # noqa: PTH110  (Path's raises for a name that is too long)
        path = LABELS_DIR / f"{source}.txt"
        shipped = sorted(file.stem for file in LABELS_DIR.glob("*.txt"))
        if source not in shipped:
            raise ConfigError(
                f"{key} {source!r} is neither a file nor a shipped list ({', '.join(shipped)})"
            )
    names = tuple(line.strip() for line in read_text(path).rstrip().split("\n"))
    for number, name in enumerate(names, 1):
        if CONTROL.search(name):
            raise ConfigError(
                f"{key} {source!r}, line {number}: a control character in {name!r:.60}"
            )
    numbers = [int(m[1]) for m in map(re.compile(r"([0-9]{1,9})[\s,:;.]+\S").match, names) if m]
    if len(names) > 1 and numbers in ([*range(len(names))], [*range(1, len(names) + 1)]):
        raise ConfigError(
            f"{key} {source!r}: its lines are numbered ({names[0]!r:.60}); leave the "
            "names, in the order of the labels"
        )
    if "" in names and len(names) > 1:
        raise ConfigError(f"{key} {source!r}, line {names.index('') + 1}: no name")
    if num_classes is not None and len(names) != num_classes:
        raise ConfigError(
            f"{key} {source!r} has {len(names)} names, but {of_classes} is {num_classes}"
        )
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        lines = [i for i, name in enumerate(names, 1) if name == twice][:2]
        raise ConfigError(
            f"{key} {source!r}: {twice!r} is in lines {lines[0]} and {lines[1]}; a name "
            "stands for one class"
        )
    return names

"""A folder of videos that were made says how, so that others aren't taken for them or put there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timesformer.datasets.lists.json_entries import read_json, shown
from timesformer.utils.errors import AnnotationError, UserError
from timesformer.utils.files import LOCK_NAME, make_folder, write_text


def claim(
    manifest: Path, made_with: Mapping[str, Any], advice: str = "choose another --output"
) -> None:
    """Note in a folder how its videos are made, unless it says so already.

    Args:
        manifest: the file in the folder that says it.
        made_with: the settings, and the version of what they mean.
        advice: what to do about another folder, for messages.

    Raises:
        UserError: they were made otherwise; or the folder has something else in it, or can't be
            written.
    """
    output = manifest.parent
    if not os.path.lexists(manifest):
        make_folder(output)
        # Perhaps videos among which ours would be lost, or lists.
        if {path.name for path in output.iterdir()} - {LOCK_NAME}:
            raise UserError(f"{output} isn't empty: {advice}")
        write_text(manifest, json.dumps(made_with, indent=2) + "\n")
        return
    try:
        found = read_json(manifest)
    except AnnotationError as error:
        raise UserError(f"{error}; {advice}") from error
    if not isinstance(found, dict):
        raise UserError(f"{manifest}: damaged; {advice}")
    for key in {**made_with, **found}:
        if found.get(key) != made_with.get(key):
            raise UserError(
                f"{output} holds videos made with {key} {shown(found.get(key))}, not "
                f"{made_with.get(key)}: {advice}"
            )

"""Something-Something V2 (SSv2): 174 classes that are told apart by what happens in which order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from fvcore.common.config import CfgNode

from timesformer.clips.sampling import SegmentSampler
from timesformer.config.defaults import get_cfg
from timesformer.datasets.lists.frame_rows import is_frame_list, read_frame_list
from timesformer.datasets.lists.json_entries import read_entries, read_json
from timesformer.datasets.lists.records import Records
from timesformer.datasets.lists.text_file import NO_DATA_DIR, read_text
from timesformer.datasets.parts import video_options
from timesformer.datasets.registry import DATASET_REGISTRY
from timesformer.datasets.video.reader import VideoReader
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.utils.errors import AnnotationError, ConfigError
from timesformer.utils.files import is_file
from timesformer.utils.logging import get_logger

logger = get_logger(__name__)

PREFIXES = ("something-something-v2-", "")  # of the two namings of the JSON files
CLASSES = 174
MIRRORED = {86: 87, 93: 94, 166: 167}  # pulling, pushing, turning the camera: left <-> right
MIRRORED |= {right: left for left, right in MIRRORED.items()}
ANSWERS = "test-answers.csv"
FILES = VideoReader()  # which knows no shards
TRIES = 100  # videos looked for before the folder is held to be the wrong one


@DATASET_REGISTRY.register()
class Ssv2(VideoDataset):
    """T frames, one from each of T equal parts of a video.

    Labels are `{labels,train,validation}.json`, plain or `something-something-v2-*.json`, in
    DATA.PATH_TO_DATA_DIR or its folder `labels`; without them, frame lists `{train,val}.csv`. Where
    there are both, labels are those of the JSON, videos and images those of the frame list. Mode
    test reads the validation split, as papers do; `Ssv2Test` reads the test split.

    Videos are `<id>.webm`, folders `<id>/` of frames, or `<id>.mp4`, below DATA.PATH_PREFIX.
    Whether a model takes BGR or RGB is a property of its weights, not of this data set: the
    published SSv2 models take BGR (DATA.REVERSE_INPUT_CHANNEL True).
    """

    sampling = "segments"

    def __init__(self, cfg: CfgNode, mode: str) -> None:
        """Read the annotations; no video is decoded.

        Args:
            cfg: reads DATA.*, TEST.*, AUG.*, MODEL.NUM_CLASSES and RNG_SEED.
            mode: train, val or test.

        Raises:
            AnnotationError: annotations are missing or malformed, or their videos aren't there.
            ConfigError: several clips a video, or another number of classes.
        """
        data, classes, options = cfg.DATA, cfg.MODEL.NUM_CLASSES, video_options(cfg, mode)
        if cfg.TEST.ENABLE and cfg.TEST.NUM_ENSEMBLE_VIEWS > 1:
            raise ConfigError(
                f"TEST.NUM_ENSEMBLE_VIEWS {cfg.TEST.NUM_ENSEMBLE_VIEWS}: a clip covers the whole "
                "video in SSv2, so all of them would be equal; set it to 1"
            )
        if data.RANDOM_FLIP and classes != CLASSES:
            raise ConfigError(
                f"DATA.RANDOM_FLIP swaps left and right among the {CLASSES} classes of SSv2; with "
                f"MODEL.NUM_CLASSES {classes} set it to False"
            )
        if mode != "val":
            say_ignored(cfg)
        root = Path(data.PATH_TO_DATA_DIR)
        media, names = Path(data.PATH_PREFIX or root), options["class_names"]
        frames = root / ("train.csv" if mode == "train" else "val.csv")
        if found := self.find_annotations(root, mode):
            labels, split = found
            ids = read_labels(labels, classes)
            if split.name == ANSWERS:
                records = read_answers(split, ids, media, options["reader"])
            else:
                lists = (split.with_name(frames.name), frames)
                images = next(filter(is_frame_list, lists), None)
                records = read_split(split, ids, media, images, options["reader"])
            names = names or tuple(sorted(ids, key=lambda name: ids[name]))
        else:
            records = read_frame_list(frames, classes, media)
        own = {
            "sampler": SegmentSampler(data.NUM_FRAMES),
            "class_names": names,
            "flip_labels": MIRRORED if data.RANDOM_FLIP else None,
        }
        super().__init__(records, **(options | own))

    @staticmethod
    def find_annotations(root: Path, mode: str) -> tuple[Path, Path] | None:
        """Return the files of labels and of the split for `mode`, None for frame lists."""
        return find_json(root, "train" if mode == "train" else "validation")


@DATASET_REGISTRY.register()
class Ssv2Test(Ssv2):
    """SSv2 whose mode test reads the test split: TEST.DATASET ssv2test.

    Today's archive has its answers, `test-answers.csv` beside labels.json. The paper, which is
    older, tests on the validation split; results on the two can't be compared.
    """

    @staticmethod
    def find_annotations(root: Path, mode: str) -> tuple[Path, Path] | None:
        """Return the files of labels and of the split for `mode`, None for frame lists."""
        if mode != "test":
            return Ssv2.find_annotations(root, mode)
        for folder in (root, root / "labels"):
            answers = folder / ANSWERS
            files = [folder / f"{prefix}labels.json" for prefix in PREFIXES]
            if is_file(answers):
                there = [file for file in files if is_file(file)]
                if not there:
                    raise AnnotationError(f"{files[-1]}: not there, though {ANSWERS} is")
                return there[0], answers
        if root == Path():
            raise AnnotationError(NO_DATA_DIR)
        raise AnnotationError(
            f"{root / ANSWERS}: there is no such list, nor in a folder `labels`: add it, or set "
            "TEST.DATASET ssv2, which tests on the validation split"
        )


def say_ignored(cfg: CfgNode) -> None:
    """Warn of keys that were set, and say nothing about T frames of a whole video."""
    defaults = get_cfg().DATA
    for key in ("SAMPLING_RATE", "TARGET_FPS"):
        if cfg.DATA[key] != defaults[key]:
            logger.warning(
                "DATA.%s %g has no effect with ssv2: a clip is %d frames spread over the video",
                *(key, cfg.DATA[key], cfg.DATA.NUM_FRAMES),
            )


def find_json(root: Path, split: str) -> tuple[Path, Path] | None:
    """Return the files of labels and of a split; None if there are frame lists instead.

    Raises:
        AnnotationError: neither is there, or only one of the two files.
    """
    for folder in (root, root / "labels"):
        for prefix in PREFIXES:
            files = folder / f"{prefix}labels.json", folder / f"{prefix}{split}.json"
            there = [file for file in files if is_file(file)]
            if len(there) == 1:
                (missing,) = set(files) - set(there)
                raise AnnotationError(f"{missing}: not there, though {there[0].name} is")
            if there:
                return files
    if any(is_file(root / name) for name in ("train.csv", "val.csv")):
        return None
    if root == Path():
        raise AnnotationError(NO_DATA_DIR)
    raise AnnotationError(
        f"{root}: DATA.PATH_TO_DATA_DIR must have labels.json and {split}.json (or "
        f"{PREFIXES[0]}labels.json, …), itself or in a folder `labels`, or frame lists train.csv "
        "and val.csv"
    )


def read_labels(path: Path, classes: int) -> dict[str, int]:
    """Read {template: "id"}.

    Raises:
        AnnotationError: it isn't that, or the ids aren't 0, 1, 2, …
        ConfigError: MODEL.NUM_CLASSES is another number.
    """
    labels = read_json(path)
    if not isinstance(labels, dict) or not labels:
        raise AnnotationError(f'{path}: must be an object {{"template": "id"}}')
    ids: dict[str, int] = {}
    for number, (template, label) in enumerate(labels.items(), 1):
        if not re.fullmatch("[0-9]{1,9}", str(label)):
            raise AnnotationError(f"{path}, entry {number}: {label!r:.60} is not the id of a class")
        ids[template] = int(label)
    if sorted(ids.values()) != list(range(len(ids))):
        raise AnnotationError(f"{path}: the ids must be 0 to {len(ids) - 1}, each of them once")
    if len(ids) != classes:
        raise ConfigError(f"MODEL.NUM_CLASSES is {classes}, but {path} has {len(ids)} classes")
    return ids


def read_split(
    path: Path,
    ids: dict[str, int],
    media: Path,
    frames: Path | None = None,
    reader: VideoReader = FILES,
) -> Records:
    """Read a JSON list of {id, template}; the class is the template without [ and ].

    Args:
        path: the list.
        ids: of the templates.
        media: folder of the videos.
        frames: a frame list, which says which videos and images count.
        reader: knows which videos are there.

    Raises:
        AnnotationError: it is malformed, or the videos aren't below `media`.
    """
    labels: dict[str, tuple[int, int]] = {}  # id -> class, line
    for entry in read_entries(path):
        template = entry.text("template").replace("[", "").replace("]", "")
        if template not in ids:
            raise AnnotationError(f"{entry.where}: there is no class {template!r:.200}")
        video = entry.name("id")
        if video in labels:
            raise AnnotationError(f"{entry.where}: the id {video!r:.60} came before")
        labels[video] = ids[template], 0
    if frames is not None:
        classes = {video: label for video, (label, _) in labels.items()}
        if found := read_with_frames(path, classes, frames, media, reader):
            return found
    return _records(path, media, labels, reader)


def read_with_frames(
    path: Path, labels: Mapping[str, int], frames: Path, media: Path, reader: VideoReader
) -> Records | None:
    """Read a frame list whose labels are those of a JSON list; as PySlowFast does it.

    Returns:
        None where the folders of the frame list aren't there: the videos may be files then.

    Raises:
        AnnotationError: the frame list is malformed, or of other videos.
    """
    records = read_frame_list(frames, CLASSES, media, labels)
    if not records:
        raise AnnotationError(f"{frames}: none of its videos is in {path.name}")
    if not any(reader.is_folder(record.path) for record in records[:TRIES]):
        logger.warning("%s isn't read: its folders of frames aren't below %s", frames, media)
        return None
    logger.info(
        "Labels are those of %s, images and videos those of %s: %d videos of %d",
        *(path, frames, len(records), len(labels)),
    )
    return records


def read_answers(
    path: Path, ids: dict[str, int], media: Path, reader: VideoReader = FILES
) -> Records:
    """Read rows `id;class`, as of the test split's answers.

    Raises:
        AnnotationError: it is malformed, or the videos aren't below `media`.
    """
    labels: dict[str, tuple[int, int]] = {}  # id -> class, line
    for number, line in enumerate(read_text(path).split("\n"), 1):
        row, where = line.strip(), f"{path}, line {number}"
        if not row:
            continue
        video, _, name = (part.strip().strip('"') for part in row.partition(";"))
        if not re.fullmatch("[0-9]{1,18}", video):
            raise AnnotationError(f"{where}: must be `id;class`, not {row!r:.60}")
        if name not in ids:
            name = name.replace("[", "").replace("]", "")
        if name not in ids:
            raise AnnotationError(f"{where}: there is no class {name!r:.200}")
        if video in labels:
            raise AnnotationError(f"{where}: the id {video!r:.60} came before")
        labels[video] = ids[name], number
    if not labels:
        raise AnnotationError(f"{path}: the list has no videos")
    return _records(path, media, labels, reader)


def _records(
    path: Path, media: Path, labels: dict[str, tuple[int, int]], reader: VideoReader
) -> Records:
    ending, records = find_ending(list(labels), media, reader), Records(str(path))
    for video, (label, line) in labels.items():
        records.append(str(media / f"{video}{ending}"), label, line=line)
    return records


def find_ending(videos: Sequence[str], media: Path, reader: VideoReader) -> str:
    """Return what follows an id: `.webm`, nothing (a folder of frames) or `.mp4`."""
    for video in videos[:TRIES]:
        for ending in (".webm", "", ".mp4"):
            path = str(media / f"{video}{ending}")
            if reader.is_file(path) if ending else reader.is_folder(path):
                return ending
    raise AnnotationError(
        f"{media}: neither {videos[0]:.60}.webm nor the folder {videos[0]:.60}/ of frames is "
        "there; DATA.PATH_PREFIX must be the folder of the videos"
    )

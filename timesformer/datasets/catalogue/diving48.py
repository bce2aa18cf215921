"""Diving-48: 48 classes of dives that share pool, athletes and swimwear, so only motion counts."""

from __future__ import annotations

from pathlib import Path

from fvcore.common.config import CfgNode

from timesformer.datasets.lists.json_entries import read_entries, read_json, shown
from timesformer.datasets.lists.records import Records
from timesformer.datasets.lists.text_file import NO_DATA_DIR
from timesformer.datasets.parts import video_options
from timesformer.datasets.registry import DATASET_REGISTRY
from timesformer.datasets.video_dataset import VideoDataset
from timesformer.utils.errors import AnnotationError, ConfigError
from timesformer.utils.files import is_file
from timesformer.utils.logging import get_logger

logger = get_logger(__name__)

VERSIONS = ("Diving48_V2", "Diving48")  # V2 is V1 with its labels cleaned (October 2020)
VOCABULARY = "Diving48_vocab.json"
MAX_FRAME = 2**31 - 1


@DATASET_REGISTRY.register()
class Diving48(VideoDataset):
    """Videos `rgb/<vid_name>.mp4`, sampled at a constant frame rate as in the paper.

    Labels are `Diving48_V2_{train,test}.json` in DATA.PATH_TO_DATA_DIR, or those of V1 without
    `_V2`; validation reads the test split, the only other one. Videos are below DATA.PATH_PREFIX,
    in its folder `rgb` if there is one. DATA.TRIM_TO_SEGMENT keeps to frames [start_frame,
    end_frame). Names come from DATA.CLASS_NAMES or else from Diving48_vocab.json, if it is there.
    """

    def __init__(self, cfg: CfgNode, mode: str) -> None:
        """Read the annotations; no video is touched.

        Args:
            cfg: reads DATA.*, TEST.*, AUG.*, MODEL.NUM_CLASSES and RNG_SEED.
            mode: train, val or test.

        Raises:
            AnnotationError: annotations are missing or malformed.
            ConfigError: the vocabulary has another number of classes.
        """
        data, classes, options = cfg.DATA, cfg.MODEL.NUM_CLASSES, video_options(cfg, mode)
        root = Path(data.PATH_TO_DATA_DIR)
        names = options["class_names"]
        if not names and is_file(root / VOCABULARY):
            names = read_vocabulary(root / VOCABULARY, classes)
        media = Path(data.PATH_PREFIX or root)
        if options["reader"].is_folder(str(media / "rgb")):
            media /= "rgb"
        path = root / f"{find_version(root)}_{'train' if mode == 'train' else 'test'}.json"
        records = Records(str(path))
        for entry in read_entries(path):
            start, end = 0, None
            if data.TRIM_TO_SEGMENT:
                start = entry.integer("start_frame", 0, MAX_FRAME - 1)
                end = entry.integer("end_frame", start + 1, MAX_FRAME)
            video = media / f"{entry.name('vid_name')}.mp4"
            records.append(str(video), entry.integer("label", 0, classes - 1), start=start, end=end)
        super().__init__(records, **(options | {"class_names": names}))


def find_version(root: Path) -> str:
    """Return the start of the annotations' names; both splits are of one version.

    Raises:
        AnnotationError: there are none.
    """
    there = [
        version
        for version in VERSIONS
        if any(is_file(root / f"{version}_{split}.json") for split in ("train", "test"))
    ]
    if not there and root == Path():
        raise AnnotationError(NO_DATA_DIR)
    if not there:
        raise AnnotationError(
            f"{root}: DATA.PATH_TO_DATA_DIR must have {VERSIONS[0]}_train.json and "
            f"{VERSIONS[0]}_test.json, or those of V1, {VERSIONS[1]}_train.json and …_test.json"
        )
    if len(there) > 1:
        logger.info("%s has Diving-48 V1 and V2; V2 is used", root)
    return there[0]


def read_vocabulary(path: Path, classes: int) -> tuple[str, ...]:
    """Read a list of lists of words, one for each class: "Back+15som+05Twis+FREE".

    Raises:
        AnnotationError: it isn't that.
        ConfigError: MODEL.NUM_CLASSES is another number.
    """
    vocabulary = read_json(path)
    if not isinstance(vocabulary, list):
        raise AnnotationError(f"{path}: must be a list of lists of text")
    for number, words in enumerate(vocabulary, 1):
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise AnnotationError(
                f"{path}, entry {number}: must be a list of text, not {shown(words)}"
            )
    if len(vocabulary) != classes:
        raise ConfigError(
            f"MODEL.NUM_CLASSES is {classes}, but {path} has {len(vocabulary)} classes"
        )
    return tuple("+".join(words) for words in vocabulary)

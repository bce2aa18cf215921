"""Items of a data set, from files with known pixels to normalised clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fvcore.common.config import CfgNode
from PIL import Image
from video_fixtures import numbered_frames, write_video

from timesformer.clips.sampling import ClipPosition, RateSampler
from timesformer.clips.training import TrainTransform
from timesformer.clips.transform import EvalTransform
from timesformer.config.defaults import get_cfg
from timesformer.datasets.build import build_dataset
from timesformer.datasets.catalogue.kinetics import Kinetics
from timesformer.datasets.decoder import load_clip
from timesformer.datasets.lists.records import Images, Record
from timesformer.datasets.parts import build_transform
from timesformer.datasets.video.file import StreamInfo
from timesformer.datasets.video.index import FrameIndex
from timesformer.datasets.video.reader import VideoReader
from timesformer.datasets.video.requests import frame_numbers
from timesformer.datasets.video_dataset import FAILED, REPLACED, USED, Problem, VideoDataset
from timesformer.utils.errors import AnnotationError, ConfigError, VideoError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lists")
    for name in ("a.mp4", "b c.mp4"):
        write_video(path / name, numbered_frames(50))
    rows = f"{path}/a.mp4 0\n{path}/b c.mp4 2\n"
    for split in ("train", "val"):
        (path / f"{split}.csv").write_text(rows)
    (path / "test.csv").write_text(rows + f"{path}/gone.mp4 1\n")
    return path


@pytest.fixture
def cfg(folder: Path) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.NUM_CLASSES = 3
    cfg.DATA.PATH_TO_DATA_DIR = str(folder)
    cfg.DATA.NUM_FRAMES, cfg.DATA.SAMPLING_RATE = 4, 4
    cfg.DATA.MEAN, cfg.DATA.STD = [0.0, 0.0, 0.0], [1 / 255] * 3
    cfg.DATA.TRAIN_JITTER_SCALES = [48, 60]
    cfg.DATA.TRAIN_CROP_SIZE = cfg.DATA.TEST_CROP_SIZE = 32
    cfg.TEST.NUM_ENSEMBLE_VIEWS = 2
    return cfg


def test_a_coarser_grid_shows_the_same_clip(cfg: CfgNode) -> None:
    cfg.TRAIN.MULTIGRID, cfg.TIMESFORMER.PATCH_SIZE = "long", 8
    cfg.DATA.TRAIN_JITTER_SCALES = [32, 32]  # so that sizes are no matter of chance
    dataset = build_dataset("kinetics", cfg, "train")
    full = dataset[(1, 3)][0]
    sizes = [tuple(dataset[(1, 3, 0, grid)][0].shape) for grid in (1, 2, 3)]
    assert sizes == [(3, 1, 24, 24), (3, 2, 24, 24), (3, 2, 32, 32)]
    assert dataset[(1, 3, 0, 3)][0].equal(full[:, ::2]), "every second of its frames, to the bit"
    small, large = dataset[(1, 3, 0, 1)][0].double(), full[:, :1].double()
    assert (small.mean() - large.mean()).abs() < 2, "as much of the picture"


def test_train_items_are_a_function_of_seed_epoch_and_index(cfg: CfgNode) -> None:
    dataset = build_dataset("kinetics", cfg, "train")
    clip, label, index, meta = dataset[(1, 3)]
    assert (clip.shape, clip.dtype) == ((3, 4, 32, 32), torch.uint8)
    assert (label, index, meta["view"].item()) == (2, 1, 0)
    assert dataset[(1, 3)][0].equal(clip)
    assert dataset[0][0].equal(dataset[(0, 0)][0])
    cfg.RNG_SEED = 1
    others = [dataset[(1, 4)], dataset[(0, 3)], build_dataset("kinetics", cfg, "train")[(1, 3)]]
    assert not any(other[0].equal(clip) for other in others)


def test_validation_is_the_centre_view(cfg: CfgNode) -> None:
    clip, label, _, _ = build_dataset("kinetics", cfg, "val")[0]
    # 4x4 spans 16 of 50 frames; the middle of the remaining 34 is 17. Short side 48: no resizing.
    expected = torch.from_numpy(numbered_frames(50)[[17, 22, 27, 32], 8:40, 16:48]).float()
    assert label == 0
    assert clip.shape == (3, 4, 32, 32)
    assert (clip - expected.permute(3, 0, 1, 2)).abs().max() < 1e-3


def test_a_test_item_is_all_views_of_a_video(cfg: CfgNode) -> None:
    dataset = build_dataset("kinetics", cfg, "test")
    assert (len(dataset), dataset.num_views, dataset.class_names) == (3, 6, ())
    clips, label, index, meta = dataset[1]
    assert clips.shape == (6, 3, 4, 32, 32)
    assert (label, index) == (2, 1)
    assert meta["view"].tolist() == list(range(6))
    frames, columns = clips[:, 0, :, 16, 16].round(), clips[:, 2, 0, 0, 0]
    assert frames.tolist() == [[0, 5, 10, 15]] * 3 + [[17, 22, 27, 32]] * 3
    # 48x64 becomes 32x42: crops at columns 0, 5 and 10, 1.5 source pixels a column.
    assert columns.tolist() == pytest.approx([0.26, 7.88, 15.5] * 2, abs=0.05)


def test_options_reach_the_pixels(cfg: CfgNode) -> None:
    plain = build_dataset("kinetics", cfg, "val")[0][0]
    cfg.DATA.REVERSE_INPUT_CHANNEL = True
    bgr = build_dataset("kinetics", cfg, "val")
    assert bgr.normalize(bgr[0][0]).round().equal(plain.flip(0).round())
    cfg.DATA.TEST_CLIP_SAMPLING = "uniform"
    views = build_dataset("kinetics", cfg, "test")[0][0]
    assert views[3, 0, 0, 0, 0].round() == 34  # the last view ends the video
    cfg.DATA.RANDOM_FLIP, cfg.DATA.INV_UNIFORM_SAMPLE = False, True
    transform = build_dataset("kinetics", cfg, "train").transform
    assert isinstance(transform, TrainTransform)
    assert (transform.flip, transform.inverse, transform.jitter) == (False, True, (48, 60))
    cfg.DATA.PATH_PREFIX, cfg.DATA.CLASS_NAMES = "/videos", "kinetics400"
    with pytest.raises(ConfigError, match="400 names"):
        Kinetics(cfg, "train")


def test_a_missing_test_video_is_an_error_and_a_problem_for_the_loader(cfg: CfgNode) -> None:
    dataset = build_dataset("kinetics", cfg, "test")
    with pytest.raises(VideoError, match=r"gone.mp4: no such file"):
        dataset[2]
    good, bad = dataset.__getitems__([0, 2])
    assert good[2] == 0
    assert isinstance(bad, Problem)
    assert (bad.record, bad.treatment) == (2, FAILED)
    assert bad.where == f"{cfg.DATA.PATH_TO_DATA_DIR}/test.csv, line 3"


def with_broken(cfg: CfgNode, folder: Path, tmp_path: Path, broken: int) -> None:
    for i in range(broken, 20):
        (tmp_path / f"{i}.mp4").symlink_to(folder / "a.mp4")
    rows = [f"{tmp_path}/{i}.mp4 {i % 3}" for i in range(20)]
    (tmp_path / "train.csv").write_text("\n".join(rows))
    cfg.DATA.PATH_TO_DATA_DIR = str(tmp_path)


def test_a_broken_training_video_is_replaced_by_seed_epoch_and_index(
    cfg: CfgNode, folder: Path, tmp_path: Path
) -> None:
    with_broken(cfg, folder, tmp_path, 4)
    (first,) = build_dataset("kinetics", cfg, "train").__getitems__([(2, 5)])
    dataset = build_dataset("kinetics", cfg, "train")
    dataset.__getitems__([(i, 0) for i in range(20)])  # what was met before plays no part
    (second,) = dataset.__getitems__([(2, 5)])
    assert first[0].equal(second[0])
    assert first[1:3] == second[1:3]
    assert first[2] >= 4
    assert first[1] == first[2] % 3  # its own label
    problems = first[3]["problems"]
    assert (problems[0].record, problems[0].treatment) == (2, REPLACED)
    assert "no such file" in problems[0].reason
    chosen = {dataset.__getitems__([(2, epoch)])[0][2] for epoch in range(20)}
    assert len(chosen) > 5


def test_nothing_is_tried_twice(cfg: CfgNode, folder: Path, tmp_path: Path) -> None:
    with_broken(cfg, folder, tmp_path, 4)
    dataset, read = build_dataset("kinetics", cfg, "train"), []
    reader = dataset.reader
    dataset.reader = lambda path, *how: read.append(path) or reader(path, *how)
    for epoch in range(5):
        dataset.__getitems__([(i, epoch) for i in range(20)])
    assert [read.count(f"{tmp_path}/{i}.mp4") for i in range(4)] == [1] * 4


def test_only_broken_videos_are_an_error(cfg: CfgNode, folder: Path, tmp_path: Path) -> None:
    with_broken(cfg, folder, tmp_path, 20)
    (error,) = build_dataset("kinetics", cfg, "train").__getitems__([(3, 0)])
    assert isinstance(error, VideoError)
    assert "no such file or directory; nor could any of 10 videos" in str(error)


def test_several_clips_of_one_decode(cfg: CfgNode) -> None:
    single = build_dataset("kinetics", cfg, "train")
    cfg.DATA.NUM_SAMPLES = 3
    dataset, reads = build_dataset("kinetics", cfg, "train"), []
    reader = dataset.reader
    dataset.reader = lambda path, *how: reads.append(path) or reader(path, *how)
    items = dataset.__getitems__([(0, 1), (1, 1)])
    assert len(reads) == 2
    assert [(item[2], item[3]["view"].item()) for item in items] == [
        (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2),
    ]  # fmt: skip
    assert items[3][0].equal(single[(1, 1)][0])  # the first is the clip of NUM_SAMPLES 1
    assert not any(items[i][0].equal(items[j][0]) for i, j in ((0, 1), (1, 2), (0, 2)))


def test_a_part_of_a_video(cfg: CfgNode) -> None:
    dataset = build_dataset("kinetics", cfg, "val")
    path = dataset.records[0].path
    dataset.records = [Record(path, 0, start=10, end=30), Record(path, 0, start=45, end=48)]
    clip = dataset[0][0]  # spans 16 of 20 frames; the room of 4 is halved
    assert clip[0, :, 0, 0].round().tolist() == [12, 17, 22, 27]
    assert dataset[1][0][0, :, 0, 0].round().tolist() == [45, 47, 47, 47]


@pytest.mark.parametrize(
    ("part", "rate", "placement", "expected"),
    [
        ((10, 30), 4, "legacy", [10, 12, 15, 18]),
        ((10, 30), 4, "center", [15, 18, 20, 23]),
        ((10, 30), 30, "center", [10, 29, 29, 29]),  # longer than the part: its last frame
        ((30, 40), 60, "center", [30, 33, 35, 38]),
        ((35, 99), 120, "legacy", [35, 39, 39, 39]),
    ],
)
def test_a_part_at_a_variable_rate(
    tmp_path: Path, part: tuple[int, int], rate: int, placement: str, expected: list[int]
) -> None:
    """30 frames of 1/30 s, then 10 of 1 s: a mean one lasts 0.256 s."""
    times = [*range(30), *range(30, 330, 30)]
    path = write_video(tmp_path / "a.mkv", numbered_frames(40, 16, 16), times=times)
    sampler = RateSampler(4, rate, placement=placement)
    transform = EvalTransform(16, 16, 1)
    dataset = VideoDataset([Record(str(path), 0, *part)], sampler, transform, "val")
    assert dataset[0][0][0, :, 0, 0].round().tolist() == expected


def test_random_clips_fill_a_part_at_a_variable_rate() -> None:
    pts = np.array([*range(30), *range(30, 330, 30)])
    index = FrameIndex(pts, np.arange(40), seekable=True)
    info = StreamInfo(40, 3.9, 0, 300 / 39, 40, index)
    firsts = set()
    for seed in range(60):
        place = RateSampler(3, 60).place(10, 3.9, None, np.random.default_rng(seed))
        numbers = frame_numbers(info, place.within(30, 40))
        assert 30 <= numbers[0] <= numbers[-1] <= 39
        firsts.add(numbers[0])
    assert firsts == {30, 31, 32, 33}  # 6 s of the 9 that there are, and a mean frame


def test_a_whole_video_is_sampled_as_by_load_clip(
    cfg: CfgNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a part of a video has an end that the file doesn't know."""
    monkeypatch.setattr("timesformer.clips.sampling.ClipPosition.within", None)
    assert build_dataset("kinetics", cfg, "val")[0][0].ndim == 4


def test_mirrored_clips_get_the_label_of_the_mirror(cfg: CfgNode) -> None:
    dataset = build_dataset("kinetics", cfg, "train")
    dataset.flip_labels = {2: 1}
    seen = set()
    for epoch in range(30):
        clip, label, _, _ = dataset[(1, epoch)]
        seen.add((bool(clip[2, 0, 0, 0] > clip[2, 0, 0, -1]), label))  # blue is the column
    assert seen == {(False, 2), (True, 1)}


def test_damage_is_told(cfg: CfgNode) -> None:
    dataset = build_dataset("kinetics", cfg, "test")
    reader = dataset.reader
    dataset.reader = lambda *how: replace(reader(*how), damage="frame 3 is damaged")
    (item,) = dataset.__getitems__([0])
    (problem,) = item[3]["problems"]
    assert (problem.record, problem.reason, problem.treatment) == (0, "frame 3 is damaged", USED)


def test_frames_of_a_folder_are_those_of_the_video(cfg: CfgNode, tmp_path: Path) -> None:
    for i, pixels in enumerate(numbered_frames(50)):
        Image.fromarray(pixels).save(tmp_path / f"img_{i + 1}.png")
    path = build_dataset("kinetics", cfg, "val").records[0].path
    for sampling in ({"sampling_rate": 4, "view": (1, 3)}, {"sampling_rate": None}):
        clips = [load_clip(video, 8, **sampling) for video in (path, tmp_path, str(tmp_path))]
        assert clips[1].equal(clips[0])
        assert clips[2].equal(clips[0])
    assert not load_clip(tmp_path, 8, 4, frames_fps=15.0).equal(load_clip(path, 8, 4))
    for mode in ("train", "val", "test"):
        dataset = build_dataset("kinetics", cfg, mode)
        video = dataset[(0, 2)][0] if mode == "train" else dataset[0][0]
        dataset.records = [Record(str(tmp_path), 0)]
        frames = dataset[(0, 2)][0] if mode == "train" else dataset[0][0]
        assert frames.equal(video)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (None, range(1, 51)),
        (Images(0, 20), range(1, 21)),  # mmaction2 knows of no image behind
        (Images(10, 20), range(11, 31)),
        (Images(10, 20, "img_10.png"), range(10, 30)),
        (Images(30, 20), range(31, 51)),
        (Images(31, 20), "50 images, but its list says 51"),
        (Images(0, 20, "img_0.png"), "img_0.png isn't there, of 20 images that its list names"),
        (Images(40, 20, "img_40.png"), "img_51.png isn't there"),
        (Images(10, 20, "1_10.png"), "1_10.png isn't there"),
        (Images(10, 20, "img_10.jpg"), "img_10.jpg isn't there"),
    ],
)
def test_images_of_a_folder(tmp_path: Path, images: Images | None, expected: range | str) -> None:
    """Those that its list says are a video of their own, whatever else is there."""
    for number in range(1, 51):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"img_{number}.png")
    asked = []

    def place(frames: int, fps: float) -> list[ClipPosition]:
        asked.append(frames)
        return [ClipPosition(0.0, frames, tuple(range(frames)))]

    if isinstance(expected, str):
        with pytest.raises(VideoError, match=expected):
            VideoReader()(str(tmp_path), place, (), images)
        return
    (clip,) = VideoReader()(str(tmp_path), place, (), images).frames
    assert asked == [len(expected)]
    assert clip[:, 0, 0, 0].tolist() == list(expected)


def test_images_of_a_file(cfg: CfgNode) -> None:
    """A number of frames says nothing of it; an offset would be of another video."""
    dataset = build_dataset("kinetics", cfg, "val")
    path, whole = dataset.records[0].path, dataset[0][0]
    dataset.records = [Record(path, 0, images=Images(0, 7)), Record(path, 0, images=Images(3, 7))]
    assert dataset[0][0].equal(whole)
    with pytest.raises(VideoError, match="a file, but its list says which images of a folder"):
        dataset[1]


def test_broken_folders_of_frames(tmp_path: Path) -> None:
    def read() -> None:
        VideoReader()(str(tmp_path), lambda n, fps: [RateSampler(3, 1).place(n, fps, (0, 1))])

    with pytest.raises(VideoError, match="a folder without frames"):
        read()
    for i in range(2):
        Image.fromarray(numbered_frames(1)[0]).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    with pytest.raises(VideoError, match=r"2.png: not a readable image"):
        read()
    Image.fromarray(numbered_frames(1, 20, 30)[0]).save(tmp_path / "2.png")
    with pytest.raises(VideoError, match="differ in size"):
        read()


def test_registry(cfg: CfgNode) -> None:
    for name in ("kinetics", "Kinetics", "KINETICS"):
        assert isinstance(build_dataset(name, cfg, "train"), Kinetics)
    with pytest.raises(ConfigError, match=r"TRAIN.DATASET 'kinetic' .* did you mean Kinetics"):
        build_dataset("kinetic", cfg, "val")
    with pytest.raises(ConfigError, match=r"TEST.DATASET 'x' .*(?i:ssv2, ssv2test, synthetic)"):
        build_dataset("x", cfg, "test")
    cfg.DATA.PATH_TO_DATA_DIR = "/nowhere"
    with pytest.raises(AnnotationError, match=r"/nowhere/val.csv: .*DATA.PATH_TO_DATA_DIR"):
        build_dataset("kinetics", cfg, "val")


def test_published_test_views(golden: Path, shared_videos: Path, tmp_path: Path) -> None:
    """Mean, std, first and last pixel of every normalised view of six real videos."""
    expected = np.load(golden / "multiview_tiny.npz")
    rows = zip(expected["videos"], expected["labels"], strict=True)
    (tmp_path / "test.csv").write_text("".join(f"{name} {label}\n" for name, label in rows))
    cfg = get_cfg()
    cfg.DATA.PATH_TO_DATA_DIR, cfg.DATA.PATH_PREFIX = str(tmp_path), str(shared_videos)
    cfg.DATA.NUM_FRAMES, cfg.DATA.SAMPLING_RATE, cfg.DATA.TEST_CROP_SIZE = 4, 16, 64
    cfg.TEST.NUM_ENSEMBLE_VIEWS = 2
    dataset = build_dataset("kinetics", cfg, "test")
    views = [dataset.normalize(dataset[i][0]) for i in range(len(dataset))]
    clips = torch.cat(views).double().flatten(1)
    stats = torch.stack([clips.mean(1), clips.std(1), clips[:, 0], clips[:, -1]], dim=1)
    assert np.abs(stats.numpy() - expected["clip_stats"]).max() < 1e-5


@pytest.mark.parametrize(
    ("mode", "crops", "asked", "expected"),
    [
        ("val", 3, 0, 256),
        ("test", 1, 0, 256),
        ("test", 3, 0, 224),
        ("val", 3, 240, 240),
        ("test", 1, 240, 240),
        ("test", 3, 240, 240),
    ],
)
def test_the_short_side_of_evaluation(mode: str, crops: int, asked: int, expected: int) -> None:
    cfg = get_cfg()
    cfg.TEST.NUM_SPATIAL_CROPS, cfg.DATA.TEST_SHORT_SIDE = crops, asked
    assert build_transform(cfg, mode).short_side == expected
    cfg.DATA.TEST_CROP_SIZE = 288  # larger than the first of the jitter scales
    if not asked:
        assert build_transform(cfg, mode).short_side == 288

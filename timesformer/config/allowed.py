"""What single keys may be set to; what keys mean together is in `validate.py`."""

from __future__ import annotations

from collections.abc import Callable

CHOICES: dict[str, tuple[str, ...]] = {
    "DIST_BACKEND": ("auto", "nccl", "gloo"),
    "TRAIN.AMP": ("none", "bf16", "fp16"),
    "TRAIN.NONFINITE": ("raise", "skip"),
    "TRAIN.MULTIGRID": ("none", "long", "short", "both"),
    "TRAIN.ON_FAILED_SAVE": ("go_on", "stop"),
    "TEST.AMP": ("none", "bf16", "fp16"),
    "TRAIN.SHARDING": ("none", "fsdp"),
    "TRAIN.GRAD_COMPRESSION": ("none", "bf16"),
    "TEST.CHECKPOINT": ("last", "best"),
    "TEST.WEIGHTS": ("raw", "ema"),
    "DATA.TEST_CLIP_SAMPLING": ("legacy", "center", "uniform", "tiled"),
    "DATA.DECODING_BACKEND": ("pyav", "torchcodec"),
    "DATA.ENSEMBLE_METHOD": ("sum", "max", "prob"),
    "TIMESFORMER.POS_EMBED_RESIZE": ("bicubic", "bilinear", "legacy"),
    "TIMESFORMER.TIME_EMBED_RESIZE": ("nearest", "linear"),
    "TIMESFORMER.POS_EMBED": ("space_time", "space", "none"),
    "TIMESFORMER.LOCAL_WINDOW": ("quadrant", "centred"),
    "TIMESFORMER.TUBELET_INIT": ("central", "average"),
    "TIMESFORMER.INIT": ("image", "scratch"),
    "MODEL.LOSS_FUNC": ("cross_entropy", "bce"),
    "SOLVER.LR_POLICY": ("steps_with_relative_lrs", "cosine"),
    "SOLVER.OPTIMIZING_METHOD": ("sgd", "adam", "adamw", "adamw8bit"),
}
DEEPEST = 1_000  # blocks: each is made, even where nothing is computed
# (what a number must be, in words; the test; the keys it holds for)
RANGES: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    (
        "at least 1",
        lambda x: x >= 1,
        """NUM_SHARDS LOG_PERIOD TRAIN.CHECKPOINT_PERIOD TRAIN.MULTIGRID_CYCLES
        TEST.BATCH_SIZE TEST.NUM_ENSEMBLE_VIEWS DATA.NUM_FRAMES DATA.SAMPLING_RATE
        DATA.TRAIN_JITTER_SCALES DATA.TRAIN_CROP_SIZE DATA.TEST_CROP_SIZE TIMESFORMER.PATCH_SIZE
        TIMESFORMER.TUBELET_SIZE
        TIMESFORMER.EMBED_DIM TIMESFORMER.NUM_HEADS MODEL.NUM_CLASSES
        SOLVER.MAX_EPOCH DATA.NUM_SAMPLES""",
    ),
    ("at least 1, or auto", lambda x: x >= 1 or x == -1, "TRAIN.BATCH_SIZE"),
    (
        "at least 0",
        lambda x: x >= 0,
        """NUM_GPUS RNG_SEED GLOBAL_BATCH_SIZE TRAIN.EVAL_PERIOD TRAIN.KEEP_CHECKPOINTS
        TRAIN.TRACE_STEPS TRAIN.CHECKPOINT_STEPS TRAIN.CHECKPOINT_MINUTES TRAIN.WATCHDOG_MINUTES
        DATA.TEST_SHORT_SIDE
        SOLVER.EARLY_STOP_EPOCHS SOLVER.LRS SOLVER.COSINE_END_LR
        SOLVER.WARMUP_EPOCHS SOLVER.WARMUP_START_LR SOLVER.WEIGHT_DECAY SOLVER.CLIP_GRAD_L2NORM
        MIXUP.ALPHA MIXUP.CUTMIX_ALPHA LORA.RANK TRAIN.ACTIVATION_GIB AUG.RAND_AUGMENT_OPS
        AUG.COLOR_JITTER""",
    ),
    ("at least 0, or auto", lambda x: x >= 0 or x == -1, "DATA_LOADER.NUM_WORKERS"),
    (
        "above 0",
        lambda x: x > 0,
        """DATA.TARGET_FPS DATA.FRAMES_FPS DATA.DECODE_TIMEOUT DATA.STD AUG.CROP_SCALE LORA.ALPHA
        AUG.CROP_RATIO CNN.WIDTH TIMESFORMER.MLP_RATIO SOLVER.BASE_LR SOLVER.LAYER_DECAY""",
    ),
    (f"from 1 to {DEEPEST:,}", lambda x: 1 <= x <= DEEPEST, "TIMESFORMER.DEPTH"),
    ("above 0 and at most 1", lambda x: 0 < x <= 1, "DATA.FRACTION TRAIN.TUBE_KEEP"),
    (
        "at least 0, or -1 for a quarter of SOLVER.MAX_EPOCH",
        lambda x: x >= 0 or x == -1,
        "TRAIN.FULL_EPOCHS",
    ),
    (
        "between 0 and 1",
        lambda x: 0 <= x <= 1,
        """MIXUP.PROB MIXUP.SWITCH_PROB SOLVER.DAMPENING SOLVER.LAYER_DECAY DATA.MAX_FAILED
        DATA.FOLDER_SPLIT AUG.CROP_SCALE AUG.RANDOM_ERASING TRAIN.CLASS_BALANCE
        MODEL.CLASS_WEIGHTS""",
    ),
    (
        "at least 0, or -1 for what TIMESFORMER.INIT says",
        lambda x: x >= 0 or x == -1,
        "TIMESFORMER.TIME_EMBED_AMPLITUDE",
    ),
    (
        f"from 0 to {DEEPEST:,}, or -1 for what the model's paper has",
        lambda x: 0 <= x <= DEEPEST or x == -1,
        "TIMESFORMER.TEMPORAL_DEPTH",
    ),
    (
        "between 0 and 30",
        lambda x: 0 <= x <= 30,
        "AUG.RAND_AUGMENT_MAGNITUDE",
    ),
    (
        "at least 0 and below 1",
        lambda x: 0 <= x < 1,
        "TIMESFORMER.DROP_PATH_RATE SOLVER.MOMENTUM SOLVER.LABEL_SMOOTHING EMA.DECAY",
    ),
)
AUTO = {"DATA_LOADER.NUM_WORKERS": -1, "TRAIN.BATCH_SIZE": -1}
"""Whole numbers that may be given as the word auto, and the number that stands for it."""
HUBS = ("timm/", "torchvision/", "hf/")  # weights that are fetched: docs/weights.md
PATHS = (
    *("OUTPUT_DIR", "TENSORBOARD.LOG_DIR"),
    *("DATA.PATH_TO_DATA_DIR", "DATA.PATH_PREFIX", "DATA.CLASS_NAMES"),
    *("TRAIN.CHECKPOINT_FILE_PATH", "TEST.CHECKPOINT_FILE_PATH", "TIMESFORMER.PRETRAINED_MODEL"),
)
"""Keys that name a file or folder, where ~ is the home folder."""
NOT_EMPTY = (
    "OUTPUT_DIR",
    "TRAIN.DATASET",
    "TEST.DATASET",
    "DATA.PATH_LABEL_SEPARATOR",
    "TIMESFORMER.ATTENTION_TYPE",
    "MODEL.MODEL_NAME",
)


def is_auto(key: str, value: int) -> bool:
    """Tell whether a key of `AUTO` is to be chosen by the program."""
    return value == AUTO[key]

"""Keys that YAMLs written for the published release use and that mean nothing here.

They are accepted with one warning each, so that those files load. The text says what to use
instead, or why nothing is lost.
"""

from __future__ import annotations

from collections.abc import Mapping

_LAYOUT = "the layout of a checkpoint is recognised from its contents"
_NEVER_USED = "the published TimeSformer never used it"
_OTHER_MODEL = "it configures another model of the code base that the published release grew from"
_PICTURES = "only scalars are written; class names come from DATA.CLASS_NAMES"

# A full key, or a whole group whose keys are not looked at.
DEPRECATED: Mapping[str, str] = {
    "TRAIN.CHECKPOINT_TYPE": _LAYOUT,
    "TRAIN.CHECKPOINT_INFLATE": "2-D weights are inflated by TIMESFORMER.PRETRAINED_MODEL",
    "TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN": "known prefixes are removed without being asked",
    "TEST.CHECKPOINT_TYPE": _LAYOUT,
    "TEST.NUM_TEMPORAL_CLIPS": "use TEST.NUM_ENSEMBLE_VIEWS",
    "DATA.INPUT_CHANNEL_NUM": "a clip always has 3 channels",
    "DATA.DEIT_TRANSFORMS": _NEVER_USED,
    "DATA.COLOR_JITTER": f"{_NEVER_USED}; use AUG.COLOR_JITTER",
    "DATA.AUTO_AUGMENT": f"{_NEVER_USED}; use AUG.RAND_AUGMENT_OPS",
    "DATA.RE_PROB": f"{_NEVER_USED}; use AUG.RANDOM_ERASING",
    "DATA.USE_OFFSET_SAMPLING": "use DATA.TEST_CLIP_SAMPLING",
    "DATA.TEMPORAL_EXTENT": "use DATA.NUM_FRAMES and DATA.SAMPLING_RATE",
    "DATA.PATH_TO_PRELOAD_IMDB": "lists are read from DATA.PATH_TO_DATA_DIR",
    "DATA.CROP_SIZE": "use DATA.TRAIN_CROP_SIZE and DATA.TEST_CROP_SIZE",
    "MODEL.ARCH": "use MODEL.MODEL_NAME",
    "MODEL.DROPOUT_RATE": "it never reached the transformer; use TIMESFORMER.DROP_PATH_RATE",
    "MODEL.DROPCONNECT_RATE": "use TIMESFORMER.DROP_PATH_RATE",
    "MODEL.FC_INIT_STD": "the head starts like every Linear, from a normal with std 0.02",
    "MODEL.HEAD_ACT": "scores are logits; use DATA.ENSEMBLE_METHOD prob for probabilities",
    "MODEL.SINGLE_PATHWAY_ARCH": "use MODEL.MODEL_NAME",
    "MODEL.MULTI_PATHWAY_ARCH": "use MODEL.MODEL_NAME",
    "SOLVER.GAMMA": "use SOLVER.LRS",
    "SOLVER.STEP_SIZE": "use SOLVER.STEPS",
    "SOLVER.WARMUP_FACTOR": "use SOLVER.WARMUP_START_LR",
    "SOLVER.BASE_LR_SCALE_NUM_SHARDS": "SOLVER.BASE_LR is the rate for GLOBAL_BATCH_SIZE clips",
    "SOLVER.COSINE_AFTER_WARMUP": "the cosine always spans epochs 0 to SOLVER.MAX_EPOCH",
    "MIXUP.MODE": "one ratio is drawn for each batch",
    "MIXUP.CUTMIX_MINMAX": "use MIXUP.CUTMIX_ALPHA",
    "MIXUP.CUTMIX_MIN_MAX": "use MIXUP.CUTMIX_ALPHA",
    "DATA_LOADER.ENABLE_MULTI_THREAD_DECODE": "use DATA_LOADER.NUM_WORKERS",
    "TENSORBOARD.CATEGORIES_PATH": _PICTURES,
    "TENSORBOARD.CLASS_NAMES_PATH": "use DATA.CLASS_NAMES",
    "TENSORBOARD.CONFUSION_MATRIX": _PICTURES,
    "TENSORBOARD.HISTOGRAM": _PICTURES,
    "TENSORBOARD.MODEL_VIS": _PICTURES,
    "TENSORBOARD.PREDICTIONS_PATH": "use TEST.SAVE_RESULTS_PATH",
    "TENSORBOARD.WRONG_PRED_VIS": "use TEST.SAVE_RESULTS_PATH and look at the .csv",
    "BN": "the model has no batch normalisation",
    "MULTIGRID": "use TRAIN.MULTIGRID, whose schedule is another",
    "DETECTION": "detection is not part of TimeSformer",
    "AVA": "detection is not part of TimeSformer",
    "RESNET": _OTHER_MODEL,
    "SLOWFAST": _OTHER_MODEL,
    "X3D": _OTHER_MODEL,
    "NONLOCAL": _OTHER_MODEL,
    "DEMO": "the published demo is not part of this package",
    "BENCHMARK": "the published data-loader benchmark is not part of this package",
}

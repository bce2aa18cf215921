"""The schema: every key there is, its type (that of its default) and its meaning.

It is closed: a key that isn't here is an error, unless `deprecated.DEPRECATED` lists it.
An epoch is one pass over the training list; a clip is one (3, T, H, W) input of the model.
"""

from __future__ import annotations

from pathlib import Path

from timesformer.config.node import CfgNode

_C = CfgNode()

# GPUs to use on this node; 0 runs on the CPU. Under torchrun: 0 for CPU, anything else for GPU.
_C.NUM_GPUS = 1
# Nodes that take part, each started by hand with its own SHARD_ID. Ignored under torchrun.
_C.NUM_SHARDS = 1
# Index of this node, 0 to NUM_SHARDS - 1. Ignored under torchrun.
_C.SHARD_ID = 0
# Folder for checkpoints, logs and results; made when missing.
_C.OUTPUT_DIR = "."
# Seed of initialisation, data order, augmentation and DropPath, >= 0.
_C.RNG_SEED = 0
# Use only operations that give the same numbers each time on the same machine, and refuse models
# that have others; slower on a GPU (docs/reproducibility.md).
_C.DETERMINISTIC = False
# Iterations (micro-batches) between two lines of log.
_C.LOG_PERIOD = 10
# Print a table of the model and its parts at the start of training: parameters and the
# multiply-adds of a test view; and write those of a tested video, all views, to stats.jsonl.
_C.LOG_MODEL_INFO = True
# How processes talk: auto (nccl on GPU, gloo on CPU) | nccl | gloo.
_C.DIST_BACKEND = "auto"
# Clips for each optimizer step, over all nodes and accumulated micro-batches;
# a multiple of TRAIN.BATCH_SIZE x nodes. 0 = one step for every micro-batch.
_C.GLOBAL_BATCH_SIZE = 64

# ---------------------------------------------------------------------------- training
_C.TRAIN = CfgNode()
# Train. With TEST.ENABLE as well, the trained model is tested at the end.
_C.TRAIN.ENABLE = True
# Name of a registered dataset; upper or lower case doesn't matter.
_C.TRAIN.DATASET = "kinetics"
# Clips in one forward pass of one node, split evenly over its processes. Validation uses it too.
# auto (or -1) = as many as fit into memory, of those that give GLOBAL_BATCH_SIZE; the log says it.
_C.TRAIN.BATCH_SIZE = 64
# Epochs between two validations; the last is always validated. 0 = never.
_C.TRAIN.EVAL_PERIOD = 1
# Epochs between two checkpoints; the last epoch always leaves one.
_C.TRAIN.CHECKPOINT_PERIOD = 1
# Optimizer steps after which a run that hasn't been saved meanwhile is saved within an epoch, to go
# on there bit for bit; the two newest such checkpoints stay. 0 = never.
_C.TRAIN.CHECKPOINT_STEPS = 0
# Minutes after which it is, likewise. 0 = never. A run that is asked to stop by SIGTERM, SIGUSR1 or
# Ctrl-C is saved in any case.
_C.TRAIN.CHECKPOINT_MINUTES = 0.0
# Newest checkpoints that are kept beside the best one by validation (checkpoint_best.pyth);
# 0 = all of them.
_C.TRAIN.KEEP_CHECKPOINTS = 3
# Write them while training goes on: it waits only until its state is copied to host memory, which
# takes as much of it as a checkpoint is large, and for a checkpoint that is still being written.
_C.TRAIN.CHECKPOINT_ASYNC = True
# When a checkpoint can't be written, e.g. on a full disk: go_on | stop. Going on, training says so
# and tries again after ten minutes or at the next checkpoint; the last one of a run must be there.
_C.TRAIN.ON_FAILED_SAVE = "go_on"
# Go on from the newest complete checkpoint in OUTPUT_DIR if there is one. False starts over, and
# sets a former run's checkpoints aside.
_C.TRAIN.AUTO_RESUME = True
# Go on from it even where the config or the list of videos has changed so that it is another run,
# which is refused otherwise; weights have to fit. The log says it, and so does every checkpoint.
_C.TRAIN.RESUME_ANYWAY = False
# Steps after each start of which trace.jsonl says loss, gradient norm and digests of clips and
# weights, for `timesformer verify`; 0 = none.
_C.TRAIN.TRACE_STEPS = 20
# Checkpoint to start from when there is nothing to resume; empty = none.
_C.TRAIN.CHECKPOINT_FILE_PATH = ""
# Take all weights of that checkpoint, of the same task, and start at epoch 0 with a new optimizer.
_C.TRAIN.CHECKPOINT_EPOCH_RESET = False
# That checkpoint was trained on another task: start at epoch 0, with a fresh head unless the
# classes are known to be the same, by their names.
_C.TRAIN.FINETUNE = False
# Parameters that aren't trained: patterns of their names, as in .gitignore, e.g. "*, !head" or
# "*, !temporal_*, !time_embed, !head" (docs/performance.md); empty = none.
_C.TRAIN.FREEZE = ""
# GiB that the activations of a forward pass may take in a process: as many blocks recompute theirs
# in the backward pass as it takes. 0 = no limit (TIMESFORMER.ACT_CHECKPOINT: all blocks do).
_C.TRAIN.ACTIVATION_GIB = 0.0
# Draw rare classes more often, in epochs as long as before: one of n videos in proportion to
# n^(1 - CLASS_BALANCE). 0 = each video once; 0.5 by the square root; 1 = each class equally often.
_C.TRAIN.CLASS_BALANCE = 0.0
# Share of the patch positions that training keeps of each clip, the same in all its frames: a
# random set, or random rows and columns for schemes to which these matter. 1 = all of them. Tests
# and validation always see all; docs/performance.md says what it gains.
_C.TRAIN.TUBE_KEEP = 1.0
# Train on shorter and smaller clips first (arXiv 1912.00998): none | long (from epoch to epoch a
# quarter or half of the frames, of half the area or of all) | short (from step to step a quarter of
# the area, half, all) | both. The clips of an epoch stay the same; docs/performance.md.
_C.TRAIN.MULTIGRID = "none"
# Long cycles before the last FULL_EPOCHS.
_C.TRAIN.MULTIGRID_CYCLES = 1
# Take about as many times more clips a step as they have fewer pixels, at as many times the
# learning rate, as published. False keeps both as they are.
_C.TRAIN.MULTIGRID_BATCH = True
# Last epochs that see whole clips where TUBE_KEEP or MULTIGRID leaves something out; -1 = a quarter
# of all epochs, rounded up. SOLVER.EARLY_STOP_EPOCHS doesn't end a run before them.
_C.TRAIN.FULL_EPOCHS = -1
# Mixed precision: none | bf16 | fp16 (GPU only, with loss scaling).
_C.TRAIN.AMP = "none"
# A step whose loss or gradient is not finite on any rank: raise ends the run | skip leaves it out,
# names its videos, counts it, and ends the run at the tenth in a row (since the run began, or went
# on). Steps that fp16's loss scaling leaves out are no such ones.
_C.TRAIN.NONFINITE = "raise"
# Minutes without progress (no step, no batch, no video read) after which a run that hangs, training
# or test, says where and ends with status 70; 0 = never. What it does for the first time may take
# three times as long; and nothing is a hang within three times the longest wait before it.
_C.TRAIN.WATCHDOG_MINUTES = 20.0
# What ranks share between them: none (each has a copy of the model and of what the optimizer has
# gathered) | fsdp (of each, and of the gradient, a rank has its part: for models that don't fit).
# No effect with one process.
_C.TRAIN.SHARDING = "none"
# Let each rank write its part of the checkpoints of epochs and of steps, which are folders then,
# rather than the main process a file of all. Needs fsdp; with one process they are files.
_C.TRAIN.SHARDED_CHECKPOINTS = False
# Compile the model's blocks (torch.compile), once for all of them, when the first step needs it and
# the first validation; takes a C++ compiler (docs/performance.md). Numbers differ by rounding.
_C.TRAIN.COMPILE = False
# Send gradients between ranks as they are (none), or rounded to half the bytes (bf16).
_C.TRAIN.GRAD_COMPRESSION = "none"

# ---------------------------------------------------------------------------- multi-view test
_C.TEST = CfgNode()
# Test, after training or alone.
_C.TEST.ENABLE = True
# Name of a registered dataset; upper or lower case doesn't matter.
_C.TEST.DATASET = "kinetics"
# Clips (views) in one forward pass of one node, split evenly over its processes.
_C.TEST.BATCH_SIZE = 8
# Weights to test; empty = those that TEST.CHECKPOINT says.
_C.TEST.CHECKPOINT_FILE_PATH = ""
# Which checkpoint of OUTPUT_DIR is tested: last | best (by validation).
_C.TEST.CHECKPOINT = "last"
# Which of a checkpoint's weights: raw (those of the last step) | ema (their moving average, of
# EMA.ENABLED). The best epoch is the one of which these do best in validation.
_C.TEST.WEIGHTS = "raw"
# Clips taken along each video. The paper uses 1.
_C.TEST.NUM_ENSEMBLE_VIEWS = 10
# Crops of each clip: 1 (centre) or 3 (left/centre/right, or top/centre/bottom if upright).
_C.TEST.NUM_SPATIAL_CROPS = 3
# File name in OUTPUT_DIR for the scores: .npz, .csv, or both with a comma; empty = none. A former
# test's files of these names are renamed to NAME.before.npz, NAME.before.csv.
_C.TEST.SAVE_RESULTS_PATH = ""
# Mixed precision: none | bf16 | fp16 (GPU only).
_C.TEST.AMP = "none"
# Compile the model's blocks for the test, as TRAIN.COMPILE does for training and its validations.
_C.TEST.COMPILE = False

# ---------------------------------------------------------------------------- video data
_C.DATA = CfgNode()
# Folder with the lists of videos, e.g. train.csv, val.csv, test.csv.
_C.DATA.PATH_TO_DATA_DIR = ""
# What stands between path and label in a row of a list.
_C.DATA.PATH_LABEL_SEPARATOR = " "
# Folder that the paths in the lists are relative to; empty = as they are.
_C.DATA.PATH_PREFIX = ""
# Class names: a text file with one name a line in label order, or the name of a shipped
# list (kinetics400, kinetics600, ssv2, ...); empty = numbers only.
_C.DATA.CLASS_NAMES = ""
# Frames T of a clip.
_C.DATA.NUM_FRAMES = 8
# Source frames from one clip frame to the next, at TARGET_FPS. No effect with ssv2, whose clips are
# NUM_FRAMES frames spread over the whole video.
_C.DATA.SAMPLING_RATE = 32
# Frame rate in frames/s that SAMPLING_RATE counts in; faster videos take longer steps. No
# effect with ssv2.
_C.DATA.TARGET_FPS = 30.0
# Mean of each channel, for pixels in [0, 1] and in the order the model sees the channels.
_C.DATA.MEAN = [0.45, 0.45, 0.45]
# Standard deviation of each channel, likewise.
_C.DATA.STD = [0.225, 0.225, 0.225]
# Least and greatest short side in pixels, drawn uniformly, before the training crop.
_C.DATA.TRAIN_JITTER_SCALES = [256, 320]
# Side of the square crop in pixels while training.
_C.DATA.TRAIN_CROP_SIZE = 224
# Side of the square crop in pixels while validating and testing.
_C.DATA.TEST_CROP_SIZE = 224
# Short side in pixels that validation and tests cut it from. 0 is as published: TEST_CROP_SIZE for
# 3 crops; for 1, and in validation, the first of TRAIN_JITTER_SCALES, or TEST_CROP_SIZE if larger.
_C.DATA.TEST_SHORT_SIDE = 0
# Draw 1 / short side uniformly instead of the short side.
_C.DATA.INV_UNIFORM_SAMPLE = False
# Mirror half of the training clips. Wrong where left and right tell classes apart; Ssv2 knows its
# own such classes and swaps their labels.
_C.DATA.RANDOM_FLIP = True
# The model takes BGR frames. It belongs to the weights: the published SSv2 models do.
_C.DATA.REVERSE_INPUT_CHANNEL = False
# Where n test clips lie: legacy (published: at i/n, never the tail) | center | uniform |
# tiled (uniform without overlap: for videos much longer than a clip).
_C.DATA.TEST_CLIP_SAMPLING = "legacy"
# How views make a video's score: sum (of logits) | max (of logits) | prob (mean softmax).
_C.DATA.ENSEMBLE_METHOD = "sum"
# Several labels for each video, "path 3,17"; needs MODEL.LOSS_FUNC bce, and reports mAP.
_C.DATA.MULTI_LABEL = False
# Training clips made of one pass over a video (repeated augmentation). They share a batch, and an
# epoch has so many times more steps.
_C.DATA.NUM_SAMPLES = 1
# Share of the training list that is trained on, above 0: of each class alike, and never none of it.
# The same videos whatever the seed; a smaller share is part of every larger one.
_C.DATA.FRACTION = 1.0
# Share of the training videos that may be unreadable (each is replaced) before training stops, and
# of the test videos (each counts as wrong) before a test, after writing all, ends in an error.
# Unless it is 0, three may be in any case, of fewer than 15 videos a fifth.
_C.DATA.MAX_FAILED = 0.05
# What decodes: pyav | torchcodec (an extra; the same frames).
_C.DATA.DECODING_BACKEND = "pyav"
# Seconds after which a file that is still being read counts as broken.
_C.DATA.DECODE_TIMEOUT = 120.0
# Frames/s of videos that are folders of extracted frames.
_C.DATA.FRAMES_FPS = 30.0
# Use only the frames that an annotation names (start_frame, end_frame of Diving48).
_C.DATA.TRIM_TO_SEGMENT = False
# Shares of train, val and test where a folder of classes isn't divided into these (VideoFolder).
_C.DATA.FOLDER_SPLIT = [0.8, 0.1, 0.1]

# ---------------------------------------------------------------------------- augmentation
# Of training clips, beside DATA.TRAIN_JITTER_SCALES and RANDOM_FLIP; all frames of a clip alike.
_C.AUG = CfgNode()
# RandAugment operations for each clip; 0 = none.
_C.AUG.RAND_AUGMENT_OPS = 0
# Their strength, 0 to 30.
_C.AUG.RAND_AUGMENT_MAGNITUDE = 9
# Greatest change of brightness, contrast and saturation; 0 = none.
_C.AUG.COLOR_JITTER = 0.0
# Probability that a box of the clip is erased.
_C.AUG.RANDOM_ERASING = 0.0
# Cut crops of random area and shape (Inception) instead of squares of a jittered size.
_C.AUG.RESIZED_CROP = False
# Least and greatest share of the picture in such a crop.
_C.AUG.CROP_SCALE = [0.08, 1.0]
# Least and greatest width / height of such a crop.
_C.AUG.CROP_RATIO = [0.75, 1.3333]

# ---------------------------------------------------------------------------- architecture
_C.TIMESFORMER = CfgNode()
# Image or video weights to start from when training starts fresh: a file, a folder, timm/NAME,
# torchvision/NAME, hf/ORG/NAME, or empty for none (docs/weights.md). The default is what the
# published models started from.
_C.TIMESFORMER.PRETRAINED_MODEL = "timm/vit_base_patch16_224.orig_in21k_ft_in1k"
# Resizing of pos_embed when those weights are for another grid: bicubic | bilinear (2-D) | legacy
# (published: 1-D nearest over the flattened grid, which scrambles it).
_C.TIMESFORMER.POS_EMBED_RESIZE = "bicubic"
# Resizing of time_embed when they are for another number of frames: nearest (published) | linear.
_C.TIMESFORMER.TIME_EMBED_RESIZE = "nearest"
# How image weights become those of a tubelet: central (frame) | average.
_C.TIMESFORMER.TUBELET_INIT = "central"

# Knobs of the model: what each means is said in timesformer/models/architecture.py, where it is a
# field of `Architecture`, and by `timesformer keys`.

_C.TIMESFORMER.ATTENTION_TYPE = "divided_space_time"
_C.TIMESFORMER.PATCH_SIZE = 16
_C.TIMESFORMER.TUBELET_SIZE = 1
_C.TIMESFORMER.EMBED_DIM = 768
_C.TIMESFORMER.DEPTH = 12
_C.TIMESFORMER.TEMPORAL_DEPTH = -1
_C.TIMESFORMER.NUM_HEADS = 12
_C.TIMESFORMER.MLP_RATIO = 4.0
_C.TIMESFORMER.POS_EMBED = "space_time"
_C.TIMESFORMER.CLS_IN_TIME = False
_C.TIMESFORMER.LOCAL_WINDOW = "quadrant"
_C.TIMESFORMER.DROP_PATH_RATE = 0.1
_C.TIMESFORMER.INIT = "image"
_C.TIMESFORMER.TIME_EMBED_AMPLITUDE = -1.0
_C.TIMESFORMER.ACT_CHECKPOINT = False

_C.CNN = CfgNode()
_C.CNN.WIDTH = 1.0

_C.MODEL = CfgNode()
# Name of a registered model: vit_{tiny,small,base,large}_patch16_224 | ...
_C.MODEL.MODEL_NAME = "vit_base_patch16_224"
# Outputs of the head; labels are 0 to NUM_CLASSES - 1.
_C.MODEL.NUM_CLASSES = 400
# Training loss: cross_entropy (MIXUP and LABEL_SMOOTHING change its targets) | bce (sigmoid and
# binary cross-entropy, with DATA.MULTI_LABEL).
_C.MODEL.LOSS_FUNC = "cross_entropy"
# Weigh videos of a class of n in the training loss by n^-CLASS_WEIGHTS, 1 in the mean over videos;
# with bce, where a label holds. 0 = all alike; 1 = N / (K n), "balanced".
_C.MODEL.CLASS_WEIGHTS = 0.0

# ---------------------------------------------------------------------------- optimisation
_C.SOLVER = CfgNode()
# Learning rate for GLOBAL_BATCH_SIZE clips a step; never scaled behind your back.
_C.SOLVER.BASE_LR = 0.005
# steps_with_relative_lrs (STEPS, LRS) | cosine (COSINE_END_LR).
_C.SOLVER.LR_POLICY = "steps_with_relative_lrs"
# Epochs from which the LRS hold; the first is 0.
_C.SOLVER.STEPS = [0, 11, 14]
# Factors of BASE_LR, one for each of STEPS.
_C.SOLVER.LRS = [1.0, 0.1, 0.01]
# Learning rate at the end of the cosine.
_C.SOLVER.COSINE_END_LR = 0.0
# Epochs to train.
_C.SOLVER.MAX_EPOCH = 15
# Stop at a validation (top-1, or map) when the best one is that many epochs ago or more; 0 = never.
_C.SOLVER.EARLY_STOP_EPOCHS = 0
# Epochs (may be a fraction) of linear warm-up; 0 = none.
_C.SOLVER.WARMUP_EPOCHS = 0.0
# Learning rate at the start of the warm-up.
_C.SOLVER.WARMUP_START_LR = 0.01
# sgd | adam | adamw | adamw8bit (moments of 8 bits, those of bitsandbytes: an extra).
_C.SOLVER.OPTIMIZING_METHOD = "sgd"
# Momentum of sgd.
_C.SOLVER.MOMENTUM = 0.9
# Dampening of sgd's momentum.
_C.SOLVER.DAMPENING = 0.0
# Nesterov momentum for sgd.
_C.SOLVER.NESTEROV = True
# Weight decay, on every parameter.
_C.SOLVER.WEIGHT_DECAY = 1e-4
# Factor of the learning rate from one block to the one before it, for small data; 1 = none.
_C.SOLVER.LAYER_DECAY = 1.0
# Greatest L2 norm of the whole gradient; 0 = no clipping.
_C.SOLVER.CLIP_GRAD_L2NORM = 0.0
# Share of the target spread evenly over all classes while training.
_C.SOLVER.LABEL_SMOOTHING = 0.0

_C.EMA = CfgNode()
# Keep an exponential moving average of the weights, validated and saved beside them; TEST.WEIGHTS
# says which are tested.
_C.EMA.ENABLED = False
# What stays of the average at each optimizer step.
_C.EMA.DECAY = 0.9999
# Begin with less: 1 - n^(-2/3) at the n-th step, until that is EMA.DECAY.
_C.EMA.WARMUP = False

_C.LORA = CfgNode()
# Rank of low-rank matrices that are trained beside Linear layers whose own weights stay (LoRA,
# arXiv 2106.09685); merged into these wherever weights are read. 0 = none. TRAIN.FREEZE says what
# else stays, e.g. "*, !head".
_C.LORA.RANK = 0
# Their factor is ALPHA / RANK.
_C.LORA.ALPHA = 16.0
# Patterns of the layers.
_C.LORA.TARGETS = "*attn.qkv, *attn.proj"

_C.MIXUP = CfgNode()
# Mix pairs of neighbouring clips of a step's batch, and their labels.
_C.MIXUP.ENABLED = False
# Beta parameter of mixup; 0 = CutMix only.
_C.MIXUP.ALPHA = 0.8
# Beta parameter of CutMix; 0 = mixup only.
_C.MIXUP.CUTMIX_ALPHA = 1.0
# Probability that a step's batch is mixed.
_C.MIXUP.PROB = 1.0
# Probability of CutMix rather than mixup where both are on.
_C.MIXUP.SWITCH_PROB = 0.5

# ---------------------------------------------------------------------------- machinery
_C.DATA_LOADER = CfgNode()
# Worker processes for each rank; 0 decodes in the main process; auto (or -1) = one less than the
# cores that a rank has, as far as memory suffices, which the log says. Results don't depend on it.
_C.DATA_LOADER.NUM_WORKERS = 4
# Page-locked memory for faster copies to a GPU; no effect on CPU.
_C.DATA_LOADER.PIN_MEMORY = True

_C.TENSORBOARD = CfgNode()
# Write scalars for TensorBoard.
_C.TENSORBOARD.ENABLE = True
# Folder for them; empty = OUTPUT_DIR/tensorboard.
_C.TENSORBOARD.LOG_DIR = ""


def key_comments() -> dict[str, str]:
    """Return the comment above every key in this file, "" for those that only the model has."""
    comments: dict[str, str] = {}
    above: list[str] = []
    for line in Path(__file__).read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            above.append(line[2:])
            continue
        name, equals, value = line.partition(" = ")
        if line.startswith("_C.") and equals and value != "CfgNode()":
            comments[name.removeprefix("_C.")] = " ".join(above)
        above = []
    return comments


def get_cfg() -> CfgNode:
    """Return a fresh copy of the defaults."""
    return _C.clone()

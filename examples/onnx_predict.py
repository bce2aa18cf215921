"""Say what is in a video with a model that `timesformer export --to onnx` wrote.

    python onnx_predict.py model.onnx video.mp4

PyAV, numpy and onnxruntime are all it takes: the file says how clips are made. A video is looked at
as `timesformer predict` does, in the test's clips and crops.
"""

import json
import math
import sys

import av
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
about = json.loads(session.get_modelmeta().custom_metadata_map["timesformer"])
p = about["preprocessing"]
side, T, n = p["crop_size"], p["num_frames"], p["num_clips"]
assert about["input"]["kind"] == "pixels", "export it with --input pixels"

with av.open(sys.argv[2]) as file:
    fps = float(file.streams.video[0].average_rate)
    video = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def frame_numbers(i):
    """Return which T frames are clip i of n."""
    if p["sampling"] == "segments":  # the middles of T equal parts
        edges = np.round((len(video) - 1) / T * np.arange(T + 1)).astype(int)
        return (edges[:-1] + edges[1:]) // 2
    span = p["sampling_rate"] * T * fps / p["target_fps"]
    tiled = p["clip_sampling"] == "tiled"  # as many as have room side by side, in turn
    count = max(1, min(n, int(len(video) / span + 1e-6))) if tiled else n
    i %= count
    ends = i / (count - 1) if count > 1 else 0.5
    shares = {"legacy": i / n, "center": (i + 0.5) / n, "uniform": ends, "tiled": ends}
    start = math.ceil(max(len(video) - span, 0) * shares[p["clip_sampling"]])
    steps = np.linspace(0, max(span - 1, 0), T, dtype=np.float32).astype(int)
    return np.minimum(start + steps, len(video) - 1)


def resize(frames, axis, size):
    """Resize along an axis: bilinear, without antialiasing."""
    at = (np.arange(size) + 0.5) * frames.shape[axis] / size - 0.5
    low = np.maximum(at, 0).astype(int)
    part = np.expand_dims(np.maximum(at, 0) - low, (1, 2) if axis == 1 else 1)
    high = np.minimum(low + 1, frames.shape[axis] - 1)
    return frames.take(low, axis) * (1 - part) + frames.take(high, axis) * part


def crops(frames):
    """Resize the short side, and cut the centre, or three squares along the long side."""
    short = min(frames.shape[1:3])
    h, w = (math.floor(x / short * p["short_side"]) for x in frames.shape[1:3])
    frames = resize(resize(frames, 1, h), 2, w)
    y, x = math.ceil((h - side) / 2), math.ceil((w - side) / 2)
    ends = [(y, 0), (y, x), (y, w - side)] if w >= h else [(0, x), (y, x), (h - side, x)]
    places = ends if p["num_crops"] == 3 else [(y, x)]
    return [frames[:, y : y + side, x : x + side].transpose(3, 0, 1, 2) for y, x in places]


clips = np.stack([crop for i in range(n) for crop in crops(video[frame_numbers(i)])])
(logits,) = session.run(["logits"], {"clips": clips.astype(np.float32)})
if p["ensemble"] != "prob":
    logits = (
        logits.max(0, keepdims=True) if p["ensemble"] == "max" else logits.mean(0, keepdims=True)
    )
if p["multi_label"]:  # each class has a probability of its own
    chances = np.exp(-np.logaddexp(0, -logits)).mean(0)
else:
    chances = np.exp(logits - logits.max(1, keepdims=True))
    chances = (chances / chances.sum(1, keepdims=True)).mean(0)
for label in (-chances).argsort(kind="stable")[:5]:
    name = about["class_names"][label] if about["class_names"] else f"class {label}"
    print(f"{name}  {100 * chances[label]:.1f} %")

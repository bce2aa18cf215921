#!/usr/bin/env bash
# Try all that needs a GPU, in one command and nine minutes, on a machine without internet that has
# Python, torch and torchvision; without a GPU, what can be tried on a CPU. Prints one report and
# writes it to benchmarks/results/gpu_check_DEVICE.txt, or to --output FILE. Status 1: a part failed.
#
#   make gpu-wheels            # where there is internet: fills .wheels, which travels along
#   benchmarks/gpu_check.sh    # there; PYTHON=… for another interpreter than python3
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# gpu_check.py keeps to its time by itself; this is for the day when it doesn't.
guard=()
if command -v timeout >/dev/null; then guard=(timeout --kill-after=3 535); fi
exec "${guard[@]}" "${PYTHON:-python3}" "$here/gpu_check.py" "$@"

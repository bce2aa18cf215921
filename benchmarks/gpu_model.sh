#!/usr/bin/env bash
# Everything that is asked of the model's speed on a GPU, in one command: all schemes, shapes and
# precisions, eager and compiled, beside transformers and beside the model's matrix products; then
# time and memory over tokens. Tables go to benchmarks/results/, lines to benchmarks/history.jsonl.
# About an hour on one H100; PYTHON=… for another interpreter than python3. What has failed is told
# at the end, and stops nothing else.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
name=$("$python" -c 'import re, torch
print(re.sub(r"\W+", "_", torch.cuda.get_device_name().lower()))') || exit 1
failed=()

measure() {  # NAME OPTIONS…
  local output="benchmarks/results/model_${name}_$1.txt"
  shift
  "$python" benchmarks/model.py --device cuda --output "$output" "$@" || failed+=("$output")
}

all=(--schemes all --modes eager compiled)
measure 8x224 "${all[@]}" --precisions fp32 tf32 bf16 fp16 int8 --batch 8 32
measure 16x448 "${all[@]}" --shapes 16x448 --precisions tf32 bf16 --batch 4
measure 96x224 "${all[@]}" --shapes 96x224 --precisions tf32 bf16 --batch 4
measure one_clip "${all[@]}" --what forward --precisions fp32 bf16 --batch 1
for what in forward train; do
  "$python" benchmarks/cost_curve.py --device cuda --what "$what" --precision bf16 --depth 12 \
    --output "benchmarks/results/cost_curve_${name}_$what.txt" \
    --plot "docs/images/cost_curve_${name}_$what.png" || failed+=("cost_curve $what")
done
((${#failed[@]} == 0)) || { printf 'failed: %s\n' "${failed[@]}" >&2; exit 1; }

#!/usr/bin/env bash
# Check the parts that need a GPU, on a machine with at least one, in ten minutes and the time that a download takes;
# prints what it proved. Makes a few tasks of its own, and keeps nothing but the model.
# On one GPU it has run (an H200); what needs two, or vLLM, has not: its first run there is the first test of it.
#
#   scripts/gpu_smoke.sh [MODEL]     default Qwen/Qwen3-0.6B (downloaded from the hub where it is not a folder)
#
#   CRRL_VLLM_COMMAND   how to start vLLM (default `vllm`; for example `apptainer exec --nv crrl-vllm.sif vllm`);
#                       where it is not there, the parts that sample from a server are left out and named
set -uo pipefail
cd "$(dirname "$0")/.."

model=${1:-Qwen/Qwen3-0.6B}
vllm=${CRRL_VLLM_COMMAND:-vllm}
work=$(mktemp -d)
server=
proved=() failed=() left_out=()
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT

finish() {
  printf '\nproved:\n'; printf '  %s\n' "${proved[@]:-nothing}"
  [ ${#left_out[@]} -eq 0 ] || { printf 'left out:\n'; printf '  %s\n' "${left_out[@]}"; }
  [ ${#failed[@]} -eq 0 ] && exit 0
  printf 'failed:\n'; printf '  %s\n' "${failed[@]}"
  exit 1
}

try() { # NAME COMMAND…: ninety seconds at most each
  local name=$1
  shift
  printf '== %s\n' "$name"
  local begun=$SECONDS
  if timeout "${LIMIT:-90}" "$@" > "$work/log" 2>&1; then
    proved+=("$name ($((SECONDS - begun)) s)")
  else
    failed+=("$name")
    tail -n 15 "$work/log"
  fi
}

gpus=$(nvidia-smi -L 2> /dev/null | grep -c GPU)
[ "$gpus" -ge 1 ] || { echo "error: no GPU is here" >&2; exit 3; }
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
first=${CUDA_VISIBLE_DEVICES:-0}
one=(env "CUDA_VISIBLE_DEVICES=${first%%,*}") # with more in sight, torch would spread a single process over them
tasks=$work/tasks.jsonl
small=(recipe=smoke "model.name=$model" "tasks.name=$tasks" sft.steps=2 grpo.steps=2 grpo.validation_tasks=0)

LIMIT=300 try "tasks were made" crrl tasks build humaneval-bugs --limit 32 --out "$tasks"
LIMIT=1800 try "the model is here" python -c '
import sys
from code_repair_rl.models import load_model, load_tokenizer
load_tokenizer(sys.argv[1]), load_model(sys.argv[1])' "$model"
if [ ${#failed[@]} -gt 0 ]; then
  left_out+=("everything else: it needs both")
  finish
fi
try "the machine has what training needs" crrl doctor --json
try "torch computes on the GPU" "${one[@]}" python -c 'import torch; assert float(torch.ones(2, device="cuda").sum()) == 2.0'
try "packed passes compute what plain ones do" "${one[@]}" \
  python -m pytest -q -p no:cacheprovider tests/training/test_on_gpu.py
try "memory was planned" crrl plan --model "$model" --lora 16 --training-gpus 1 --require-fit
try "SFT on one GPU" "${one[@]}" crrl sft "${small[@]}" run="$work/sft" 'model.lora={rank: 8}'
try "GRPO on one GPU, sampling by itself" "${one[@]}" \
  crrl grpo "${small[@]}" run="$work/grpo" 'model.lora={rank: 8}'
if python -c 'import deepspeed' 2> /dev/null; then
  try "DeepSpeed ZeRO-3 with $gpus process(es)" crrl sft "${small[@]}" run="$work/zero3" \
    launch.kind=zero3 launch.processes="$gpus" sft.batch_size=$((4 * gpus))
else
  left_out+=("ZeRO-3: deepspeed is not installed")
fi
if [ "$gpus" -ge 2 ]; then
  try "DDP with $gpus processes" crrl sft "${small[@]}" run="$work/ddp" \
    launch.kind=ddp launch.processes="$gpus" sft.batch_size=$((4 * gpus))
  try "FSDP2 with $gpus processes" crrl sft "${small[@]}" run="$work/fsdp2" \
    launch.kind=fsdp2 launch.processes="$gpus" sft.batch_size=$((4 * gpus))
else
  left_out+=("DDP and FSDP2: only one GPU")
fi
if [ "$gpus" -ge 2 ] && ${vllm} --version > /dev/null 2>&1; then
  CUDA_VISIBLE_DEVICES=$((gpus - 1)) VLLM_SERVER_DEV_MODE=1 ${vllm} serve "$model" --port 18311 --max-model-len 2048 \
    --weight-transfer-config '{"backend": "nccl"}' --logprobs-mode processed_logprobs --max-logprobs -1 \
    > "$work/server.log" 2>&1 &
  server=$!
  LIMIT=180 try "the vLLM server answers" bash -c 'until curl -sf http://127.0.0.1:18311/health; do sleep 2; done'
  try "GRPO on one GPU, sampled by vLLM on another, weights sent over" "${one[@]}" \
    crrl grpo "${small[@]}" run="$work/vllm" 'model.lora={rank: 8}' launch.vllm=http://127.0.0.1:18311
else
  left_out+=("vLLM with weight synchronisation: needs two GPUs and vLLM")
fi

finish

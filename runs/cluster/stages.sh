#!/usr/bin/env bash
# A run on GPUs, stage by stage, from the repository's folder. eight_gpus.sh and slurm.sh say by what it is started.
#
# NOT RUN ON GPUs BY US. What is tested, on CPUs: these commands, several processes, several machines, kills and resumes.
#
# What to train, by environment variables:
#   RUN      its name                                  DEPTH    the dial (nanochat plan --help)
#   SOURCES  names, files or folders of text           VOCAB, CONTEXT    tokens of the vocabulary, and of a row
#   PARALLEL zero, fsdp or ddp                         DEVICE   for the plan alone: a100, h100, h200 or b200
# All machines must see the same NANOCHAT_HOME. The same command goes on from where the last one was stopped.
set -euo pipefail

: "${LAUNCH:?set by eight_gpus.sh or slurm.sh}" "${WORLD:?}"
RUN=${RUN:-big} DEPTH=${DEPTH:-20} SOURCES=${SOURCES:-cookbook wikipedia} VOCAB=${VOCAB:-32768} CONTEXT=${CONTEXT:-2048}
PARALLEL=${PARALLEL:-zero} DEVICE=${DEVICE:-h100} PYTHON=${PYTHON:-python3}
DRY=$([ "${1:-}" = --dry-run ] && echo yes || true)

# do_it COMMAND...: run it, or say what would be run.
do_it() {
    echo "+ $*" >&2
    if [ -z "$DRY" ]; then "$@"; fi
}

"$PYTHON" -m nanochat plan --world "$WORLD" --device "$DEVICE" --parallel "$PARALLEL" \
    --depth "$DEPTH" --vocab-size "$VOCAB" --context "$CONTEXT"

common=(--run "$RUN" --parallel "$PARALLEL")
# Learning a vocabulary and encoding the text is work for one process.
# shellcheck disable=SC2086  # SOURCES are words
do_it "$PYTHON" -m nanochat tokenizer --run "$RUN" --sources $SOURCES --vocab-size "$VOCAB"
# shellcheck disable=SC2086  # LAUNCH is a command with its options; `--` keeps torchrun from taking --run for its own
{
    do_it $LAUNCH -m -- nanochat pretrain "${common[@]}" --depth "$DEPTH" --context "$CONTEXT"
    do_it $LAUNCH -m -- nanochat eval --run "$RUN:pretrain"
    for stage in midtrain sft; do
        do_it $LAUNCH -m -- nanochat "$stage" "${common[@]}" --rows "$WORLD"
    done
    do_it $LAUNCH -m -- nanochat rl "${common[@]}" --prompts "$WORLD" --rehearse "$WORLD"
    do_it $LAUNCH -m -- nanochat eval --run "$RUN:rl"
}
do_it "$PYTHON" -m nanochat report --run "$RUN"

#!/usr/bin/env bash
# One machine with eight GPUs.
#
#     bash runs/cluster/eight_gpus.sh --dry-run      what it would cost, and every command; nothing is started
#     DEPTH=20 SOURCES=texts/ bash runs/cluster/eight_gpus.sh
#
# NOT RUN ON GPUs BY US; see stages.sh. A process that dies ends the others, and torchrun starts all of them again,
# up to three times, from the last checkpoint.
set -euo pipefail
cd "$(dirname "$0")/../.."
export WORLD=${WORLD:-8}
export LAUNCH="torchrun --standalone --nproc_per_node=$WORLD --max_restarts=3"
exec bash runs/cluster/stages.sh "$@"

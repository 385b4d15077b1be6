#!/usr/bin/env bash
#SBATCH --job-name=nanochat
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
# Eight machines with eight GPUs each, by Slurm; from the repository's folder, which all of them must see:
#
#     bash runs/cluster/slurm.sh --dry-run           what it would cost, and every command; nothing is started
#     DEPTH=32 SOURCES=texts/ sbatch runs/cluster/slurm.sh
#
# NOT RUN ON GPUs BY US, nor under Slurm; see stages.sh. On each machine one torchrun starts eight processes; they meet
# at the first machine. Three minutes before the time is up Slurm sends SIGTERM, on which every stage saves and ends;
# put back into the queue, the same command goes on from there.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/../..}"
NODES=${SLURM_NNODES:-8} EACH=${SLURM_GPUS_ON_NODE:-8} PORT=${PORT:-29500}
export WORLD=$((NODES * EACH))
# One list of addresses for each attempt: in an old one, processes that are started again find those that died.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
if [ "${1:-}" = --dry-run ]; then
    first=first-machine
else
    first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
fi
export LAUNCH="srun torchrun --nnodes=$NODES --nproc_per_node=$EACH --rdzv_backend=c10d --rdzv_endpoint=$first:$PORT \
--rdzv_id=${SLURM_JOB_ID:-nanochat} --max_restarts=3"
exec bash runs/cluster/stages.sh "$@"

#!/usr/bin/env bash
# Plan and train on the GPUs of one node: the main process plans and writes; train.batch is the batch of all together.
#   sbatch --gpus=4 --export=ALL,PREPARED=prepared,RUN=run,MINUTES=600 docs/slurm/several_gpus.sh
#SBATCH --job-name=voxlate-train
#SBATCH --nodes=1
#SBATCH --gpus=4
#SBATCH --cpus-per-task=32
#SBATCH --mem=128G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -u

stopped=
trap 'stopped=yes; kill -TERM "$job"' TERM
srun torchrun --standalone --nproc-per-node "$SLURM_GPUS_ON_NODE" \
    -m voxlate train auto --data "$PREPARED" --out "$RUN" --minutes "${MINUTES:-600}" --device "${DEVICE:-auto}" &
job=$!
wait "$job" || wait "$job" # the signal ends the first wait, the second one gives the exit code
code=$?
if [ -n "$stopped" ] && [ "$code" -ne 0 ]; then
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"

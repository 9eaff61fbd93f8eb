#!/usr/bin/env bash
# Plan and train on one GPU. At the time limit the state is saved and the job queues itself again: it resumes bit for bit.
#   sbatch --export=ALL,PREPARED=prepared,RUN=run,MINUTES=600 docs/slurm/one_gpu.sh
#SBATCH --job-name=voxlate-train
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -u

stopped=
trap 'stopped=yes; kill -TERM "$job"' TERM
srun voxlate train auto --data "$PREPARED" --out "$RUN" --minutes "${MINUTES:-600}" &
job=$!
wait "$job" || wait "$job" # the signal ends the first wait, the second one gives the exit code
code=$?
if [ -n "$stopped" ] && [ "$code" -ne 0 ]; then
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"

#!/usr/bin/env bash
# Five-fold cross-validation: each job plans and trains one fold into $RUNS/fold0 … fold4.
# At the time limit a job saves its state and queues itself again: it resumes bit for bit.
#   sbatch --export=ALL,PREPARED=prepared,RUNS=runs,MINUTES=600 docs/slurm/folds.sh
#SBATCH --job-name=voxlate-fold
#SBATCH --array=0-4
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -u

fold=$SLURM_ARRAY_TASK_ID
stopped=
trap 'stopped=yes; kill -TERM "$job"' TERM
srun voxlate train auto --data "$PREPARED" --out "$RUNS/fold$fold" --fold "$fold" --minutes "${MINUTES:-600}" &
job=$!
wait "$job" || wait "$job" # the signal ends the first wait, the second one gives the exit code
code=$?
if [ -n "$stopped" ] && [ "$code" -ne 0 ]; then
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"

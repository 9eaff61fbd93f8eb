#!/usr/bin/env bash
# Synthesise a cohort by an array of jobs that share one folder. RUN may be several runs: their mean is taken.
# Without PARTS, each job makes one of as many parts as the array has jobs. To resubmit some of them, name their numbers, and in PARTS how
# many parts there are, which are then the numbers 1 to PARTS: --array=3,5 --export=ALL,PARTS=8,RUN=run,COHORT=cohort,OUT=out
#   sbatch --array=1-8 --export=ALL,RUN="runs/fold0 runs/fold1",COHORT=cohort,OUT=out docs/slurm/synth.sh
#SBATCH --job-name=voxlate-synth
#SBATCH --array=1-8
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=04:00:00
set -eu

if [ -n "${PARTS:-}" ]; then
    part=$SLURM_ARRAY_TASK_ID/$PARTS
elif [ $((SLURM_ARRAY_TASK_MAX - SLURM_ARRAY_TASK_MIN + 1)) -eq "$SLURM_ARRAY_TASK_COUNT" ]; then
    part=$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN + 1))/$SLURM_ARRAY_TASK_COUNT
else
    echo "PARTS: expected how many parts there are, since the array leaves numbers out, found none. Add PARTS=N to --export." >&2
    exit 2
fi
# RUN is split at spaces on purpose; SPLIT is optional (val, test)
# shellcheck disable=SC2086
srun voxlate synth $RUN "$COHORT" --out "$OUT" --part "$part" ${SPLIT:+--split "$SPLIT"}

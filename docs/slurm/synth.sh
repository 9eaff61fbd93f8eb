#!/usr/bin/env bash
# Synthesise a cohort by an array of jobs that share one folder. RUN may be several runs: their mean is taken.
#   sbatch --array=1-8 --export=ALL,RUN="runs/fold0 runs/fold1",COHORT=cohort,OUT=out docs/slurm/synth.sh
#SBATCH --job-name=voxlate-synth
#SBATCH --array=1-8
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=04:00:00
set -eu

part=$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN + 1))/$SLURM_ARRAY_TASK_COUNT
# RUN is split at spaces on purpose; SPLIT is optional (val, test)
# shellcheck disable=SC2086
srun voxlate synth $RUN "$COHORT" --out "$OUT" --part "$part" ${SPLIT:+--split "$SPLIT"}

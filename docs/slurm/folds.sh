#!/usr/bin/env bash
# Five-fold cross-validation: each job plans and trains one fold into $RUNS/fold0 … fold4.
#   sbatch --export=ALL,PREPARED=prepared,RUNS=runs,MINUTES=600 docs/slurm/folds.sh
#SBATCH --job-name=voxlate-fold
#SBATCH --array=0-4
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=12:00:00
set -eu

fold=$SLURM_ARRAY_TASK_ID
srun voxlate train auto --data "$PREPARED" --out "$RUNS/fold$fold" --fold "$fold" --minutes "${MINUTES:-600}"

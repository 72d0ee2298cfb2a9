#!/bin/bash
# A run on one host of a Slurm cluster. In the project's folder:
#   sbatch launch/slurm_one_host.sh config/qwen3_1p7b_rollout_gdro.py --seed=1
# Before the time limit the run saves a checkpoint and is queued again, until it has its steps.
#SBATCH --job-name=nanogdro --nodes=1 --gpus-per-node=8 --exclusive --mem=0
#SBATCH --time=24:00:00 --requeue --open-mode=append
#SBATCH --signal=B:TERM@600
: "${1:?"give a config: sbatch launch/slurm_one_host.sh config/qwen3_1p7b_rollout_gdro.py"}"
export PATH="$PWD/.venv/bin:$PATH"

trap 'trap "" TERM; asked=yes; kill -TERM "$!"' TERM

# of the 600 s ranks may take 540 to finish the step and save; torchrun gives them 30 by itself
torchrun --standalone --nproc_per_node="${SLURM_GPUS_ON_NODE:-8}" --shutdown_timeout=540 \
    train.py "$@" --resume=auto &
wait "$!"  # until it ends, or until SIGTERM comes
wait "$!"  # until it ends
status=$?

# torchrun ends with 1 when it was asked to stop; a job that somebody cancels is not RUNNING
if [[ -n ${asked:-} && $status -ne 0 ]] &&
    scontrol show job "$SLURM_JOB_ID" | grep -q JobState=RUNNING; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"

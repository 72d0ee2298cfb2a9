#!/bin/bash
# A run on several hosts of a Slurm cluster, on a folder that they share. In the project's folder:
#   sbatch --nodes=4 launch/slurm_hosts.sh config/qwen3_8b_rollout_gdro.py --seed=1
# Before the time limit the run saves a checkpoint and is queued again, until it has its steps.
#SBATCH --job-name=nanogdro --nodes=2 --ntasks-per-node=1 --gpus-per-node=8 --exclusive --mem=0
#SBATCH --time=24:00:00 --requeue --open-mode=append
#SBATCH --signal=B:TERM@600
: "${1:?"give a config: sbatch --nodes=4 launch/slurm_hosts.sh config/qwen3_8b_rollout_gdro.py"}"
export PATH="$PWD/.venv/bin:$PATH"
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# not to srun, which answers SIGTERM with SIGKILL for every task
trap 'trap "" TERM; asked=yes; scancel --signal=TERM "$SLURM_JOB_ID"' TERM

# of the 600 s ranks may take 540 to finish the step and save; torchrun gives them 30 by itself
srun --cpu-bind=none --kill-on-bad-exit=1 \
    torchrun --nnodes="$SLURM_JOB_NUM_NODES" --nproc_per_node="${SLURM_GPUS_ON_NODE:-8}" \
    --rdzv_backend=c10d --rdzv_endpoint="$first:${RDZV_PORT:-29500}" --rdzv_id="$SLURM_JOB_ID" \
    --shutdown_timeout=540 train.py "$@" --resume=auto &
wait "$!"  # until it ends, or until SIGTERM comes
wait "$!"  # until it ends
status=$?

# torchrun ends with 1 when it was asked to stop; a job that somebody cancels is not RUNNING
if [[ -n ${asked:-} && $status -ne 0 ]] &&
    scontrol show job "$SLURM_JOB_ID" | grep -q JobState=RUNNING; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"

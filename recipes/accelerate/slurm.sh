#!/bin/bash
# sbatch recipes/accelerate/slurm.sh recipes/imdb/finetuned_512.yaml --bf16 --output_dir /shared/outputs/mine
#
# Four machines of eight GPUs. Two minutes before the time is over, the ranks write a checkpoint and end, and the job
# goes back into the queue, from where it goes on exactly. Slurm itself requeues a job that it preempts.
# output_dir and HF_HOME must lie on a file system that all machines see. torch's launcher kills ranks 30 seconds after
# it was told to end: a step and a checkpoint must fit into these.

#SBATCH --job-name=bertcls
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:8
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120

GPUS_PER_NODE=8
MAIN_ADDRESS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export GPUS_PER_NODE MAIN_ADDRESS

requeue=false
trap 'requeue=true; scancel --signal=TERM "$SLURM_JOB_ID.0"' USR1

srun bash -c 'exec accelerate launch --config_file recipes/accelerate/multi_node.yaml \
    --num_machines "$SLURM_NNODES" --num_processes $((SLURM_NNODES * GPUS_PER_NODE)) \
    --machine_rank "$SLURM_NODEID" --main_process_ip "$MAIN_ADDRESS" \
    run_classification.py "$@" --resume_from_checkpoint auto' bash "$@" &

# A trapped signal ends the first wait; the second one lasts until the checkpoint is written.
wait $!
code=$?
if $requeue; then
    wait $!
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code

#!/usr/bin/env bash
# A run on Slurm: a Ray cluster on the nodes of one job, the run as a job of that cluster, and the end of both.
#
#   sbatch --nodes=9 --exclusive --time=24:00:00 deploy/slurm/submit.sh run /shared/recipe.yaml --run /shared/runs/1
#
# The arguments are those of vl3syn. All paths are absolute and on a file system that all nodes share, as is this checkout's
# environment (or PATH leads to one). The first node is the head: it takes no work (HEAD_CPUS=0), so `--nodes` is one
# more than the workers. A job that was ended by its time limit is submitted again: the run goes on with what is stored.
#
#   HEAD_CPUS           CPUs of the head that take work; default 0
#   RAY_PORT            default 6379
#   DASHBOARD_PORT      default 8265, on loopback: ssh -L 8265:localhost:8265 HEAD
#   OBJECT_STORE_BYTES  of a node; default 4000000000
#   RAY_TMP             Ray's folder, on each node's own disk; default /tmp/ray-JOBID
set -euo pipefail

: "${SLURM_JOB_ID:?run this by sbatch, or within salloc}"
[[ $# -gt 0 ]] || { echo "give the arguments of vl3syn: run RECIPE --run RUN" >&2; exit 2; }

head_cpus=${HEAD_CPUS:-0}
port=${RAY_PORT:-6379}
dashboard=${DASHBOARD_PORT:-8265}
store=${OBJECT_STORE_BYTES:-4000000000}
temporary=${RAY_TMP:-/tmp/ray-$SLURM_JOB_ID}

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}

# Whoever reaches a port of Ray runs code with your rights. So every process must know a token that only you can read.
token=$(mktemp "${HOME}/.vl3syn-token-XXXXXXXX")
chmod 600 "$token"
python3 -c 'import secrets; print(secrets.token_hex(32), end="")' > "$token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token RAY_USAGE_STATS_ENABLED=0

steps=()
finish() {
    local status=$?
    trap - EXIT INT TERM
    for process in "${steps[@]}"; do
        kill -TERM "$process" 2>/dev/null || true   # srun ends its tasks with it
    done
    wait
    rm -f "$token"
    exit "$status"
}
trap finish EXIT
trap 'exit 143' TERM   # Slurm's notice before the time limit
trap 'exit 130' INT

# The job's nodes are taken already, by the steps of Ray: `--overlap`. With the environment of this script, which has the
# token, also where the user's jobs get none: `sbatch --export=NONE`.
step=(srun --nodes=1 --ntasks=1 --overlap --export=ALL)

# One step per node, which lasts as long as the node: `--block`. It has all CPUs and all memory of the node; a step without
# these options gets one CPU. GPUs are those of the allocation. The nodes are alike.
ray_node() {
    local node=$1
    shift
    "${step[@]}" --nodelist="$node" --mem=0 --cpu-bind=none --kill-on-bad-exit=1 \
        ${SLURM_CPUS_ON_NODE:+--cpus-per-task="$SLURM_CPUS_ON_NODE"} \
        env RAY_TMPDIR="$temporary" ray start --block --disable-usage-stats --object-store-memory="$store" "$@" &
    steps+=("$!")
}

address=$("${step[@]}" --nodelist="$head" hostname --ip-address | awk '{print $1}')
ray_node "$head" --head --node-ip-address="$address" --port="$port" --num-cpus="$head_cpus" --num-gpus=0 \
    --dashboard-host=127.0.0.1 --dashboard-port="$dashboard"

# Nodes that are alive, as the head sees it; nothing while it does not answer.
alive() {
    "${step[@]}" --nodelist="$head" python -c '
import sys, ray
ray.init(address=sys.argv[1], logging_level="ERROR")
print(sum(node["Alive"] for node in ray.nodes()))' "$address:$port" 2>/dev/null | tail -n 1 || true
}
# A job that begins before a node is there sees fewer CPUs and GPUs.
wait_for() {
    local have='' tries=0 process
    until have=$(alive) && [[ ${have:-0} -ge $1 ]]; do
        for process in "${steps[@]}"; do
            kill -0 "$process" 2>/dev/null || { echo "a node of Ray ended: see the lines above" >&2; exit 1; }
        done
        ((++tries < 60)) || { echo "${have:-0} of $1 nodes answer at $address:$port" >&2; exit 1; }
        sleep 2
    done
}
wait_for 1
for node in "${nodes[@]:1}"; do
    ray_node "$node" --address="$address:$port" ${SLURM_CPUS_ON_NODE:+--num-cpus="$SLURM_CPUS_ON_NODE"}
done
wait_for "${#nodes[@]}"

# The job client talks to the dashboard, which listens on the head's loopback: so it runs there. `wait` lets a signal end it.
job=vl3syn-$SLURM_JOB_ID
client=("${step[@]}" --nodelist="$head" env RAY_API_SERVER_ADDRESS="http://127.0.0.1:$dashboard" ray job)
"${client[@]}" submit --submission-id "$job" -- python -m pipeline "$@" &
steps+=("$!")
wait "$!"
# The client exits with 0 for a job that was stopped, too.
outcome=$("${client[@]}" status "$job" 2>&1) || true
[[ $outcome == *"'$job' succeeded"* ]] || { echo "$outcome" >&2; exit 1; }

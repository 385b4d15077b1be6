#!/usr/bin/env bash
# Two network namespaces as two machines, with an address each and a cable between them, and one job on both.
#
#     unshare --user --map-root-user --net --uts bash tests/two_machines.sh FOLDER [cut|dies]
#
# With `dies` process 1 is killed, and torchrun starts both again. With `cut` the cable is pulled when the sixth step is on record, and put back when both have noticed. FOLDER gets
# first.log, second.log and their exit codes.
set -euo pipefail
folder=$1 what=${2:-}
hostname first
ip link set lo up
unshare --net --uts sleep 1000 &
other=$!
trap 'kill $other' EXIT
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
ip link add cable1 type veth peer name cable2 netns $other
ip address add 10.77.0.1/24 dev cable1
ip link set cable1 up
# on_second COMMAND...: run it on the second machine.
on_second() { nsenter --target $other --net --uts "$@"; }
on_second hostname second
on_second ip link set lo up
on_second ip address add 10.77.0.2/24 dev cable2
on_second ip link set cable2 up

export PYTHONPATH=. NANOCHAT_HOME=$folder/home OMP_NUM_THREADS=1
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1  # as runs/cluster/slurm.sh has it
job=(--nnodes=2 --nproc-per-node=1 --rdzv-backend=c10d --rdzv-id=two --rdzv-endpoint=10.77.0.1:29400)
work=cut  # what tests.ranked is to do; by itself it cuts nothing
if [ "$what" = dies ]; then
    work=dies
    job+=(--max-restarts=1)
fi
program=(-m -- tests.ranked "$work" "$folder")
python=${PYTHON:-python3}
(
    export GLOO_SOCKET_IFNAME=cable1
    code=0
    "$python" -m torch.distributed.run "${job[@]}" --local-addr=10.77.0.1 --rdzv-conf=is_host=1 "${program[@]}" \
        >"$folder/first.log" 2>&1 || code=$?
    echo $code >"$folder/first.code"
) &
first=$!
(
    export GLOO_SOCKET_IFNAME=cable2
    code=0
    on_second "$python" -m torch.distributed.run "${job[@]}" --local-addr=10.77.0.2 --rdzv-conf=is_host=0 \
        "${program[@]}" >"$folder/second.log" 2>&1 || code=$?
    echo $code >"$folder/second.code"
) &
second=$!
if [ "$what" = cut ]; then
    until [ "$(grep -c '"loss"' "$NANOCHAT_HOME/toy/metrics.jsonl" 2>/dev/null)" -ge 6 ] 2>/dev/null; do
        kill -0 $first 2>/dev/null || break
        sleep 0.05
    done
    on_second ip link set cable2 down
    for log in first second; do
        for _ in $(seq 1200); do
            if grep -q "^nanochat: expected" "$folder/$log.log"; then break; fi
            sleep 0.1
        done
    done
    on_second ip link set cable2 up
fi
wait $first $second

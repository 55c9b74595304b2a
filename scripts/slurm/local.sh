#!/usr/bin/env bash
# A SLURM of one node on this machine, to try job scripts before they go to a cluster.
#   scripts/slurm/local.sh start           needs Debian's slurm-wlm and munge (apt-get install slurm-wlm munge), and root
#   scripts/slurm/local.sh status
#   scripts/slurm/local.sh stop [--now]    waits for the jobs, says how each ended, removes everything; --now cancels them
# Config, keys, logs and pid files lie in one folder, $LOCAL_SLURM; it listens on 127.0.0.1 only, on ports of its own.
# So that plain sbatch finds it, start links /etc/slurm/slurm.conf to that folder where there is none, and stop removes
# that link; if SLURM_CONF is set, or there is another slurm.conf, it says what to export instead.
set -euo pipefail
FOLDER=${LOCAL_SLURM:-${TMPDIR:-/tmp}/torchcell-slurm-$(id -u)}
LINK=/etc/slurm/slurm.conf
PATH=$PATH:/usr/sbin:/sbin
OWN_CONF=${SLURM_CONF:-}
export SLURM_CONF=$FOLDER/slurm.conf

fail() { echo "error: $*" >&2; exit 1; }
pid_of() { cat "$FOLDER/$1.pid" 2>/dev/null || true; }
running() { # is the daemon of this pid file alive? A pid that another program got since is not ours.
    local pid; pid=$(pid_of "$1")
    [ -n "$pid" ] && tr '\0' ' ' 2>/dev/null < "/proc/$pid/cmdline" | grep -qF "$FOLDER"
}
wait_for() { # a command that must succeed within 20 s
    local tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ $tries -ge 100 ]; then
            tail -n 5 "$FOLDER"/*.log >&2 || true
            return 1
        fi
        sleep 0.2
    done
}
free_port() { # the first from $1 on that nobody listens on
    local port=$1
    while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
    echo "$port"
}
idle_node() { sinfo -h -o %t | grep -qE '^(idle|mix|alloc)'; }

write_conf() {
    local user cores memory controller daemon
    user=$(id -un)
    cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc) # which would otherwise count as cores
    memory=$(($(awk '/^MemTotal:/ {print $2}' /proc/meminfo) / 1024 * 95 / 100))
    controller=$(free_port 16817)
    daemon=$(free_port $((controller + 1)))
    cat > "$SLURM_CONF" <<CONF
# written by scripts/slurm/local.sh
ClusterName=local
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$controller
SlurmdPort=$daemon
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a requeued job waits before it starts again; 120 s by default
AuthInfo=socket=$FOLDER/munge.socket,cred_expire=5
StateSaveLocation=$FOLDER/state
SlurmdSpoolDir=$FOLDER/spool
SlurmctldPidFile=$FOLDER/slurmctld.pid
SlurmdPidFile=$FOLDER/slurmd.pid
SlurmctldLogFile=$FOLDER/slurmctld.log
SlurmdLogFile=$FOLDER/slurmd.log
PlugStackConfig=$FOLDER/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=10
MinJobAge=86400
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
NodeName=localhost NodeAddr=127.0.0.1 CPUs=$cores CoresPerSocket=$cores RealMemory=$memory State=UNKNOWN
PartitionName=local Nodes=localhost Default=YES MaxTime=INFINITE State=UP
CONF
    : > "$FOLDER/plugstack.conf"
}

start() {
    local program
    for program in munged slurmctld slurmd sbatch; do
        command -v "$program" >/dev/null || fail "no $program here; apt-get install slurm-wlm munge"
    done
    [ "$(id -u)" = 0 ] || fail "start it as root: slurmd starts jobs as whoever submits them"
    if running slurmctld && running slurmd && running munged; then
        echo "already running; its folder is $FOLDER"
        return
    fi
    stop_daemons
    rm -rf "$FOLDER"
    mkdir -p -m 755 "$FOLDER" "$FOLDER/state" "$FOLDER/spool"
    write_conf
    trap 'stop_daemons; echo "error: SLURM did not start; see the lines above and $FOLDER/*.log" >&2' EXIT
    (umask 077; head -c 1024 /dev/urandom > "$FOLDER/munge.key")
    munged --force --socket="$FOLDER/munge.socket" --key-file="$FOLDER/munge.key" --pid-file="$FOLDER/munged.pid" \
        --log-file="$FOLDER/munged.log" --seed-file="$FOLDER/munge.seed" 2>> "$FOLDER/start.log"
    slurmctld -c -f "$SLURM_CONF" 2>> "$FOLDER/start.log"
    wait_for scontrol ping
    slurmd -N localhost -f "$SLURM_CONF" 2>> "$FOLDER/start.log"
    wait_for idle_node
    trap - EXIT
    sinfo -o "%n: %c cores, %m MB, %T"
    if [ -n "$OWN_CONF" ]; then
        [ "$OWN_CONF" = "$SLURM_CONF" ] || echo "to submit: export SLURM_CONF=$SLURM_CONF"
    elif [ ! -e $LINK ] && [ ! -L $LINK ] && mkdir -p "$(dirname $LINK)" && ln -s "$SLURM_CONF" $LINK 2>/dev/null; then
        echo "linked $LINK, so that sbatch finds it; stop removes the link"
    else
        echo "there is a $LINK already; to submit here: export SLURM_CONF=$SLURM_CONF"
    fi
}

jobs() { squeue -h -r -o "%i" "$@"; }

wait_for_jobs() { # those that can't ever start are cancelled, for nobody would wait long enough
    local said="" line stuck
    while [ -n "$(jobs)" ]; do
        stuck=$(squeue -h -r -t PD -o "%i %r" |
            awk '$2 ~ /^(JobHeld|Partition.*Limit|BadConstraints|DependencyNeverSatisfied)/ {print $1}')
        if [ -n "$stuck" ]; then
            echo "can never start, cancelled: ${stuck//$'\n'/ }"
            # shellcheck disable=SC2086  # one word a job
            scancel $stuck
        fi
        line="waiting for $(jobs -t R,CG | wc -l) running and $(jobs -t PD | wc -l) queued jobs (stop --now cancels them)"
        [ "$line" = "$said" ] || echo "$line"
        said=$line
        sleep 1
    done
}

tell_jobs() { # a line a job; 1 if one has not completed
    scontrol -o show job 2>/dev/null | awk '
        { for (i = 1; i <= NF; i++) { at = index($i, "="); value[substr($i, 1, at - 1)] = substr($i, at + 1) }
          if (!("JobId" in value) || value["JobId"] == "") next
          id = value["ArrayTaskId"] ~ /^[0-9]+$/ && value["ArrayTaskId"] < 4294967294 ? value["ArrayJobId"] "_" value["ArrayTaskId"] : value["JobId"]
          print "job " id " (" value["JobName"] "): " value["JobState"] ", exit " value["ExitCode"] ", log " value["StdOut"]
          bad += value["JobState"] != "COMPLETED"; split("", value) }
        END { exit bad > 0 }'
}

stop_daemons() { # the node first, and its jobs' shepherds with it
    local name pid
    for name in slurmd slurmctld munged; do
        running "$name" || continue
        pid=$(pid_of "$name")
        kill "$pid" 2>/dev/null || true
        wait_for bash -c "! kill -0 $pid" || kill -9 "$pid"
    done
}

stop() {
    local failed=0
    if running slurmctld && running munged; then
        if [ "${1:-}" = --now ]; then
            # shellcheck disable=SC2046  # one word a job
            [ -z "$(jobs)" ] || scancel $(jobs)
        fi
        wait_for_jobs
        tell_jobs || failed=1
    else
        echo "not running"
    fi
    stop_daemons
    if [ -L $LINK ] && [ "$(readlink $LINK)" = "$SLURM_CONF" ]; then rm $LINK; fi
    if [ -f "$SLURM_CONF" ]; then rm -rf "$FOLDER"; fi
    return $failed
}

status() {
    local name
    for name in munged slurmctld slurmd; do
        if running "$name"; then echo "$name runs as $(pid_of "$name")"; else echo "$name does not run"; fi
    done
    running slurmctld || return 1
    echo "folder $FOLDER"
    sinfo
    squeue
}

case ${1:-} in
    start) start ;;
    stop) stop "${2:-}" ;;
    status) status ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

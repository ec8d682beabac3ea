#!/usr/bin/env bash
# A Slurm cluster of one machine for the tests: Debian's slurmctld, slurmd and munge, as root,
# without cgroups and without accounting.
#   cluster.sh up FOLDER     starts one; SLURM_CONF=FOLDER/slurm.conf reaches it.
#   cluster.sh down FOLDER   cancels its jobs and ends it.
# It claims eight cores, whatever the machine has, and allows arrays of at most three tasks.
set -euo pipefail
verb=$1 run=$2
export SLURM_CONF="$run/slurm.conf"

install_packages() {
    command -v slurmctld >/dev/null && command -v slurmd >/dev/null &&
        command -v sbatch >/dev/null && command -v munged >/dev/null && return
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        slurmctld slurmd slurm-client munge >/dev/null
}

start_munge() {
    if [ ! -f /etc/munge/munge.key ]; then
        dd if=/dev/urandom bs=1 count=1024 of=/etc/munge/munge.key 2>/dev/null
        chown munge: /etc/munge/munge.key
        chmod 400 /etc/munge/munge.key
    fi
    install -d -o munge -g munge -m 755 /run/munge
    pgrep -x munged >/dev/null ||
        setsid runuser -u munge -- /usr/sbin/munged >/dev/null 2>&1 </dev/null
}

configure() {
    local node
    node=$(hostname -s)
    mkdir -p "$run"/{spool,state,log}
    cat >"$SLURM_CONF" <<CONF
ClusterName=toolkit
SlurmctldHost=$node(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$run/state
SlurmdSpoolDir=$run/spool
SlurmctldPidFile=$run/slurmctld.pid
SlurmdPidFile=$run/slurmd.pid
SlurmctldLogFile=$run/log/slurmctld.log
SlurmdLogFile=$run/log/slurmd.log
SlurmctldPort=26827
SlurmdPort=26828
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MaxArraySize=3
ReturnToService=2
KillWait=2
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=$node NodeAddr=127.0.0.1 CPUs=8 RealMemory=2000 State=UNKNOWN
PartitionName=debug Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
}

up() {
    install_packages
    start_munge
    configure
    slurmctld -c </dev/null
    slurmd -c </dev/null
    for _ in $(seq 100); do
        sinfo --noheader --format=%T 2>/dev/null | grep -q '^idle' && return
        sleep 0.2
    done
    tail "$run"/log/*.log >&2
    exit 1
}

down() {
    scancel --me 2>/dev/null || true
    for daemon in slurmd slurmctld; do
        kill "$(cat "$run/$daemon.pid")" 2>/dev/null || true
    done
}

"$verb"

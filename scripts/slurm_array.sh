#!/usr/bin/env bash
# An experiment on a SLURM cluster: a job array of one task a run, and after it a job that reports.
set -euo pipefail

usage='usage: scripts/slurm_array.sh [SBATCH_OPTION...] -- COMMAND...

SBATCH_OPTION  what each run gets: --partition=gpu --gpus=1 --cpus-per-task=8 --time=04:00:00
COMMAND        an experiment: python -m experiments.degradation --dataset=digits --workdir=DIR

AT_ONCE=N      runs at a time, at most; default 16
LOGS=DIR       where they write what they print; default runs/slurm

Finished runs are not submitted: the same line again submits what is missing.'

fail() {
    echo "error: $*" >&2
    exit 1
}

# The numbers of the runs that are not finished, separated by commas; from --list on stdin.
unfinished() {
    awk '$1 ~ /^[0-9]+$/ && !/ finished  / { print $1 }' | paste -sd, -
}

case "${1:-}" in
    -h | --help) echo "$usage"; exit 0 ;;
    task) # of the array, with the command behind it: one run
        shift
        # srun does not take this over from sbatch by itself, and would give the run one core.
        [ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
        exec srun "$@" --run="$SLURM_ARRAY_TASK_ID"
        ;;
    report) # the job after the array: the same command alone, which would train what is missing
        shift
        runs=$("$@" --list)
        missing=$(unfinished <<<"$runs")
        [ -z "$missing" ] || fail \
            "no report, for these runs are not finished: $missing; submit the same again"
        exec "$@"
        ;;
esac

options=(--job-name=sweep --open-mode=append --requeue --signal=TERM@120)
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    options+=("$1")
    shift
done
if [ $# -lt 2 ]; then
    echo "$usage" >&2
    exit 2
fi
shift
command -v sbatch >/dev/null || fail "there is no sbatch here; run this where jobs are submitted"
runs=$("$@" --list)
[[ $runs =~ ^\ *[0-9]+\  ]] || fail "'$* --list' prints no runs"

logs=${LOGS:-runs/slurm}
mkdir -p "$logs" # sbatch makes no folders, and a job without its log fails without a word
missing=$(unfinished <<<"$runs")
after=()
if [ -n "$missing" ]; then
    array=$(sbatch --parsable --output="$logs/%A_%a.log" "${options[@]}" \
        --array="$missing%${AT_ONCE:-16}" "$0" task "$@")
    array=${array%%;*} # a cluster's name may follow
    echo "job $array: runs $missing, at most ${AT_ONCE:-16} at a time; $logs/${array}_RUN.log"
    after=(--dependency="afterany:$array")
else
    echo "every run is finished"
fi
report=$(sbatch --parsable --output="$logs/%j_report.log" "${options[@]}" \
    ${after[@]+"${after[@]}"} "$0" report "$@")
echo "job ${report%%;*}: the report, after them; $logs/${report%%;*}_report.log"

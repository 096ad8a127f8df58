#!/usr/bin/env bash
# Run an experiment on a SLURM cluster: a job array with one task for each run, then a report job.
set -euo pipefail

usage='usage: scripts/slurm_array.sh [SBATCH_OPTION...] -- COMMAND...

SBATCH_OPTION  resources of each run, such as
               --partition=gpu --gpus=1 --cpus-per-task=8 --time=04:00:00
COMMAND        an experiment, such as
               python -m experiments.degradation --dataset=digits --workdir=DIR

AT_ONCE=N      the largest number of runs at a time; default 16
LOGS=DIR       the folder for the output of the runs; default runs/slurm

Finished runs are not submitted. Give the same line again to submit the missing runs.'

fail() {
    echo "error: $*" >&2
    exit 1
}

# Read the output of --list from stdin and print the numbers of the runs to do, with commas. A run
# that diverged would diverge again; runs that share a folder are one run.
unfinished() {
    awk '$1 ~ /^[0-9]+$/ && !/ (finished|diverged)  / && !seen[$NF]++ { print $1 }' | paste -sd, -
}

case "${1:-}" in
    -h | --help) echo "$usage"; exit 0 ;;
    task) # SLURM starts this form for each task of the array: do one run of the command
        shift
        # srun ignores sbatch's --cpus-per-task and would give the run a single core.
        [ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
        exec srun "$@" --run="$SLURM_ARRAY_TASK_ID"
        ;;
    report) # SLURM starts this form after the array: the command alone, which reports
        # The command would train missing runs. Therefore refuse if runs are missing.
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
command -v sbatch >/dev/null ||
    fail "there is no sbatch here; run this script on a machine that can submit jobs"
runs=$("$@" --list)
[[ $runs =~ ^\ *[0-9]+\  ]] || fail "'$* --list' prints no runs"

logs=${LOGS:-runs/slurm}
mkdir -p "$logs" # sbatch makes no folders, and a job that cannot write its log fails silently
missing=$(unfinished <<<"$runs")
after=()
if [ -n "$missing" ]; then
    array=$(sbatch --parsable --output="$logs/%A_%a.log" "${options[@]}" \
        --array="$missing%${AT_ONCE:-16}" "$0" task "$@")
    array=${array%%;*} # the name of a cluster may follow the job's number
    echo "job $array: runs $missing, at most ${AT_ONCE:-16} at a time; $logs/${array}_RUN.log"
    after=(--dependency="afterany:$array")
else
    echo "every run is finished"
fi
report=$(sbatch --parsable --output="$logs/%j_report.log" "${options[@]}" \
    ${after[@]+"${after[@]}"} "$0" report "$@")
echo "job ${report%%;*}: the report, after all runs; $logs/${report%%;*}_report.log"

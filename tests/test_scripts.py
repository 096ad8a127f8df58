"""The scripts for a cluster and for TPU slices, with an sbatch and a gcloud that take notes."""

import importlib
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SLURM, TPU = "scripts/slurm_array.sh", "scripts/tpu_slices.sh"

# An experiment of three runs, of which the middle one is finished; --run=I finishes run I.
EXPERIMENT = """#!/usr/bin/env bash
printf '%s\\n' "$*" >> "$STATE/calls"
for word; do
    case $word in
        --list)
            for run in 0 1 2; do
                state="10/20"; [ ! -e "$STATE/done-$run" ] || state=finished
                [ ! -e "$STATE/diverged-$run" ] || state=diverged
                printf '%4d  plain-8  seed 0  %12s  %s\\n' $run "$state" "$WORKDIR/run-$run"
            done
            [ -z "${SHARED:-}" ] ||
                printf '%4d  again    seed 0  %12s  %s\\n' 3 "$state" "$WORKDIR/run-2"
            exit ;;
        --run=*) touch "$STATE/done-${word#--run=}"; exit ;;
    esac
done
echo "the report"
"""
# Each program notes its words in one quoted line, written at once: several may run together.
NOTE = '#!/usr/bin/env bash\nprintf "%s\\n" "$(printf "%q " "$@")" >> "$STATE/{name}"\n'
SBATCH = NOTE.format(name="sbatch") + 'echo "$((40 + $(wc -l < "$STATE/sbatch")));cluster"\n'
SRUN = NOTE.format(name="srun") + 'exec "$@"\n'
GCLOUD = (
    NOTE.format(name="gcloud")
    + """
case "$*" in
    *create*) exit "${TAKEN:-0}" ;;
    *describe*)
        states=(WAITING_FOR_RESOURCES PROVISIONING ${LAST_STATE:-ACTIVE})
        echo x >> "$STATE/asked-$5"
        asked=$(wc -l < "$STATE/asked-$5")
        echo "${states[$((asked < 3 ? asked - 1 : 2))]}" ;;
    *--run=*)
        words=$*; run=${words##*--run=}; run=${run%% *}
        [ -z "${HANG:-}" ] || { : > "$STATE/hangs-$run"; exec sleep 300; }
        [ "$run" = "${BROKEN:-none}" ] || touch "$STATE/done-$run" ;;
esac
"""
)

GIT = NOTE.format(name="git") + '[ "$1" != diff ] || exit "${CHANGES:-0}"\n'


@pytest.fixture
def machine(tmp_path):
    """A folder of fake programs, and what calls a script with them.

    If the tests run under nohup or cron, SIGINT is ignored, and shells would inherit that. A signal
    that this process handles has its default effect in the programs that it starts.
    """
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    programs, state = tmp_path / "programs", tmp_path / "state"
    programs.mkdir()
    state.mkdir()
    fakes = {"experiment": EXPERIMENT, "sbatch": SBATCH, "srun": SRUN, "gcloud": GCLOUD}
    fakes["git"] = GIT
    for name, text in fakes.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "STATE": str(state),
        "WORKDIR": "runs/none",
        "LOGS": str(tmp_path / "logs"),
        "POLL_SECONDS": "0",
    }
    (state / "done-1").touch()
    yield Machine(state, environment)
    signal.signal(signal.SIGINT, handler)


class Machine:
    def __init__(self, state, environment):
        self.state, self.environment = state, environment

    def start(self, script, *words, **environment):
        return subprocess.Popen(
            (ROOT / script, *words),
            cwd=ROOT,
            env=os.environ | self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, script, *words, **environment):
        """Return the status, and what the script printed on stdout and stderr."""
        process = self.start(script, *words, **environment)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def calls(self, program):
        """Return the words of each call of a fake program."""
        path = self.state / program
        return (
            [shlex.split(line) for line in path.read_text("utf-8").splitlines()]
            if path.exists()
            else []
        )


@pytest.mark.parametrize(
    "script,words",
    [
        (SLURM, ()),
        (SLURM, ("--time=1",)),
        (SLURM, ("--",)),
        (SLURM, ("experiment", "--workdir=x")),
        (TPU, ()),
        (TPU, ("sweep",)),
        (TPU, ("run", "name")),
        (TPU, ("create", "name", "more")),
        (TPU, ("request", "name")),
    ],
)
def test_wrong_arguments_get_the_usage_and_status_2(machine, script, words):
    status, out, err = machine.run(script, *words)
    assert status == 2 and not out and err.startswith(f"usage: {script}")
    assert not machine.calls("sbatch") and not machine.calls("gcloud")
    status, out, err = machine.run(script, "--help")
    assert status == 0 and not err and out.startswith(f"usage: {script}")


@pytest.mark.parametrize("script,words", [(SLURM, ("--",)), (TPU, ("sweep",))])
def test_a_command_that_has_no_runs_or_is_refused_submits_nothing(machine, script, words):
    status, _, err = machine.run(script, *words, "echo", "hello")
    assert (status, err) == (1, "error: 'echo hello --list' prints no runs\n")
    status, _, err = machine.run(script, *words, "bash", "-c", "echo error: no >&2; exit 2")
    assert (status, err) == (2, "error: no\n")
    assert not machine.calls("sbatch") and not machine.calls("gcloud")


@pytest.mark.parametrize(
    "script,words,name", [(SLURM, ("--",), "sbatch"), (TPU, ("sweep",), "gcloud")]
)
def test_a_machine_without_the_scheduler_is_told_so(machine, tmp_path, script, words, name):
    few = tmp_path / "few"
    few.mkdir()
    for program in ("bash", "env", "mkdir"):
        (few / program).symlink_to(f"/bin/{program}")
    status, _, err = machine.run(script, *words, "experiment", PATH=str(few))
    assert status == 1 and err.startswith(f"error: there is no {name} here")
    assert err.count("\n") == 1


def test_an_array_has_the_runs_that_are_missing_and_a_report_waits_for_it(machine):
    command = ["experiment", "--note=two words", "--workdir=x"]
    words = ("--partition=gpu", "--time=5", "--", *command)
    status, out, err = machine.run(SLURM, *words, AT_ONCE="2")
    assert status == 0 and not err
    array, report = machine.calls("sbatch")
    assert {"--parsable", "--partition=gpu", "--time=5", "--requeue", "--signal=TERM@120"} <= {
        *array
    }
    assert "--array=0,2%2" in array and "--dependency=afterany:41" in report
    assert not any(word.startswith("--array") for word in report)
    assert array[-4:] == ["task", *command] and report[-4:] == ["report", *command]
    assert "job 41: runs 0,2, at most 2 at a time" in out and "job 42: the report" in out


def test_when_every_run_is_finished_only_the_report_is_submitted(machine):
    for run in (0, 2):
        (machine.state / f"done-{run}").touch()
    status, out, _ = machine.run(SLURM, "--", "experiment")
    assert status == 0 and out.startswith("every run is finished")
    (report,) = machine.calls("sbatch")
    assert report[-2:] == ["report", "experiment"] and "--dependency" not in str(report)


def test_what_diverged_is_not_submitted_again_and_runs_of_one_folder_are_one(machine):
    (machine.state / "diverged-0").touch()
    status, out, err = machine.run(SLURM, "--", "experiment", SHARED="1")
    assert status == 0 and "runs 2, at most" in out, err
    status, out, err = machine.run(TPU, "sweep", "experiment", SHARED="1", TPU_NAME="s", **SLICE)
    assert status == 0 and out.endswith("the report\n"), err
    assert {call[4] for call in machine.calls("gcloud") if call[3] == "create"} == {"s-2"}


def test_a_task_is_one_run_by_srun_and_the_report_trains_nothing(machine):
    status, out, err = machine.run(SLURM, "report", "experiment", "--a")
    assert (status, out) == (1, "")
    assert err == "error: no report, for these runs are not finished: 0,2; submit the same again\n"

    for run in ("0", "2"):
        status, _, err = machine.run(SLURM, "task", "experiment", "--a", SLURM_ARRAY_TASK_ID=run)
        assert status == 0, err
    assert machine.calls("srun") == [["experiment", "--a", f"--run={run}"] for run in (0, 2)]

    status, out, _ = machine.run(SLURM, "report", "experiment", "--a")
    assert (status, out) == (0, "the report\n")
    assert machine.calls("calls")[-1] == ["--a"]


SLICE = {"TPU_TYPE": "v5litepod-8", "TPU_RUNTIME": "v2-alpha-tpuv5-lite"}
QUEUED = ["compute", "tpus", "queued-resources"]
SSH = ["compute", "tpus", "tpu-vm", "ssh"]


def test_a_slice_is_asked_for_waited_for_and_given_back(machine):
    status, _, err = machine.run(TPU, "create", "one", TPU_OPTIONS="--spot --labels=a=b", **SLICE)
    assert status == 0, err
    create, *asked = machine.calls("gcloud")
    kind = ["--accelerator-type=v5litepod-8", "--runtime-version=v2-alpha-tpuv5-lite"]
    further = ["--spot", "--labels=a=b"]
    assert create == [*QUEUED, "create", "one", "--node-id=one", *kind, *further]
    assert asked == 3 * [[*QUEUED, "describe", "one", "--format=value(state.state)"]]
    assert machine.run(TPU, "delete", "one")[0] == 0
    assert machine.calls("gcloud")[-1] == [*QUEUED, "delete", "one", "--force", "--quiet"]


def test_a_slice_that_does_not_come_is_an_error(machine):
    assert machine.run(TPU, "create", "one")[2].startswith("error: set TPU_TYPE")
    status, _, err = machine.run(TPU, "sweep", "experiment")
    assert status == 1 and err.startswith("error: set TPU_TYPE") and not machine.calls("gcloud")
    status, _, err = machine.run(TPU, "create", "one", LAST_STATE="FAILED", **SLICE)
    assert (status, err) == (1, "error: the request for one is FAILED\n")


def test_a_slice_gets_the_last_commit_and_no_changes_that_are_in_none(machine):
    status, _, err = machine.run(TPU, "setup", "one", CHANGES="1")
    assert status == 1 and err.startswith("error: commit your changes first")
    assert not machine.calls("gcloud")
    status, _, err = machine.run(TPU, "setup", "one")
    assert status == 0, err
    bundle = machine.calls("git")[-1][3]
    scp, ssh = machine.calls("gcloud")
    assert scp == ["compute", "tpus", "tpu-vm", "scp", bundle, "one:", "--worker=all"]
    assert ssh[:-1] == [*SSH, "one", "--worker=all"]
    assert subprocess.run(("bash", "-n", "-c", ssh[-1].removeprefix("--command="))).returncode == 0
    assert not Path(bundle).parent.exists()


def test_a_command_runs_on_all_workers_word_for_word(machine):
    status, _, err = machine.run(
        TPU, "run", "one", "python", "-m", "x", "--a=two words", "--b='$c'"
    )
    assert status == 0, err
    ((*ssh, command),) = machine.calls("gcloud")
    assert ssh == [*SSH, "one", "--worker=all"]
    start, _, rest = command.partition(" exec ")
    assert start == "--command=cd resnet_jax && . .venv/bin/activate &&"
    assert shlex.split(rest) == ["python", "-m", "x", "--a=two words", "--b='$c'"]


def test_each_missing_run_has_a_slice_of_its_own_which_is_given_back(machine, tmp_path):
    folder = f"../{tmp_path.name}/none"  # relative, so it is copied
    status, out, err = machine.run(
        TPU, "sweep", "experiment", "--a=two words", WORKDIR=folder, TPU_NAME="s", **SLICE
    )
    assert status == 0 and out.endswith("the report\n"), err
    assert {line for line in out.splitlines()[:-1]} == {
        f"run {run}: slice s-{run}, {tmp_path}/logs/s-{run}.log" for run in (0, 2)
    }
    calls = machine.calls("gcloud")
    for run in (0, 2):
        name = f"s-{run}"
        mine = [" ".join(c[2:5]) for c in calls if name in c or f"{name}:" in str(c)]
        assert mine[0] == f"queued-resources create {name}"
        assert mine[-1] == f"queued-resources delete {name}"
        (trained,) = (c for c in calls if c[:5] == [*SSH, name] and "--run" in c[-1])
        assert shlex.split(trained[-1])[-3:] == ["experiment", "--a=two words", f"--run={run}"]
        fetched = ["--recurse", f"{name}:resnet_jax/{folder}/run-{run}", folder, "--worker=0"]
        assert ["compute", "tpus", "tpu-vm", "scp", *fetched] in calls
    assert not any("s-1" in str(call) for call in calls)


def test_a_run_that_fails_on_its_slice_is_named_and_its_slice_is_given_back(machine):
    workdir = "gs://bucket/sweep"
    status, out, err = machine.run(
        TPU, "sweep", "experiment", WORKDIR=workdir, BROKEN="2", TPU_NAME="s", **SLICE
    )
    assert status == 1 and "the report" not in out
    assert err == "error: no report, for these runs are not finished: 2; the same line goes on\n"
    calls = machine.calls("gcloud")
    deleted = {call[4] for call in calls if call[3] == "delete"}
    assert deleted == {"s-0", "s-2"}
    assert not any("scp" in call and "--recurse" in call for call in calls)  # the bucket has it


def until(happened):
    for _ in range(600):
        if happened():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen in 30 seconds")


def test_a_slice_of_that_name_that_was_there_before_is_left_alone(machine):
    status, _, err = machine.run(TPU, "sweep", "experiment", TAKEN="1", **SLICE)
    assert status == 1 and "not finished: 0,2" in err
    assert {call[3] for call in machine.calls("gcloud")} == {"create"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sweep_that_is_stopped_gives_its_slices_back(machine, number):
    process = machine.start(TPU, "sweep", "experiment", HANG="1", TPU_NAME="s", **SLICE)
    until(lambda: all((machine.state / f"hangs-{run}").exists() for run in (0, 2)))
    os.killpg(process.pid, number)
    process.communicate(timeout=30)
    until(lambda: len([c for c in machine.calls("gcloud") if c[3] == "delete"]) == 2)


def commands_of(page):
    """Return the commands in a page's indented blocks, each on one line."""
    text = "\n".join(line[4:] for line in page.splitlines() if line.startswith("    "))
    return text.replace("\\\n", " ").splitlines()


def test_every_command_of_the_page_is_one(machine, tmp_path, capsys):
    commands = commands_of((ROOT / "docs" / "sweeps.md").read_text("utf-8"))
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    (tmp_path / "programs" / "python").symlink_to("experiment")
    ours = [c for c in commands if "scripts/" in c or c.startswith("gcloud")]
    experiments = {re.sub(" --(list|jobs=2)", "", c) for c in commands if c.startswith("python")}
    assert {word for c in ours for word in c.split() if word.startswith("scripts/")} == {SLURM, TPU}
    for command in ours:
        done = subprocess.run(
            ("bash", "-euc", command),
            cwd=tmp_path,
            env=os.environ | machine.environment | SLICE,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, (command, done.stderr)
    assert experiments
    for command in experiments:
        python, flag, module, *words = shlex.split(command)
        assert (python, flag) == ("python", "-m")
        importlib.import_module(module).main([*words, "--jobs=2", "--list"])
        assert capsys.readouterr().out.startswith("   0  ")

"""All claims in one directory: what is done, what is repeated, and what the index says of it."""

import io
import json
import os
import signal
from pathlib import Path

import pytest
from PIL import Image

from experiments import all as every
from experiments import index, jobs, listing, untested
from experiments.claim import Claim, Statement, Verdict
from resnet_jax.analysis.statistics import Test

PNG = io.BytesIO()
Image.new("RGB", (4, 3), "white").save(PNG, "PNG")
CLEAR = Test(True, 0.6, (0.5, 0.7), 1e-4, 5, 0.9999)
CLOSE = Test(True, 0.2, (0.01, 0.4), 0.008, 5, 0.992)
KEYS = {"name", "kind", "verdict", "effect", "interval", "p", "n", "says", "report"}


def plan(options):
    return [options.run("resnet-8", ("resnet", 8), seed) for seed in options.seeds(1)]


def claim(name, kind="trained", further=(), rule="r > 0", plan=plan):
    says = f"The sentence of {name}."
    judge = lambda rows: Verdict(None, "")
    more = [Statement(other, f"{other}, too.", "ours", rule, judge) for other in further]
    return Claim(name, says, "ours", rule, plan, judge, kind, further=more)


@pytest.fixture
def claims(monkeypatch):
    """The claims that there are: a test may add and replace some."""
    claims = {
        "depth": claim("depth", further=["depth_of_the_loss"]),
        "signal": claim("signal", "exact"),
        "start": claim("start", "init"),
    }
    monkeypatch.setattr(listing, "claims", lambda: claims)
    monkeypatch.setattr(every.provenance, "versions", lambda: {"jax": "1", "revision": ""})
    return claims


@pytest.fixture
def processes(monkeypatch, claims):
    """Replace the processes of claims; return what a test changes: `started`, `tests`, `errors`.

    A process writes the results of a finished claim, whose statements have the `tests` by name.
    """

    class Processes:
        started: list[list[str]] = []
        tests = {"depth": CLEAR, "depth_of_the_loss": CLOSE, "start": CLEAR}
        errors: dict[str, str] = {}

    own = Processes()
    own.started, own.errors = [], {}

    def process(words, show):
        own.started.append(list(words))
        name = words[1].removeprefix("experiments.")
        workdir = Path(words[2].removeprefix("--workdir="))
        show(f"{name} is at work")
        if error := own.errors.get(name):
            if isinstance(error, BaseException):
                raise error
            return error
        write_results(claims[name], workdir, own.tests)
        return ""

    monkeypatch.setattr(every, "process", process)
    return own


def write_results(claim, workdir, tests):
    statements = []
    for statement in claim.statements:
        test = tests.get(statement.name)
        verdict = Verdict(test.holds, "So it was.", test) if test else Verdict(True, "It is equal.")
        told = {"rule": statement.rule} | verdict.told()
        common = {"name": statement.name, "claim": statement.says, "source": statement.source}
        statements.append(common | {"verdict": told, "control": None, "rule_changed": False})
    row = {"model": "resnet-8", "workdir": f"{workdir.parent}/runs/digits-resnet-8-A-1-seed0"}
    content = {"name": claim.name, "dataset": "digits", "statements": statements, "runs": [row]}
    content["versions"] = {"hardware": "2 cores", "revision of the runs": "abc"}
    (workdir / "results.json").write_text(json.dumps(content))
    (workdir / "figure.png").write_bytes(PNG.getvalue())


@pytest.fixture
def do(tmp_path, processes):
    """do(words) does all claims in one directory, and returns the content of its index.json."""

    def do(*words):
        processes.started.clear()
        every.main([f"--workdir={tmp_path}/all", *words])
        return json.loads((tmp_path / "all" / "index.json").read_text("utf-8"))

    return do


def entries(content):
    return {row["name"]: row for row in content["claims"]}


def names(processes):
    return [words[1].removeprefix("experiments.") for words in processes.started]


def test_a_line_a_statement_its_name_first(claims, capsys):
    every.main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["depth", "trained"],
        ["depth_of_the_loss", "trained"],
        ["signal", "exact"],
        ["start", "init"],
    ]
    assert lines[0].endswith("  The sentence of depth.")
    every.main(["--list", "--kind=exact"])
    assert capsys.readouterr().out.split()[0] == "signal"


def test_every_claim_is_a_process_with_its_folder_and_the_shared_runs(do, processes, tmp_path):
    content = do("--jobs=2", "--seeds=5", "--full")
    at = tmp_path / "all"
    flags = ["--seeds=5", "--full", "--jobs=2"]
    assert processes.started == [
        ["-m", f"experiments.{name}", f"--workdir={at / name}", f"--runs={at / 'runs'}", *flags]
        for name in ("depth", "signal", "start")
    ]
    assert "depth is at work" in (at / "depth" / "log.txt").read_text("utf-8")
    rows = entries(content)
    assert list(rows) == ["depth", "depth_of_the_loss", "signal", "start"]
    assert all(set(row) >= KEYS for row in rows.values())
    depth, signal_row = rows["depth"], rows["signal"]
    assert (depth["verdict"], depth["kind"], depth["n"]) == (True, "trained", 5)
    assert (depth["effect"], depth["interval"], depth["p"]) == (0.6, [0.5, 0.7], 1e-4)
    assert (depth["says"], depth["report"]) == ("So it was.", "depth/report.html")
    assert (depth["log"], depth["figure"]) == ("depth/log.txt", "depth/figure.png")
    assert depth["runs"] == ["digits-resnet-8-A-1-seed0"]
    assert (depth["hardware"], depth["revision"], depth["dataset"]) == ("2 cores", "abc", "digits")
    assert depth["options"] == ["--seeds=5", "--full"] and depth["error"] == ""
    exact = [signal_row[key] for key in ("effect", "interval", "p", "n", "p_adjusted")]
    assert (signal_row["verdict"], exact) == (True, [None] * 5)
    assert content["missing"] == [] and content["hardware"] == "2 cores"
    assert {"command", "date", "versions", "untested", "tests", "level"} <= set(content)


def test_what_is_complete_is_not_repeated_and_what_has_changed_is(do, processes, claims, tmp_path):
    do()
    assert len(processes.started) == 3
    do("--jobs=2")
    assert not processes.started
    do("--again", "--only=signal")
    assert names(processes) == ["signal"]
    do("--steps=9", "--only=signal,start")
    assert names(processes) == ["signal", "start"]
    do()
    assert names(processes) == ["signal", "start"]
    claims["signal"] = claim("signal", "exact", rule="r > 1")
    do()
    assert names(processes) == ["signal"]
    claims["depth"] = claim("depth", further=["depth_of_the_loss"], plan=lambda o: plan(o)[:0])
    do()
    assert names(processes) == ["depth"]
    (tmp_path / "all" / "start" / "results.json").write_text("{}")
    do()
    assert names(processes) == ["start"]


def test_results_by_another_rule_are_missing_from_the_index(do, claims):
    do()
    claims["signal"] = claim("signal", "exact", rule="r > 1")
    content = do("--only=start")
    assert content["missing"] == ["signal"] and "signal" not in entries(content)


def test_a_claim_that_fails_stops_no_other(do, processes, tmp_path, capsys):
    processes.errors["depth"] = "the training loss is nan at step 12"
    with pytest.raises(SystemExit) as end:
        do()
    assert end.value.code == 1
    assert "1 of 3 claims failed: depth" in capsys.readouterr().err
    assert names(processes) == ["depth", "signal", "start"]
    rows = entries(json.loads((tmp_path / "all" / "index.json").read_text("utf-8")))
    failed = rows["depth_of_the_loss"]
    assert set(failed) == set(rows["start"]) and failed["verdict"] is None
    assert failed["error"] == "the training loss is nan at step 12"
    assert failed["says"] == "The command failed, so there is no verdict."
    assert rows["start"]["verdict"] is True
    page = (tmp_path / "all" / "index.html").read_text("utf-8")
    assert "Failed to run" in page and "the training loss is nan at step 12" in page

    processes.errors.clear()
    assert entries(do())["depth"]["verdict"] is True
    assert names(processes) == ["depth"]


def test_a_claim_without_results_has_failed(do, processes, monkeypatch, tmp_path):
    monkeypatch.setattr(every, "process", lambda words, show: "")
    with pytest.raises(SystemExit):
        do("--only=signal")
    rows = json.loads((tmp_path / "all" / "index.json").read_text("utf-8"))["claims"]
    assert rows[0]["error"] == "its command wrote no results.json"


def test_what_is_stopped_leaves_an_index_and_goes_on(do, processes, tmp_path):
    processes.errors["signal"] = SystemExit(130)
    with pytest.raises(SystemExit):
        do()
    content = json.loads((tmp_path / "all" / "index.json").read_text("utf-8"))
    assert content["missing"] == ["signal", "start"]
    processes.errors.clear()
    assert do()["missing"] == []
    assert names(processes) == ["signal", "start"]


@pytest.mark.parametrize(
    "words,message",
    [
        (["--only=dept", "--workdir=x"], "'dept' is the name of no claim; nearest: depth"),
        (["--only=", "--workdir=x"], "'' is the name of no claim"),
        (["--only=signal", "--kind=init"], "no claim of --only=signal is of --kind=init"),
        ([], "--workdir is missing"),
        (["--workdir=s3://bucket/x"], "is neither a folder nor gs://"),
        (["--wrokdir=x"], "unknown flag --wrokdir; nearest: --workdir"),
        (["--seeds=0", "--workdir=x"], "0 is less than 1"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    claims, tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        every.main(words)
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_statement_names_its_claim(claims):
    assert listing.named(["depth_of_the_loss", "depth", "start"], claims) == ["depth", "start"]


def done(**tests):
    """Return a finished claim for each test; the statement has the name of the test."""
    result = []
    for name, test in tests.items():
        own = claim(name)
        verdict = {"rule": "r", "holds": test.holds, "says": "So.", **test._asdict()}
        statement = {"name": name, "claim": "It is.", "source": "ours", "verdict": verdict}
        statement |= {"control": None, "rule_changed": False}
        result.append(index.Done(own, {"dataset": "digits", "statements": [statement]}))
    return result


def test_verdicts_are_corrected_together_and_say_so():
    alone = index.entries(done(close=CLOSE))[0]
    assert (alone["verdict"], alone["reason"], alone["p_adjusted"]) == (True, "", 0.008)
    refuted = Test(False, -0.6, (-0.7, -0.5), 0.9999, 5, 1e-4)
    few = Test(None, 0.3, None, 1.0, 2, 1.0)
    rows = index.entries(done(close=CLOSE, no=refuted, few=few, unclear=CLEAR._replace(p=0.3)))
    close, no, two, _ = rows
    assert (close["verdict"], close["uncorrected"]) == (None, True)
    assert close["reason"] == (
        "By its own test it holds (p = 0.008). Among the 3 tests of this index that counts as "
        "p = 0.016 (Holm), not below 0.01."
    )
    assert (no["verdict"], no["reason"], no["p_adjusted"]) == (False, "", pytest.approx(3e-4))
    assert (two["verdict"], two["p_adjusted"]) == (None, 1.0)
    assert two["reason"] == "2 seeds decide nothing; a test needs 3 or more."
    assert index.counted(rows) == 3


def test_a_statement_waits_until_all_of_its_commands_are_there():
    waits = next(each for each in untested.UNTESTED if len(each.claims) == 2)
    told = lambda claims: {row["says"]: row for row in untested.rows(claims)}
    assert told([waits.claims[0]])[waits.says]["not_yet"] is True
    assert waits.says not in told(waits.claims)
    assert sum(not row["not_yet"] for row in untested.rows(())) >= 5


def test_ctrl_c_stops_the_process_of_a_claim(capsys):
    script = "import os, signal, time; print(os.getpid(), flush=True)\n"
    script += "os.kill(os.getppid(), signal.SIGINT); time.sleep(300)"
    seen: list[str] = []
    with pytest.raises(SystemExit) as stopped:
        jobs.complete(jobs.do(["-c", script], {}, seen.append), every.STOPPED)
    assert stopped.value.code == 128 + signal.SIGINT
    assert capsys.readouterr().err == "error: stopped; the same command goes on\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int(seen[0]), 0)

"""A claim is one file: everything else is the frame's, from the command line to the report."""

import json

import jax
import pytest

from experiments import __main__ as index
from experiments import claim, dilution
from experiments.claim import Claim, Verdict
from resnet_jax.analysis.statistics import Test, opposite

NARROW, WIDE = (0.400, 0.405, 0.395), (0.100, 0.105, 0.095)


def by_width(narrow, wide):
    """Return how runs end: each seed of a narrow and of a wide network at its error."""
    return lambda config: {4: narrow, 16: wide}[config.model.width][config.seed]


def content(workdir):
    return json.loads((workdir / "results.json").read_text("utf-8"))


def test_a_small_file_is_a_whole_experiment(small, training, tmp_path, capsys):
    words = [f"--workdir={tmp_path}/runs", "--steps=40"]
    training.ends = by_width(NARROW, WIDE)

    small.main([*words, "--list"])
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in listed] == 3 * ["width-4", "width-16"]
    assert not (tmp_path / "runs").exists()

    small.main([*words, "--run=1"])
    assert [str(path) for path in (tmp_path / "runs").iterdir()] == [listed[1].split()[-1]]

    small.main(words)
    said = capsys.readouterr().out
    assert "[2/6]" not in said and "[4/6] width-16, seed 1" in said
    assert "holds: 30.0% better with 16 channels than with 4." in said
    assert "effect 0.3 (98 % interval 0.2" in said and "n = 3" in said
    assert "control (equal networks): no" in said
    files = {path.name for path in (tmp_path / "runs").iterdir() if path.is_file()}
    assert files == {"results.json", "table.md", "figure.png", "report.html"}
    results = content(tmp_path / "runs")
    verdict = results["verdict"]
    assert verdict["holds"] is True and verdict["p"] < 0.01 and verdict["n"] == 3
    assert verdict["interval"][0] < verdict["effect"] < verdict["interval"][1]
    assert results["chosen"] == {"width-4": ["model.width=4"], "width-16": ["model.width=16"]}
    assert [row["n"] for row in results["summary"]] == [3, 3]
    assert results["runs"][0]["changes"] == ["steps=40", "model.width=4"]


def test_a_run_that_diverged_is_in_the_report_and_is_not_trained_again(
    small, training, undrawn, tmp_path, capsys
):
    words = [f"--workdir={tmp_path}/runs", "--steps=40"]
    wide = by_width(NARROW, WIDE)
    training.ends = lambda config: (
        training.diverge(config) if (config.model.width, config.seed) == (4, 1) else wide(config)
    )
    small.main(words)
    assert "width-4, seed 1 diverged: the training loss is nan" in capsys.readouterr().out
    results = content(tmp_path / "runs")
    assert [row["train_error"] for row in results["runs"] if row["model"] == "width-4"] == [
        0.400, 0.900, 0.395,
    ]  # fmt: skip
    assert results["summary"][0]["note"] == "diverged (1 of 3)"
    assert results["verdict"]["holds"] is None, "the seed at chance is a part of the spread"
    assert results["verdict"]["effect"] == pytest.approx(0.465)
    assert "diverged (1 of 3)" in (tmp_path / "runs" / "report.html").read_text("utf-8")
    small.main(words)
    assert len(training.trained) == 6
    capsys.readouterr()
    small.main([*words, "--config.nonfinite=skip", "--list"])
    assert " diverged  " not in capsys.readouterr().out, "these are other runs"


def test_claims_share_runs_and_each_reports_in_its_own_folder(small, training, undrawn, tmp_path):
    for name in ("one", "two"):
        folders = [f"--workdir={tmp_path}/{name}", f"--runs={tmp_path}/runs"]
        small.main([*folders, "--steps=40", "--seeds=1"])
        assert (tmp_path / name / "report.html").exists()
    assert len(training.trained) == len(list((tmp_path / "runs").iterdir())) == 2
    assert content(tmp_path / "one")["runs"] == content(tmp_path / "two")["runs"]


def test_a_rule_that_says_yes_to_its_control_shows_nothing(small):
    rows = [
        {"model": f"width-{width}", "depth": 8, "seed": seed, "train_error": error}
        for width, errors in ((4, NARROW), (16, WIDE))
        for seed, error in enumerate(errors)
    ]
    (own,) = small.CLAIM.statements
    told = claim.judged(own, rows, [])
    assert (told["verdict"]["holds"], told["control"]["holds"]) == (True, False)
    assert told["control"]["against"] == "equal networks"
    careless = own._replace(judge=lambda rows: Verdict(True, "It is so."))
    told = claim.judged(careless, rows, [])
    assert (told["verdict"]["holds"], told["control"]["holds"]) == (None, True)
    assert told["verdict"]["says"].endswith("But the rule also says yes to its control.")
    told = claim.judged(careless._replace(control=None), rows, [])
    assert (told["verdict"]["holds"], told["control"]) == (True, None)
    never = own._replace(judge=lambda rows: Verdict(False, "It is not."))
    assert claim.judged(never, rows, [])["verdict"]["holds"] is False


def test_a_rule_that_was_changed_after_its_first_start_or_report_is_marked(
    small, training, undrawn, tmp_path
):
    asked = [f"--workdir={tmp_path}/runs", "--steps=40", "--seeds=1"]
    page = lambda: (tmp_path / "runs" / "report.html").read_text("utf-8")
    changed = small.CLAIM._replace(rule="error(4) - error(16) > 1 point")
    other = small.CLAIM._replace(name="other", rule="error(4) > error(16)")
    changed_other = other._replace(rule="error(4) >= error(16)")
    marks = []
    # The other claim finds runs that began without its rule: its first report fixes the rule.
    for own in (small.CLAIM, changed, other, changed_other):
        claim.command(own)(asked)
        marks.append(content(tmp_path / "runs")["statements"][0]["rule_changed"])
        assert ("Rule changed" in page()) == marks[-1]
    assert marks == [False, True, False, True]
    assert len(training.trained) == 2


def test_too_few_seeds_are_said_before_anything_is_trained(
    small, training, undrawn, tmp_path, capsys
):
    words = [f"--workdir={tmp_path}/runs", "--steps=40", "--seeds=1"]
    warning = "warning: 1 seed of each network cannot decide the claim; give --seeds=3 or more"
    training.ends = lambda config: pytest.fail("it is said too late") if not said() else 0.25
    told = []

    def said():
        told.append(capsys.readouterr().err)
        return warning in "".join(told)

    small.main(words)
    assert content(tmp_path / "runs")["verdict"]["holds"] is None
    capsys.readouterr()
    small.main([*words, "--list"])
    listed = capsys.readouterr()
    assert warning in listed.err and listed.out.startswith("   0  "), "scripts read the list"
    small.main([*words, "--run=0"])
    enough = [words[0], "--steps=40", "--config.replicas=3", "--seeds=3", "--list"]
    small.main(enough)
    claim.command(small.CLAIM._replace(kind="exact"))([*words, "--list"])
    assert capsys.readouterr().err == ""


def test_a_statement_about_several_arms_holds_if_it_holds_of_each():
    test = lambda p: Test(True if p < 0.01 else None, 1.0, (0.5, 1.5), p, 3, 1 - p)
    yes, open_ = (Verdict.of(test(p), f"p = {p}.") for p in (0.001, 0.5))
    no = Verdict.of(opposite(test(0.001)), "no.")
    unknown, exact, wrong = (Verdict(holds, str(holds)) for holds in (None, True, False))
    each = lambda *verdicts: Verdict.of_each(dict(zip("abc", verdicts, strict=False)))
    assert each(yes) is yes
    assert each(yes, yes).holds is True and each(yes, yes).told()["p"] == 0.001
    assert each(yes, yes).says == "[a] p = 0.001. [b] p = 0.001."
    assert each(yes, no).holds is False and each(yes, no).told()["p_opposite"] == 0.002
    assert each(yes, open_).holds is None
    assert each(exact, exact).holds is True and each(exact, wrong).holds is False
    assert each(yes, unknown).holds is None and each(no, unknown).holds is False
    assert each(yes, unknown).test is None, "the index would take the p of the arm for the claim's"
    assert each(exact, yes).holds is True
    assert each() == Verdict(None, "There is nothing to compare.")


@pytest.mark.parametrize(
    "words,message",
    [
        (["--run=6"], "--run=6 is not one of --list's 0 to 5"),
        (["--config.model.width=2"], "--config.model.width is set by the claim"),
        (["--config=configs/reconstruction.py"], "the claim is about task=classification"),
        (["--models=lenet:5"], "model.width is a key of family=resnet"),
        (["--depths=9"], "depth 9 is not 6n+2"),
        (["--seeds=0"], "argument --seeds: 0 is less than 1"),
    ],
)
def test_what_cannot_run_is_one_line_and_writes_nothing(small, tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as end:
        small.main([f"--workdir={tmp_path}/runs", *words])
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_help_has_the_statement_the_rule_the_flags_and_an_example(small, capsys):
    with pytest.raises(SystemExit) as end:
        small.main(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    for part in (
        *(
            "Wider networks fit the digits better.",
            "Rule: error(4) - error(16) > 5 points",
            "--jobs",
        ),
        *("python -m experiments.wider --workdir=runs/wider", "optimizer.learning_rate"),
    ):
        assert part in text


def test_a_claim_measures_columns_of_its_own_and_draws_them(options, finish):
    asked = options(8)
    runs = [
        asked.run("resnet-8", ("resnet", 8), 0),
        asked.run("start", ("resnet", 8), 0, trained=False),
    ]
    finish(runs[0])

    def layers(rows):
        from matplotlib.figure import Figure

        assert [row["layers"] for row in rows] == [8, 8]
        figure = Figure()
        figure.subplots().plot([row["layers"] for row in rows])
        return figure

    own = Claim(
        "count",
        "Networks have layers.",
        "ours",
        "layers > 7",
        plan=lambda options: runs,
        measure=lambda run: [{"layers": run.config.model.depth}],
        judge=lambda rows: Verdict(all(row["layers"] > 7 for row in rows), "They have."),
        columns={"layers": ".1f"},
        figures=(layers,),
    )
    results = claim.conclude(own, asked, runs)
    verdict = {"holds": True, "rule": "layers > 7", "says": "They have."}
    numbers = dict.fromkeys(("effect", "interval", "p", "n", "p_opposite"))
    assert results["verdict"] == verdict | numbers, "nothing was tested over seeds"
    assert [row["layers_mean"] for row in results["summary"]] == [8, 8]
    assert "| 8.0 |" in " ".join((asked.workdir / "table.md").read_text("utf-8").split())
    assert (asked.workdir / "layers.png").read_bytes().startswith(b"\x89PNG")
    assert "<h2>Layers</h2>" in (asked.workdir / "report.html").read_text("utf-8")


def test_a_claim_without_trained_runs_has_no_curves(options):
    asked = options(8)
    run = asked.run("start", ("resnet", 8), 0, trained=False)
    own = Claim(
        "count", "It counts.", "ours", "1 > 0", lambda options: [run],
        measure=lambda run: [{"value": 1.0}],
        judge=lambda rows: Verdict(None, "It is open."),
        columns={"value": ".2f"},
    )  # fmt: skip
    assert claim.conclude(own, asked, [run])["verdict"]["holds"] is None
    assert not (asked.workdir / "figure.png").exists()
    assert "The claim is undecided." in (asked.workdir / "report.html").read_text("utf-8")


def test_every_claim_has_the_name_of_its_file_and_is_listed(capsys):
    claims = index.claims()
    assert "degradation" in claims
    for name, own in claims.items():
        assert own.name == name
    index.main()
    listed = capsys.readouterr().out
    assert all(f"\n{name} " in listed for name in claims)
    assert "experiments.NAME" in listed


def test_processes_meet_before_jax_is_asked_for_devices(small, tmp_path, monkeypatch):
    order = []
    joined = claim.cluster.join
    monkeypatch.setattr(claim.cluster, "join", lambda a: order.append("join") or joined(a))
    monkeypatch.setattr(claim.plan, "check", lambda *_: order.append("check"))
    monkeypatch.setattr(claim.sweep, "execute", lambda *_: order.append("execute"))
    small.main([f"--workdir={tmp_path}/runs", "--run=0"])
    assert order == ["join", "check", "execute"]


def test_a_verdict_names_the_runs_that_diverged_and_nothing_is_said_of_no_rows(small):
    row = {"seed": 0, "depth": 8, "arm": "resnet", "train_error": 0.1}
    rows = [
        row
        | {"model": f"width-{width}", "seed": seed, "note": note, "train_error": error + seed / 1e3}
        for width, note, error in ((4, "diverged", 0.9), (16, None, 0.1))
        for seed in range(3)
    ]
    (statement,) = small.CLAIM.statements
    verdict = claim.judged(statement, rows, [])["verdict"]
    assert verdict["holds"] is True
    assert verdict["says"].endswith("count as networks that learned nothing: width-4 (3).")
    verdict = claim.judged(statement, [], [])["verdict"]
    assert (verdict["holds"], verdict["says"]) == (None, "Nothing was measured.")


def test_a_claim_about_the_start_has_a_run_for_each_seed(tmp_path, capsys):
    with pytest.raises(SystemExit):
        dilution.main([f"--workdir={tmp_path}", "--config.replicas=3", "--seeds=3", "--list"])
    assert "replicas=3: the claim opens the network of each run" in capsys.readouterr().err


@pytest.mark.parametrize(
    "replicas,flags,asked",
    [((5, 5), "", [5]), ((1, 1), "", []), ((4, 5), "", []),
     ((5, 5), "--xla_force_host_platform_device_count=10", [])],
)  # fmt: skip
def test_the_cpu_has_a_device_for_each_replica_unless_xla_flags_divide_it(
    options, monkeypatch, replicas, flags, asked
):
    updates = {}
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setattr(jax.config, "update", updates.__setitem__)
    of = lambda count: options(8, overrides={"replicas": str(count)})
    claim.divide_cpu([of(count).run("resnet-8", ("resnet", 8), 0) for count in replicas])
    assert list(updates.items()) == [("jax_num_cpu_devices", number) for number in asked]


def test_a_process_that_uses_its_cpu_keeps_its_devices(options, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    devices = jax.devices()
    claim.divide_cpu([options(8, overrides={"replicas": "5"}).run("a", ("resnet", 8), 0)])
    assert jax.devices() == devices


def test_jobs_and_lists_take_no_accelerator(small, training, tmp_path, monkeypatch):
    updates = []
    update = lambda name, value: updates.append(value) if name == "jax_platforms" else None
    monkeypatch.setattr(claim.jax.config, "update", update)
    monkeypatch.setattr(claim.sweep, "execute_apart", lambda *_: None)
    monkeypatch.setattr(claim, "conclude", lambda *_: None)
    small.main([f"--workdir={tmp_path}/runs", "--steps=40", "--run=0"])
    assert not updates
    for words in (["--list"], ["--jobs=2"]):
        small.main([f"--workdir={tmp_path}/runs", "--steps=40", *words])
    assert updates == 2 * ["cpu"]

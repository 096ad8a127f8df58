import pytest


@pytest.fixture
def runs():
    """Two seeds of plain-20, plain-56 and resnet-20, one of resnet-56; errors are fractions."""
    errors = {
        ("plain", 20): [(0.10, 0.20), (0.12, 0.24)],
        ("plain", 56): [(0.50, 0.60), (0.90, 0.90)],
        ("resnet", 20): [(0.05, 0.0875), (0.07, 0.0925)],
        ("resnet", 56): [(0.01, 0.0697)],
    }
    rows = [
        {
            "model": f"{arm}-{depth}",
            "arm": arm,
            "depth": depth,
            "skip": "none" if arm == "plain" else "A",
            "merge": "plain" if arm == "plain" else "add",
            "seed": seed,
            "parameters": 269_722 if depth == 20 else 853_018,
            "steps": 300,
            "train_loss": 0.1,
            "train_error": train,
            "test_error": test,
            "seconds": 1.0,
            "workdir": "runs/x",
        }
        for (arm, depth), seeds in reversed(errors.items())
        for seed, (train, test) in enumerate(seeds)
    ]
    next(r for r in rows if r["train_error"] == 0.90)["note"] = "did not train"
    return rows


@pytest.fixture
def curves(runs):
    """A curve for each split of each run that falls from 0.9 to the run's last error."""
    return [
        {k: run[k] for k in ("model", "arm", "depth", "skip", "seed")}
        | {"split": split, "step": [100, 200, 300], "loss": [2.0, 1.0, 0.5]}
        | {"error": [0.9, 0.5 * (0.9 + run[f"{split}_error"]), run[f"{split}_error"]]}
        for run in runs
        for split in ("train", "test")
    ]


@pytest.fixture
def results(runs):
    from resnet_jax.reporting.tables import summarise

    return {
        "claim": "Plain networks train worse as depth grows; residual networks do not.",
        "source": "He et al. 2015, arXiv:1512.03385, Fig. 6",
        "dataset": "cifar10",
        "statements": [
            {
                "claim": "Plain networks train worse as depth grows; residual networks do not.",
                "source": "He et al. 2015, arXiv:1512.03385, Fig. 6",
                "verdict": {
                    "holds": True,
                    "rule": "difference > 5 points",
                    "says": "It rose by 59 points.",
                    "effect": 0.59,
                    "interval": (0.5, 0.68),
                    "p": 0.002,
                    "n": 3,
                    "p_opposite": 0.998,
                },
                "control": None,
                "rule_changed": False,
            }
        ],
        "chosen": {"plain-20": ["skip=none"], "resnet-20": []},
        "runs": runs,
        "summary": summarise(runs),
    }

"""The statements of the story that no command here tests, each with the reason."""

from collections.abc import Collection
from typing import Any, NamedTuple


class Untested(NamedTuple):
    """A statement that is not tested.

    `claims` are the names of the commands that will test it. It is left out of the index when all
    of them are there. Without names no experiment on networks can decide the statement.
    """

    says: str
    why: str
    claims: tuple[str, ...] = ()


UNTESTED = (
    Untested(
        "Residual networks won the ImageNet competition of 2015, and other prizes and dates.",
        "This is a matter of record. It is looked up, not measured.",
    ),
    Untested(
        "Who had an idea first, and which idea came from which.",
        "An experiment can show that two networks compute the same. It cannot show who knew whom.",
    ),
    Untested(
        "Residual networks claim no biological inspiration.",
        "This is a statement about what authors wrote, not about networks.",
    ),
    Untested(
        "Errors on test sets whose labels are not public, such as 3.57 % on ImageNet's test set.",
        "A server that held the labels measured them. The servers are closed or limit submissions.",
    ),
    Untested(
        "Very deep plain networks train if they are grown from a shallower trained network (VGG).",
        "The runs of a sweep are independent of each other: none starts from the weights of "
        "another. `identity_start` grows an untrained network by exact identities.",
    ),
    Untested(
        "AlphaStar and AlphaFold have identity skips.",
        "The networks are parts of large systems, whose inputs, losses and training data are not "
        "here. A trunk that was rebuilt without them would be our network, not theirs.",
    ),
    Untested(
        "Identity skips are in LSTM, BERT, GPT and AlphaGo Zero.",
        "This needs recurrent networks, Transformers of text and a network of board games.",
        ("unfolded", "pre_post_norm"),
    ),
    Untested(
        "The residual block is the principle of the LSTM of 1997; a highway network is the LSTM of "
        "2000 with forget gates, unfolded.",
        "This needs recurrent networks.",
        ("unfolded",),
    ),
    Untested(
        "Transformers put the norm before each block since GPT-2.",
        "This needs Transformers of text.",
        ("pre_post_norm",),
    ),
    Untested(
        "Very deep Transformers cannot be trained without skips.",
        "This needs Transformers of text.",
        ("transformer_skips", "rank_collapse"),
    ),
    Untested(
        "Rosenblatt's cross-coupled perceptrons train, and their cross connections help.",
        "This needs perceptrons with cross connections.",
        ("cross_coupled",),
    ),
    Untested(
        "In a perceptron with a skip layer the non-linear part perturbs a linear one.",
        "This needs perceptrons with a skip layer.",
        ("linear_part",),
    ),
    Untested(
        "Gradients vanish through time, and the constant error carousel of 1997 spans long times.",
        "This needs recurrent networks.",
        ("time_lag",),
    ),
    Untested(
        "Forget gates are learned since 2000, and a positive bias keeps them open.",
        "This needs recurrent networks.",
        ("forget_gate",),
    ),
    Untested(
        "Residual networks learn with shared weights and by biologically plausible rules.",
        "This needs tied layers and learning rules other than back-propagation.",
        ("tied_depth", "learning_rules"),
    ),
    Untested(
        "The connectome of an insect's brain has shortcuts over several layers.",
        "This needs networks with the wiring of the study.",
        ("wired",),
    ),
)


def rows(claims: Collection[str]) -> list[dict[str, Any]]:
    """Return the statements as index.json has them, without those that some claim tests by now."""
    return [
        {"says": each.says, "why": each.why, "not_yet": bool(each.claims)}
        for each in UNTESTED
        if not each.claims or not set(each.claims) <= set(claims)
    ]

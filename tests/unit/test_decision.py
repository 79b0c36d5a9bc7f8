"""What an analysis says is to be done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dbscore.experiments.decision import decide
from dbscore.experiments.report import Finding
from dbscore.experiments.statistics.comparison import Comparison
from dbscore.experiments.statistics.guardrails import Guardrail

if TYPE_CHECKING:
    from dbscore.experiments.statistics.comparison import Verdict


def finding(
    metric: str, verdict: Verdict | None, *, variant: str = "b", relative: float = 0.1, **changes: Any
) -> Finding:
    values: dict[str, Any] = {
        "metric": metric,
        "kind": "mean",
        "direction": "higher",
        "role": "goal",
        "variant": variant,
        "control_n": 10,
        "n": 10,
        "control_value": 1.0,
        "value": 1.1,
        "comparison": Comparison(difference=relative, standard_error=0.1, relative=relative, p_value=0.01, method="z"),
        "unadjusted": None,
        "variance_reduction": None,
        "always_valid": None,
        "p_value": 0.01,
        "p_corrected": 0.02,
        "verdict": verdict,
        "guardrail": None,
        "accuracy": None,
    }
    return Finding(**(values | changes))


def guardrail(metric: str, verdict: Any, *, variant: str = "b") -> Finding:
    found = Guardrail(verdict=verdict, p_value=0.01, bound=-0.01, margin=0.05, scale="relative", method="m")
    return finding(metric, None, variant=variant, role="guardrail", guardrail=found)


def action(*findings: Finding) -> tuple[str, str | None]:
    found = decide(findings, control="a", withheld=None)
    return found.action, found.variant


def test_a_treatment_that_is_better_by_a_goal_and_breaks_nothing_is_promoted() -> None:
    assert action(finding("m", "better"), finding("k", "undecided"), guardrail("g", "held")) == ("promote", "b")


@pytest.mark.parametrize("verdict", ["undecided", "broken"])
def test_no_treatment_is_promoted_before_its_guardrails_hold(verdict: str) -> None:
    assert (
        action(finding("m", "better"), guardrail("g", verdict))[0] == {"undecided": "wait", "broken": "keep"}[verdict]
    )


def test_a_treatment_that_is_better_by_one_goal_and_worse_by_another_is_not_promoted() -> None:
    assert action(finding("m", "better"), finding("k", "worse")) == ("keep", "a")


def test_the_control_is_kept_only_where_every_treatment_is_worse() -> None:
    assert action(finding("m", "worse"), finding("m", "worse", variant="c")) == ("keep", "a")
    assert action(finding("m", "worse"), finding("m", "undecided", variant="c")) == ("wait", None)


def test_of_two_treatments_the_one_that_is_better_by_more_goals_is_promoted() -> None:
    b = [finding("m", "better", relative=0.5), finding("k", "undecided")]
    c = [finding("m", "better", variant="c"), finding("k", "better", variant="c")]
    assert action(*b, *c) == ("promote", "c")


def test_of_two_treatments_that_are_better_by_the_same_goals_the_greater_lift_is_promoted() -> None:
    assert action(finding("m", "better", relative=0.1), finding("m", "better", variant="c", relative=0.2)) == (
        "promote",
        "c",
    )


def test_guardrails_alone_promote_nothing() -> None:
    found = decide([guardrail("g", "held")], control="a", withheld=None)
    assert (found.action, found.reasons[0]) == ("wait", "no metric is a goal")


def test_without_metrics_there_is_nothing_to_decide() -> None:
    assert action() == ("wait", None)


def test_withheld_results_decide_nothing() -> None:
    found = decide(None, control="a", withheld="p = 1e-9")
    assert (found.action, found.variant, found.reasons) == ("mend", None, ("p = 1e-9",))


def test_reasons_name_the_numbers() -> None:
    found = decide([finding("m", "better"), guardrail("g", "held")], control="a", withheld=None)
    assert found.reasons == (
        "b: better by m (+10.00%, p = 0.02)",
        "b: guardrail g is held: at worst -1.00%, margin 5.00%",
    )
    assert found.headline == "promote b"

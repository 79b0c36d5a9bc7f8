"""The score of a model: the sum that it computes before its link, found in the expressions of its results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbscore.compiler.expression import FLOATS, Expression, Pool
from dbscore.errors import CompilationError
from dbscore.signature import Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dbscore.signature import Signature

__all__ = ["Score", "score_of", "terms_of"]

PAIR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A model's score.

    Attributes:
        expression: What computes it.
        scale: What it is, in words: `the prediction`, `the log-odds of 'yes'`.
    """

    expression: Expression
    scale: str


def score_of(outputs: Mapping[str, tuple[list[Expression], str]], signature: Signature, pool: Pool) -> Score:
    """Return the score of a regression, or of a classifier of two classes: that of its second class.

    Args:
        outputs: The expressions of each result, by the suffix of its function.
        signature: What the model takes and gives.
        pool: Where the expressions are.

    Raises:
        CompilationError: The model has more scores than one.
    """
    if signature.task is Task.REGRESSION:
        roots = outputs[""][0]
        if len(roots) != 1:
            raise CompilationError(f"it predicts {len(roots)} numbers, and explained is one")
        return _regression(roots[0])
    classes = signature.classes or ()
    if signature.task is not Task.CLASSIFICATION:
        raise CompilationError(f"its task is {signature.task}, and explained are regression and classification")
    if len(classes) != PAIR:
        raise CompilationError(f"it tells {len(classes)} classes apart, and explained are classifiers of two")
    if "_score" in outputs:
        return _classification(outputs["_score"][0][0], classes[1], pool)
    return Score(expression=_margin(outputs[""][0][0], classes[1]), scale=f"the decision function of {classes[1]!r}")


def _plain(one: Expression) -> Expression:
    """Return an expression without casts between floats."""
    while one.op == "cast" and one.dtype in FLOATS and one.args[0].dtype in FLOATS:
        one = one.args[0]
    return one


def _regression(root: Expression) -> Score:
    root = _plain(root)
    if root.op == "exp":
        return Score(expression=_plain(root.args[0]), scale="the logarithm of the prediction")
    if root.op == "logistic":
        return Score(expression=_plain(root.args[0]), scale="the log-odds of the prediction")
    return Score(expression=root, scale="the prediction")


def _classification(root: Expression, label: object, pool: Pool) -> Score:
    root = _plain(root)
    if root.op == "logistic":
        return Score(expression=_plain(root.args[0]), scale=f"the log-odds of {label!r}")
    powers = _powers(root)
    if powers is not None:
        second, first = powers
        return Score(expression=pool.sub(second, first), scale=f"the log-odds of {label!r}")
    return Score(expression=root, scale=f"the probability of {label!r}")


def _powers(root: Expression) -> tuple[Expression, Expression] | None:
    """Recognize a softmax of two: return the score of the class itself, and that of the other."""
    if root.op != "div" or root.args[1].op not in ("total", "add") or len(root.args[1].args) != PAIR:
        return None
    own, every = root.args[0], root.args[1].args
    if own not in every or any(power.op != "power_below_one" or power.args[0].op != "sub" for power in every):
        return None
    other = every[0] if every[1] is own else every[1]
    scores = own.args[0].args[0], other.args[0].args[0]
    return scores if own.args[0].args[1] is other.args[0].args[1] else None


def _margin(root: Expression, label: object) -> Expression:
    """Return what a label's choice compares with 0."""
    inner = root
    while inner.op in ("element", "cast") and inner.args:
        inner = inner.args[0]
    if inner.op == "gt" and inner.args[1].is_constant and inner.args[1].value == 0:
        return _plain(inner.args[0])
    raise CompilationError(f"what tells {label!r} from the other class is no sum that is compared with 0")


def terms_of(root: Expression) -> tuple[dict[Expression, float], float]:
    """Return a score as terms with their factors, and a constant: sums, products and quotients with constants."""
    terms: dict[Expression, float] = {}
    constant = 0.0
    stack = [(root, 1.0)]
    while stack:
        one, factor = stack.pop()
        parts = _parts(one, factor)
        if one.is_constant and one.value is not None:
            constant += factor * one.value
        elif parts is None:
            terms[one] = terms.get(one, 0.0) + factor
        else:
            constant += parts[1]
            stack += parts[0][::-1]
    return terms, constant


def _parts(one: Expression, factor: float) -> tuple[Sequence[tuple[Expression, float]], float] | None:
    """Return the summands of a sum with their factors, and a constant; None where it is none."""
    args, found, constant = one.args, None, 0.0
    if one.op == "affine":
        weights, constant = one.value
        found = [(arg, factor * weight) for arg, weight in zip(args, weights, strict=True)]
    elif one.op in ("add", "total"):
        found = [(arg, factor) for arg in args]
    elif one.op == "sub":
        found = [(args[0], factor), (args[1], -factor)]
    elif one.op == "neg":
        found = [(args[0], -factor)]
    elif one.op == "mul" and any(a.is_constant and a.value is not None for a in args):
        number, other = args if args[0].is_constant else args[::-1]
        found = [(other, factor * number.value)]
    elif one.op == "div" and args[1].is_constant and args[1].value:
        found = [(args[0], factor / args[1].value)]
    elif one.op == "cast" and one.dtype in FLOATS and args[0].dtype in FLOATS:
        found = [(args[0], factor)]
    return None if found is None else (found, factor * constant)

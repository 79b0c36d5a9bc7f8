"""A model for rows of which some features are known: branches that no such row takes are gone, terms are merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbscore.compiler.compilation import program_of, results_of
from dbscore.compiler.expression import Expression, Pool, reachable
from dbscore.compiler.substitution import Known, rebuilt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dbscore.compiler.program import Program
    from dbscore.signature import Signature

__all__ = ["Size", "Specialised", "specialise_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much a model computes for a row at most.

    Attributes:
        splits: Of trees.
        terms: Of sums, and entries of what is looked up.
        operations: All there are, a tree and a sum counted once.
    """

    splits: int
    terms: int
    operations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Specialised:
    """A specialised model.

    Attributes:
        program: Its results as SQL.
        before: What the model computes.
        after: What is left.
    """

    program: Program
    before: Size
    after: Size


def specialise_model(content: bytes, signature: Signature, known: Mapping[int, Known]) -> Specialised:
    """Write a model as SQL for the rows of which something is known.

    Args:
        content: The ONNX model.
        signature: What it takes and gives.
        known: What is known of features, by number.

    Raises:
        CompilationError: It has an operator that is not compiled.
    """
    outputs = results_of(content, signature)
    every = [root for roots, _ in outputs.values() for root in roots]
    made = rebuilt(every, Pool(), known)
    ready = iter(made)
    own = {suffix: ([next(ready) for _ in roots], type_) for suffix, (roots, type_) in outputs.items()}
    return Specialised(program=program_of(own, signature), before=_size(every), after=_size(made))


def _size(roots: Iterable[Expression]) -> Size:
    every = [one for one in reachable(roots) if one.op not in ("const", "feature", "item")]
    return Size(
        splits=sum(len(one.value.columns) for one in every if one.op == "tree"),
        terms=sum(_terms(one) for one in every),
        operations=len(every),
    )


def _terms(one: Expression) -> int:
    if one.op in ("affine", "total"):
        return sum(not arg.is_constant for arg in one.args)
    return len(one.value[0]) if one.op == "lookup" else 0

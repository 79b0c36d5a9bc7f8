"""Sums with constant factors: what stands before a linear model, a scaler or a projection, is merged into it."""

from __future__ import annotations

from math import fsum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dbscore.compiler.expression import Expression, Pool

__all__ = ["weighted_sum"]


def weighted_sum(
    pool: Pool, args: Sequence[Expression], weights: Sequence[float], constant: float, dtype: str
) -> Expression:
    """Return the sum of expressions with their weights, and a constant, in as few terms as there are.

    What is itself such a sum is written out. Terms that tell one value of a feature from others, as one-hot encoders
    do, become one look-up: adding up zeros changes nothing.

    Args:
        pool: Where expressions are made.
        args: The terms.
        weights: Their factors.
        constant: What is added.
        dtype: Of the result; it is computed in double precision.
    """
    pieces: dict[Expression, list[float]] = {}
    constants = [constant]
    for arg, weight in zip(args, weights, strict=True):
        inner, inner_constant = _terms(arg)
        pool.count_terms(len(inner))
        for term, factor in inner.items():
            pieces.setdefault(term, []).append(weight * factor)
        constants.append(weight * inner_constant)
    merged = {term: fsum(factors) for term, factors in pieces.items()}
    return pool.affine(_one_lookup_each(pool, merged), fsum(constants), dtype)


def _terms(root: Expression) -> tuple[Mapping[Expression, float], float]:
    """Return an expression as terms with factors and a constant; by itself where it is no such sum."""
    terms: dict[Expression, list[float]] = {}
    constants: list[float] = []
    stack = [(root, 1.0)]
    while stack:
        one, factor = stack.pop()
        a, b = (*one.args, None, None)[:2]
        if one.is_constant and one.value is not None:
            constants.append(factor * one.value)
        elif one.op == "affine":
            weights, constant = one.value
            constants.append(factor * constant)
            stack += [(arg, factor * weight) for arg, weight in zip(one.args, weights, strict=True)][::-1]
        elif one.op == "neg" and a is not None:
            stack.append((a, -factor))
        elif one.op in ("add", "sub") and a is not None and b is not None:
            stack += [(b, factor if one.op == "add" else -factor), (a, factor)]
        elif one.op == "mul" and a is not None and b is not None and b.is_constant and b.value:
            stack.append((a, factor * b.value))
        elif one.op == "mul" and a is not None and b is not None and a.is_constant and a.value:
            stack.append((b, factor * a.value))
        elif one.op == "div" and a is not None and b is not None and b.is_constant and b.value:
            stack.append((a, factor / b.value))
        else:
            terms.setdefault(one, []).append(factor)
    return {term: fsum(factors) for term, factors in terms.items()}, fsum(constants)


def _one_lookup_each(pool: Pool, terms: Mapping[Expression, float]) -> dict[Expression, float]:
    """Merge the terms that look up the same value."""
    tables: dict[Expression, list[tuple[dict[Any, float], float, float]]] = {}
    kept: dict[Expression, float] = {}
    for term, factor in terms.items():
        found = _as_table(term)
        if found is None:
            kept[term] = factor
        else:
            base, table, default = found
            tables.setdefault(base, []).append((table, default, factor))
    for base, parts in tables.items():
        keys = dict.fromkeys(key for table, _, _ in parts for key in table)
        whole = {key: fsum(factor * table.get(key, default) for table, default, factor in parts) for key in keys}
        default = fsum(factor * default for _, default, factor in parts)
        kept[pool.lookup(base, whole, default, "float64")] = 1.0
    return kept


def _as_table(term: Expression) -> tuple[Expression, dict[Any, float], float] | None:
    """Return what is looked up, the table and its default, where a term is nothing but that."""
    if term.op == "lookup" and not term.is_nullable and term.dtype != "string":
        table, default = term.value
        return term.args[0], dict(table), default
    inner = term.args[0] if term.op == "cast" else term
    if term.op == "cast" and inner.op == "eq" and inner.args[1].is_constant and inner.args[1].value is not None:
        return inner.args[0], {inner.args[1].value: 1.0}, 0.0
    return None

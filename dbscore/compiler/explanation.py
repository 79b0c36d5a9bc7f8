"""What each feature contributes to a prediction: numbers that add up to the model's score, with a base value.

The score is what the model computes before its link: the prediction of a regression, its logarithm behind a
logarithmic link, the log-odds of a logistic one, the average of a forest's leaves. It is a sum, and its terms are taken
apart by features.

Source:
    A linear term is w * (x - mean(x)). A tree's path is that of Saabas (2014), "Interpreting random forests",
    http://blog.datadive.net/interpreting-random-forests/, as in the package treeinterpreter: each split contributes
    the change of the node's expected value to the feature that it asks.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dbscore.compiler.compilation import results_of
from dbscore.compiler.contributions import Contribution, Explanation
from dbscore.compiler.emit import block
from dbscore.compiler.expression import Expression, Pool, reachable
from dbscore.compiler.score import score_of, terms_of
from dbscore.compiler.substitution import Known, rebuilt
from dbscore.compiler.tree import Tree
from dbscore.errors import CompilationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.compiler.score import Score
    from dbscore.signature import Signature

__all__ = ["explain_model"]

# more would be a function that takes longer to plan than anybody waits
MOST_NUMBERS = 400_000
MOST_ROWS = 1_000
# a sum of so many terms is as deep as the parser should have to go
TERMS_PER_SUM = 40


def explain_model(content: bytes, signature: Signature, sample: Sequence[Sequence[Any]] = ()) -> Explanation:
    """Write what computes the contributions of a model's features as SQL.

    Args:
        content: The ONNX model.
        signature: What it takes and gives.
        sample: Rows that the model was fitted on, or such, in the order of the features, None where a value is
            missing: the base value is their mean score. At most 1,000 of them are looked at.

    Raises:
        CompilationError: An operator is not compiled, or the score is no sum that can be taken apart; the message says
            why.
    """
    outputs = results_of(content, signature)
    pool = Pool()
    roots = rebuilt([root for found, _ in outputs.values() for root in found], pool, {})
    ready = iter(roots)
    own = {suffix: ([next(ready) for _ in found], type_) for suffix, (found, type_) in outputs.items()}
    return _Explaining(score_of(own, signature, pool), signature, pool, _spread(sample)).explanation()


def _spread(sample: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
    """Return rows of the whole sample, as many as are looked at."""
    step = -(-len(sample) // MOST_ROWS) if sample else 1
    return sample[::step]


class _Explaining:
    """Takes one score apart."""

    def __init__(self, score: Score, signature: Signature, pool: Pool, sample: Sequence[Sequence[Any]]) -> None:
        self._score, self._signature, self._pool = score, signature, pool
        self._terms, self._base = terms_of(score.expression)
        self._numbers = 0
        self._sums: dict[tuple[int, ...], list[tuple[Expression, float]]] = {}
        self._of: dict[int, frozenset[int]] = {}
        for one in reachable([score.expression]):
            own = frozenset([one.value]) if one.op == "feature" else frozenset()
            self._of[one.number] = own.union(*(self._of[a.number] for a in one.args))
        wanted = [a for term in self._terms for a in (term.args if term.op == "tree" else (term,))]
        self._columns = self._computed(list(dict.fromkeys(wanted)), sample)
        self._rows = len(sample) if self._columns is not None else 0

    def explanation(self) -> Explanation:
        """Return the explanation.

        Raises:
            CompilationError: A term depends on several features, and is no product of them.
        """
        kinds = set()
        for term, factor in self._terms.items():
            if term.op == "tree":
                kinds.add("path")
                self._add_tree(term, factor)
            else:
                kinds.add("linear")
                self._add_term(term, factor)
        if self._numbers > MOST_NUMBERS:
            raise CompilationError(
                f"its trees' paths have {self._numbers:,} different contributions, and a function at most "
                f"{MOST_NUMBERS:,}"
            )
        features = self._signature.features
        several = sorted((key for key in self._sums if len(key) > 1), key=lambda key: (len(key), key))
        keys = [(i,) for i in range(len(features))] + several
        sums = [self._sum(self._sums.get(key, [])) for key in keys]
        body, size = _body(sums)
        return Explanation(
            method=" and ".join(sorted(kinds)) or "linear",
            scale=self._score.scale,
            base=self._base,
            sample_rows=self._rows,
            rows=tuple(Contribution(name=" * ".join(features[i].name for i in key), features=key) for key in keys),
            body=body,
            size=size,
        )

    def _sum(self, terms: Sequence[tuple[Expression, float]]) -> Expression:
        """Return the sum of terms, in sums of a few."""
        pool = self._pool
        parts = [
            pool.affine(_merged(terms[start : start + TERMS_PER_SUM]), 0.0, "float64")
            for start in range(0, len(terms), TERMS_PER_SUM)
        ]
        while len(parts) > 1:
            groups = [parts[start : start + TERMS_PER_SUM] for start in range(0, len(parts), TERMS_PER_SUM)]
            parts = [pool.affine(_merged([(part, 1.0) for part in group]), 0.0, "float64") for group in groups]
        return parts[0] if parts else pool.const(0.0, "float64")

    # --- the sample ---

    def _computed(
        self, wanted: Sequence[Expression], sample: Sequence[Sequence[Any]]
    ) -> dict[int, np.ndarray[Any, Any]] | None:
        """Return what expressions are in each row of the sample, NaN where they are missing; None where one cannot."""
        if not sample or any(isinstance(value, list | tuple | np.ndarray) for row in sample for value in row):
            # what is known of an array is nothing that a Known says
            return None
        found = np.empty((len(wanted), len(sample)))
        for place, row in enumerate(sample):
            known = {i: _value(value) for i, value in enumerate(row)}
            for column, one in enumerate(rebuilt(wanted, Pool(), known)):
                if not one.is_constant:
                    return None
                found[column, place] = math.nan if one.value is None else one.value
        return {one.number: column for one, column in zip(wanted, found, strict=True)}

    # --- terms that are no trees ---

    def _add_term(self, term: Expression, factor: float) -> None:
        key = self._key(term)
        mean = 0.0
        if self._columns is not None:
            column = self._columns[term.number]
            there = column[np.isfinite(column)]
            mean = float(there.mean()) if there.size else 0.0
        self._base += factor * mean
        pool = self._pool
        self._sums.setdefault(key, []).append((pool.affine({term: 1.0}, -mean, "float64"), factor))

    def _key(self, term: Expression) -> tuple[int, ...]:
        """Return the features that a term belongs to: one, or those that it multiplies."""
        depends = self._of[term.number]
        if len(depends) == 1:
            return tuple(depends)
        factors, stack = set[int](), [term]
        while stack:
            one = stack.pop()
            if one.op in ("mul", "affine", "cast") and len(self._of[one.number]) > 1 and _is_product(one):
                stack += one.args
            elif len(self._of[one.number]) > 1:
                names = ", ".join(self._signature.features[i].name for i in sorted(depends))
                raise CompilationError(f"a term of its score depends on several features, and is no product: {names}")
            else:
                factors |= self._of[one.number]
        return tuple(sorted(factors))

    # --- trees ---

    def _add_tree(self, term: Expression, factor: float) -> None:
        tree: Tree = term.value
        owners = [self._owner(arg) for arg in term.args]
        expected = self._expected(tree, term.args)
        self._base += factor * expected[0]
        paths = _paths(tree, [owners[column] for column in tree.columns], expected)
        place = self._pool.make(
            "tree", "int64", term.args, _numbered(tree), is_nullable=False, low=0, high=len(tree.leaves) - 1
        )
        for owner, contributed in paths.items():
            self._numbers += len(contributed)
            # as it is: computed at the tree's leaves, each feature would have a tree of its own
            found = self._pool.make("element", "float64", (place,), tuple(contributed), is_nullable=False)
            self._sums.setdefault((owner,), []).append((found, factor))

    def _owner(self, arg: Expression) -> int:
        """Return the only feature that a tree's column depends on."""
        depends = sorted(self._of[arg.number])
        if len(depends) != 1:
            names = ", ".join(self._signature.features[i].name for i in depends)
            raise CompilationError(f"a tree asks for what several features make together: {names}")
        return depends[0]

    def _expected(self, tree: Tree, args: Sequence[Expression]) -> list[float]:
        """Return each node's expected value: the mean of the sample's rows that reach it, or of both ways."""
        reached = self._reached(tree, args)
        values = [0.0] * len(tree.columns)

        def of(child: int, count: int) -> tuple[float, int]:
            return (tree.leaves[~child] if child < 0 else values[child]), count

        for node in reversed(_downwards(tree)):
            yes, no = of(tree.yes[node], reached[node][0]), of(tree.no[node], reached[node][1])
            whole = yes[1] + no[1]
            values[node] = (yes[0] * yes[1] + no[0] * no[1]) / whole if whole else (yes[0] + no[0]) / 2
        return values

    def _reached(self, tree: Tree, args: Sequence[Expression]) -> list[tuple[int, int]]:
        """Return how many rows of the sample each split sends to each side."""
        counts = [(0, 0)] * len(tree.columns)
        if self._columns is None:
            return counts
        columns = [self._columns[arg.number] for arg in args]
        rows = {0: np.arange(self._rows)}
        for node in _downwards(tree):
            here = rows.pop(node)
            values = columns[tree.columns[node]][here]
            is_true = _COMPARED[tree.comparisons[node]](values, tree.thresholds[node])
            if tree.missing[node]:
                is_true |= np.isnan(values)
            counts[node] = (int(is_true.sum()), int((~is_true).sum()))
            for child, chosen in ((tree.yes[node], is_true), (tree.no[node], ~is_true)):
                if child >= 0:
                    rows[child] = here[chosen]
        return counts


_COMPARED = {
    "le": np.less_equal,
    "lt": np.less,
    "ge": np.greater_equal,
    "gt": np.greater,
    "eq": np.equal,
    "ne": np.not_equal,
}


def _value(value: Any) -> Known:  # noqa: ANN401 - any value of a feature
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Known(is_missing=True)
    return Known(values=frozenset([value]))


def _merged(terms: Sequence[tuple[Expression, float]]) -> dict[Expression, float]:
    merged: dict[Expression, float] = {}
    for term, factor in terms:
        merged[term] = merged.get(term, 0.0) + factor
    return merged


def _is_product(one: Expression) -> bool:
    """Say whether it is its arguments multiplied, as far as features are concerned."""
    return one.op == "mul" or (one.op == "affine" and len(one.args) == 1 and one.value[1] == 0) or one.op == "cast"


def _downwards(tree: Tree) -> list[int]:
    """Return the nodes, parents first."""
    order = [0]
    for node in order:
        order += [child for child in (tree.yes[node], tree.no[node]) if child >= 0]
    return order


def _numbered(tree: Tree) -> Tree:
    """Return a tree whose leaves hold their own numbers."""
    return Tree(
        tree.columns, tree.thresholds, tree.comparisons, tree.missing, tree.yes, tree.no, range(len(tree.leaves))
    )


def _paths(tree: Tree, owners: Sequence[int], expected: Sequence[float]) -> dict[int, list[float]]:
    """Return, for each feature, what the path to each leaf contributes: the changes at the splits that ask for it."""
    found = {owner: [0.0] * len(tree.leaves) for owner in set(owners)}
    above: dict[int, dict[int, float]] = {0: {}}
    for node in _downwards(tree):
        so_far = above.pop(node)
        for child in (tree.yes[node], tree.no[node]):
            value = tree.leaves[~child] if child < 0 else expected[child]
            path = {**so_far, owners[node]: so_far.get(owners[node], 0.0) + value - expected[node]}
            if child >= 0:
                above[child] = path
            else:
                for owner, contributed in path.items():
                    found[owner][~child] = contributed
    return dict(sorted(found.items()))


def _body(sums: Sequence[Expression]) -> tuple[str, int]:
    """Return the statements of the function, and how many operations it is."""
    declared, statements, text = block(
        sums,
        lambda one: f"f{one.value + 1}",
        lambda writer: f"array[{', '.join(writer.text(one) for one in sums)}]::double precision[]",
    )
    lines = ["declare", *(f"    {name} {kind};" for name, kind in declared), "begin"]
    lines += [f"    {statement}" for statement in statements]
    every = reachable(sums)
    size = len(every) + sum(len(e.value.columns) for e in every if e.op == "tree")
    return "\n".join([*lines, f"    return {text};", "end"]), size

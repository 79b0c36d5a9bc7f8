"""A model as SQL: its graph run on a row of expressions, and they written down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbscore.compiler.emit import TYPES, Writer, block, expanded_size, inline, placeholder, splits
from dbscore.compiler.expression import ARRAY, FLOATS, INTEGERS, Expression, reachable
from dbscore.compiler.graph import run
from dbscore.compiler.literals import SYMBOLS
from dbscore.compiler.operators import OPERATORS
from dbscore.compiler.program import Program, Result
from dbscore.errors import CompilationError
from dbscore.signature import NullPolicy, OutputKind, SqlType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dbscore.signature import Feature, Signature

__all__ = ["compile_model", "program_of", "results_of"]

# a larger one is the body of a function: its planning would cost more than the call of one
LARGEST_EXPRESSION = 600
# what is used several times is computed several times in an expression
MOST_REPETITION = 2.0
MOST_ARGUMENTS = 100
REMEDY = "Leave --engine out, or say --engine onnx: ONNX Runtime scores the version."


def compile_model(content: bytes, signature: Signature) -> Program:
    """Write a model's graph as SQL.

    Args:
        content: The ONNX model.
        signature: What it takes and gives.

    Raises:
        CompilationError: It has an operator that is not compiled, or more results than one expression can have.
    """
    return program_of(results_of(content, signature), signature)


def program_of(outputs: Mapping[str, tuple[list[Expression], str]], signature: Signature) -> Program:
    """Write the expressions of each result as SQL.

    Raises:
        CompilationError: A result has more numbers than one.
    """
    results = {suffix: _result(signature, roots, type_) for suffix, (roots, type_) in outputs.items()}
    every = [root for roots, _ in outputs.values() for root in roots]
    used = {e.value for e in reachable(every) if e.op == "feature"}
    unused = tuple(f.name for i, f in enumerate(signature.features) if i not in used)
    shares = outputs.get("_proba", ([], ""))[0] if "_score" in outputs else []
    return Program(
        results=results,
        unused=unused,
        splits=splits(every),
        is_complement=len(shares) > 1 and _is_rest(shares[0], shares[1]),
    )


def _is_rest(one: Expression, other: Expression) -> bool:
    """Say whether a share is what another leaves of 1."""
    return one.op == "sub" and one.args[0].is_constant and one.args[0].value == 1 and one.args[1] is other


def results_of(content: bytes, signature: Signature) -> dict[str, tuple[list[Expression], str]]:
    """Return the expressions of each result, with its SQL type.

    Raises:
        CompilationError: As `compile_model`.
    """
    if len(signature.features) >= MOST_ARGUMENTS:
        raise CompilationError(
            f"the model has {len(signature.features)} features, and a SQL function at most {MOST_ARGUMENTS - 1}",
            remedy=REMEDY,
        )
    tensors, pool = run(content, signature, [o.tensor for o in signature.outputs], OPERATORS)
    made: dict[str, tuple[list[Expression], str]] = {}
    for output in signature.outputs:
        tensor = tensors[output.tensor]
        flat = list(tensor.values.flat)
        found = [pool.const(value, tensor.dtype) for value in flat] if tensor.is_constant else flat
        type_ = SqlType.DOUBLE_ARRAY if output.kind is OutputKind.PROBABILITIES else output.type
        whole = pool.array_of_trees(found) if type_ == SqlType.DOUBLE_ARRAY else None
        made["" if output.kind is OutputKind.PREDICTION else "_proba"] = (found if whole is None else [whole], type_)
        if output.kind is OutputKind.PROBABILITIES and len(found) == len(signature.classes or ()) == 2:  # noqa: PLR2004
            made["_score"] = ([found[1]], SqlType.DOUBLE)
    return made


def _result(signature: Signature, roots: Sequence[Expression], type_: str) -> Result:
    size = len([e for e in reachable(roots) if e.args])
    expanded = sum(expanded_size(root) for root in roots)
    if expanded <= LARGEST_EXPRESSION and expanded <= MOST_REPETITION * max(_shared_size(roots), 12):
        text, unchecked = inline(
            roots,
            _inline_feature(signature),
            lambda writer: _returned(writer, roots, type_),
            looked_at=lambda guarded: _nulled(signature, roots, guarded, is_array=type_.endswith("[]")),
        )
        return Result(expression=text, body=None, type=type_, unchecked=tuple(unchecked), size=expanded)
    declared, statements, text = block(roots, _argument, lambda writer: _returned(writer, roots, type_))
    lines = ["declare", *(f"    {name} {kind};" for name, kind in declared), "begin"]
    lines += [f"    {name} := {value};" for name, value in _cleaned(signature, roots)]
    lines += [f"    {statement}" for statement in statements]
    lines += [f"    return {text};", "end"]
    return Result(expression=None, body="\n".join(lines), type=type_, unchecked=(), size=max(size, expanded))


def _shared_size(roots: Sequence[Expression]) -> int:
    """Return how many operations there are, each counted once."""
    total = 0
    for one in reachable(roots):
        total += expanded_size(one) - sum(expanded_size(a) for a in one.args)
    return total


# --- what a result is written as ---


def _returned(writer: Writer, roots: Sequence[Expression], type_: str) -> str:
    if roots[0].dtype == ARRAY:
        return writer.text(roots[0])
    element = type_.removesuffix("[]")
    texts = [_converted(writer, root, element) for root in roots]
    if type_.endswith("[]"):
        # a number that is missing is NaN, as ONNX Runtime has it; the row's other numbers are there
        floats = [root.dtype in FLOATS and root.is_nullable for root in roots]
        texts = [f"coalesce({t}, 'NaN')" if f else t for t, f in zip(texts, floats, strict=True)]
        return f"array[{', '.join(texts)}]::{type_}"
    if len(texts) != 1:
        raise CompilationError(
            f"the model has {len(texts)} numbers for a row where {type_} is one",
            remedy=REMEDY,
        )
    return texts[0]


def _converted(writer: Writer, root: Expression, element: str) -> str:
    """Return an expression in the type that SQL has for it."""
    text = writer.text(root)
    if TYPES[root.dtype].removeprefix("pg_catalog.") == element:
        return text
    if element == "boolean" and root.dtype in (*INTEGERS, *FLOATS):
        return f"({text})::integer::boolean"
    return f"({text})::{element}"


def _inline_feature(signature: Signature) -> Callable[[Expression], str]:
    """Return what writes a feature within the caller's query: a NaN that means a missing value is NULL."""

    def text(one: Expression) -> str:
        found = placeholder(one.value)
        return f"nullif({found}, 'NaN')" if _means_missing(signature.features[one.value]) else found

    return text


def _argument(one: Expression) -> str:
    return f"f{one.value + 1}"


def _cleaned(signature: Signature, roots: Sequence[Expression]) -> list[tuple[str, str]]:
    """Return the arguments of a function in which NaN means a missing value, and what makes it NULL."""
    used = sorted({e.value for e in reachable(roots) if e.op == "feature"})
    found = []
    for index in used:
        feature = signature.features[index]
        if _means_missing(feature):
            name = f"f{index + 1}"
            equal = "pg_catalog.float4eq" if feature.type is SqlType.REAL else "pg_catalog.float8eq"
            found.append((name, f"case when not {equal}({name}, 'NaN') then {name} end"))
        elif feature.type in (SqlType.REAL_ARRAY, SqlType.DOUBLE_ARRAY) and feature.null_policy is NullPolicy.NAN:
            name = f"f{index + 1}"
            found.append((name, f"pg_catalog.array_replace({name}, 'NaN', null)"))
    return found


def _means_missing(feature: Feature) -> bool:
    return feature.null_policy is NullPolicy.NAN and feature.type in (SqlType.REAL, SqlType.DOUBLE)


# --- which values show in the result ---


def _nulled(
    signature: Signature, roots: Sequence[Expression], guarded: frozenset[int], *, is_array: bool
) -> tuple[frozenset[int], tuple[int, ...]]:
    """Return the sums that are to be NULL where they are not finite, and the features that need no other look.

    A sum that a number enters by way of sums and factors only is not finite where the number is not, and NULL where
    it is NULL. What is made of it by functions that give NULL for NULL is NULL then too.
    """
    if is_array or len(roots) != 1:
        return frozenset(), ()
    spread: dict[int, frozenset[int]] = {}
    absent: dict[int, frozenset[int]] = {}
    shown: dict[int, frozenset[int]] = {}
    nulled = set()
    order = reachable(roots)
    for one in order:
        none: frozenset[int] = frozenset()
        spreads = [spread[a.number] for a in one.args]
        absents = [absent[a.number] for a in one.args]
        showns = [shown[a.number] for a in one.args]
        if one.op == "feature":
            index = frozenset([one.value])
            sized = one.value in guarded
            spread[one.number] = index if one.dtype in FLOATS and not sized else none
            absent[one.number] = index
            # beyond its size, a number that is not finite makes the whole NULL
            shown[one.number] = none if one.dtype in FLOATS and not sized else index
            continue
        linear = one.op in ("affine", "add", "sub", "neg", "total") or (one.op == "cast" and one.dtype in FLOATS)
        scaled = one.op in ("mul", "div") and one.args[1].is_constant and one.args[1].value not in (None, 0.0)
        spread[one.number] = none
        if linear or scaled:
            spread[one.number] = none.union(*spreads)
        elif one.op == "filled":
            spread[one.number] = spreads[0]
        strict = one.op not in ("filled", "case", "lookup", "missing", "and", "or", "tree", "item")
        strict = strict and not (one.op == "greatest_at" and len(one.args) > 2)  # noqa: PLR2004 - written as choices
        # what compares with something that may be missing is false then, not NULL
        strict = strict and not (one.op in (*SYMBOLS, "greatest_at") and any(a.is_nullable for a in one.args))
        absent[one.number] = none.union(*absents) if strict else none
        shown[one.number] = none.union(*showns) if strict else none
        if one.op == "affine" and spread[one.number]:
            nulled.add(one.number)
            shown[one.number] |= {
                i
                for i in spread[one.number]
                if i in absent[one.number] or signature.features[i].null_policy is NullPolicy.NAN
            }
    kept = {
        i
        for i in shown[roots[0].number] | {g for g in guarded if signature.features[g].null_policy is NullPolicy.NAN}
        if signature.features[i].categories is None
        and signature.features[i].largest is None
        and not signature.features[i].accepts_infinity
        and not signature.features[i].type.is_array
    }
    return (frozenset(nulled), tuple(sorted(kept))) if kept else (frozenset(), ())

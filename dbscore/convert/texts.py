"""Exact float64 converters for counts of words: CountVectorizer, TfidfVectorizer, TfidfTransformer.

Words are what Python's default pattern finds, in every script, and lower case is Unicode's, character by character;
Python differs on the Greek sigma that ends a word and on the dotted capital I, which the comparison then shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer

from dbscore.convert.nodes import Nodes

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["text_converters"]

# Python's \w is a letter, a number or an underscore of any script; RE2's is ASCII
_PATTERNS = {r"(?u)\b\w\w+\b": r"[\pL\pN_]{2,}", r"(?u)\b\w+\b": r"[\pL\pN_]+", r"\b\w+\b": r"[\pL\pN_]+"}
# every glibc has it, whereas en_US, which ONNX Runtime takes by default, must be installed
_LOCALE = "C.UTF-8"


def text_converters(
    precision: str,
) -> tuple[dict[type, Callable[[Any], None]], dict[type, Callable[[Any, Any, Any], None]]]:
    """Return shape calculators and converters by estimator class, as convert_sklearn takes them."""
    number = DoubleTensorType if precision == "float64" else FloatTensorType

    def shape_of_words(operator: Any) -> None:  # noqa: ANN401 - skl2onnx's own, untyped
        operator.outputs[0].type = number([None, len(operator.raw_operator.vocabulary_)])

    def shape_of_weights(operator: Any) -> None:  # noqa: ANN401
        operator.outputs[0].type = number([None, operator.inputs[0].type.shape[1]])

    def count(scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401
        nodes = Nodes(scope, container, precision, "")
        model = operator.raw_operator
        counts = _counts(nodes, operator, model)
        if isinstance(model, TfidfVectorizer):
            counts = _weights(nodes, counts, model._tfidf)  # noqa: SLF001 - it has no public name
        nodes.name(counts, operator)

    def weigh(scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401
        nodes = Nodes(scope, container, precision, "")
        nodes.name(_weights(nodes, nodes.joined(operator.inputs), operator.raw_operator), operator)

    words = dict.fromkeys((CountVectorizer, TfidfVectorizer), shape_of_words)
    return (
        {**words, TfidfTransformer: shape_of_weights},
        {CountVectorizer: count, TfidfVectorizer: count, TfidfTransformer: weigh},
    )


def _refuse(model: Any) -> None:  # noqa: ANN401
    """Raise for what has no equivalent in ONNX Runtime's tokenizer."""
    reasons = {
        "analyzer": model.analyzer != "word",
        "tokenizer": model.tokenizer is not None,
        "preprocessor": model.preprocessor is not None,
        "strip_accents": model.strip_accents is not None,
        "token_pattern": model.token_pattern not in _PATTERNS,
        # single stop words are in no vocabulary anyway; removed, they make new neighbours
        "stop_words": model.stop_words is not None and model.ngram_range != (1, 1),
    }
    name = next((name for name, wrong in reasons.items() if wrong), None)
    if name is not None:
        raise NotImplementedError(f"{type(model).__name__}({name}={getattr(model, name)!r}) has no ONNX equivalent")


def _counts(nodes: Nodes, operator: Any, model: Any) -> str:  # noqa: ANN401
    _refuse(model)
    if len(operator.inputs) != 1:
        raise NotImplementedError(f"{type(model).__name__} of {len(operator.inputs)} columns")
    texts = nodes.add("Reshape", [operator.inputs[0].full_name, nodes.integers([-1])])
    if model.lowercase:
        texts = nodes.add("StringNormalizer", [texts], case_change_action="LOWER", is_case_sensitive=1, locale=_LOCALE)
    tokens = nodes.add(
        "Tokenizer",
        [texts],
        domain="com.microsoft",
        mark=0,
        mincharnum=1,
        # no word holds a space
        pad_value=" ",
        tokenexp=_PATTERNS[model.token_pattern],
    )
    low, high = model.ngram_range
    grams: dict[int, list[tuple[list[str], int]]] = {n: [] for n in range(1, high + 1)}
    for gram, index in sorted(model.vocabulary_.items(), key=lambda pair: pair[1]):
        words = gram.split(" ")
        grams[len(words)].append((words, int(index)))
    pool = [word for n in grams for words, _ in grams[n] for word in words]
    starts = np.cumsum([0] + [n * len(grams[n]) for n in grams])[:-1]
    counted = nodes.add(
        "TfIdfVectorizer",
        [tokens],
        mode="TF",
        min_gram_length=low,
        max_gram_length=high,
        max_skip_count=0,
        ngram_counts=[int(s) for s in starts],
        ngram_indexes=[index for n in grams for _, index in grams[n]],
        pool_strings=pool,
    )
    counts = nodes.cast(counted)
    if model.binary:
        return nodes.cast(nodes.add("Greater", [counts, nodes.numbers([[0.0]])]))
    return counts


def _weights(nodes: Nodes, counts: str, model: Any) -> str:  # noqa: ANN401
    """tf-idf as scikit-learn defines it: counts times ln((1 + n) / (1 + df)) + 1, each row to unit length."""
    zero, one = nodes.numbers([[0.0]]), nodes.numbers([[1.0]])
    if model.sublinear_tf:
        some = nodes.add("Greater", [counts, zero])
        safe = nodes.add("Where", [some, counts, one])
        counts = nodes.add("Where", [some, nodes.add("Add", [nodes.add("Log", [safe]), one]), zero])
    if model.use_idf:
        counts = nodes.add("Mul", [counts, nodes.numbers([np.asarray(model.idf_, dtype=np.float64).tolist()])])
    if model.norm is None:
        return counts
    op = "ReduceL2" if model.norm == "l2" else "ReduceL1"
    length = nodes.add(op, [counts, nodes.integers([1])], keepdims=1)
    empty = nodes.add("Equal", [length, zero])
    return nodes.add("Div", [counts, nodes.add("Where", [empty, one, length])])

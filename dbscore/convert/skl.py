"""The call of skl2onnx: an estimator to an ONNX graph in one precision, the same bytes every time."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from onnx import TensorProto
from skl2onnx import convert_sklearn
from skl2onnx._parse import _parse_sklearn_simple_model
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from dbscore.convert.activations import exact_sigmoids
from dbscore.convert.encoders import encoder_converters
from dbscore.convert.graph import boolean_output, flatten_output, keep_outputs, strip_zipmap
from dbscore.convert.kernels import kernel_converters
from dbscore.convert.linear import linear_converters
from dbscore.convert.numeric import numeric_converters
from dbscore.convert.rewrite import rewrite
from dbscore.convert.texts import text_converters
from dbscore.convert.trees import declare_ml_opset, tree_converters

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from onnx import ModelProto

    from dbscore.convert.lineage import Visit
    from dbscore.signature import Tensor

__all__ = ["corrections", "to_onnx"]

# skl2onnx takes the numbers that these make of texts for float32, and whatever follows too
_FROM_TEXT = (CountVectorizer, OneHotEncoder, OrdinalEncoder, TfidfVectorizer)
# ONNX Runtime 1.20, the oldest supported, knows it
OPSET = 21
_SIGMOID = "Sigmoid: 1 / (1 + exp(-x)) instead, as ONNX Runtime's is not exact for small probabilities."


def to_onnx(
    estimator: Any,  # noqa: ANN401 - an estimator
    tensors: Sequence[Tensor],
    *,
    kept: Collection[str],
    precision: str,
    missing: str,
    outputs: int,
    passing: frozenset[int] = frozenset(),
) -> tuple[ModelProto, dict[str, str], tuple[str, ...]]:
    """Convert a fitted estimator; whatever skl2onnx raises passes through.

    Args:
        estimator: The fitted estimator.
        tensors: What the estimator is given, in its order; an ONNX input each.
        kept: The inputs that stay; the others are columns that the estimator drops.
        precision: `float64` or `float32`, of the inputs.
        missing: What stands for a missing text.
        outputs: How many of the graph's outputs are kept: 1, or 2 with the probabilities.
        passing: The ids of imputers of texts that take another missing value than the texts have.

    Returns:
        The graph; what it calls each input: skl2onnx turns names into identifiers, and keeps them apart; and a
        sentence for each change made to the graph.
    """
    shapes: dict[type, Any] = {}
    converters: dict[type, Any] = {}
    for more_shapes, more_converters, _ in _own(precision, missing, passing):
        shapes |= more_shapes
        converters |= more_converters
    rewritten = rewrite(estimator, [t.name for t in tensors])
    types = {"float64": DoubleTensorType, "float32": FloatTensorType, "string": StringTensorType}
    given = [(t.name, types[t.dtype]([None, t.width])) for t in tensors]

    def attempt(options: dict[int, dict[str, bool]] | None) -> ModelProto:
        made: ModelProto = convert_sklearn(
            rewritten,
            # a fixed name: by default it is random, and the bytes would differ every time
            name="dbscore",
            initial_types=given,
            target_opset=OPSET,
            options=options,
            custom_shape_calculators=shapes,
            custom_conversion_functions=converters,
            custom_parsers=dict.fromkeys(_FROM_TEXT, _parser(types[precision])),
        )
        return made

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = attempt({id(_last(rewritten)): {"zipmap": False}})
        except NameError:
            # the estimator knows no such option, as it never makes a ZipMap
            model = attempt(None)
    called = dict(zip([name for name, _ in given], [i.name for i in model.graph.input], strict=True))
    declare_ml_opset(model)
    strip_zipmap(model)
    names = [o.name for o in model.graph.output][:outputs]
    keep_outputs(model, names, feeds=[called[name] for name in kept])
    if isinstance(_last(estimator), QuadraticDiscriminantAnalysis):
        # skl2onnx gives its labels the shape (1, rows)
        flatten_output(model, 0)
    kind = getattr(getattr(getattr(estimator, "classes_", None), "dtype", None), "kind", "")
    # a selector knows its estimator's classes too, and gives numbers
    if kind == "b" and model.graph.output[0].type.tensor_type.elem_type in (TensorProto.INT64, TensorProto.BOOL):
        # ONNX labels are integers: read again, the graph would be a model of integers
        boolean_output(model, 0)
    said = (_SIGMOID,) if exact_sigmoids(model) else ()
    return model, called, said


def corrections(seen: Sequence[Visit], precision: str, missing: str) -> tuple[str, ...]:
    """Return a sentence for each converter of dbscore's own that took part."""
    present = {type(visit.estimator) for visit in seen}
    said = []
    for _, classes, what in _own(precision, missing):
        named = sorted(c.__name__ for c in present.intersection(classes))
        if named:
            said.append(f"{', '.join(named)}: dbscore's own converter, which {what}.")
    return tuple(said)


def _parser(number: type) -> Callable[..., list[Any]]:
    def parse(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> list[Any]:  # noqa: ANN401
        outputs: list[Any] = _parse_sklearn_simple_model(scope, model, inputs, custom_parsers=custom_parsers)
        outputs[0].set_type(number())
        return outputs

    return parse


def _own(
    precision: str, missing: str, passing: frozenset[int] = frozenset()
) -> list[tuple[dict[type, Any], dict[type, Any], str]]:
    """Dbscore's own converters, family by family: shape calculators, converters, and what they do."""
    computes = f"computes in {precision}"
    return [
        (*encoder_converters(missing, precision, passing), f"compares in {precision}; a missing text is {missing!r}"),
        (*numeric_converters(precision), computes),
        (*text_converters(precision), f"finds words of every script and {computes}"),
        (*linear_converters(precision), computes),
        (*kernel_converters(precision), computes),
        (*tree_converters(), "compares thresholds as scikit-learn does and knows where missing values go"),
    ]


def _last(estimator: Any) -> Any:  # noqa: ANN401 - an estimator
    while hasattr(estimator, "steps"):
        estimator = estimator.steps[-1][1]
    return estimator

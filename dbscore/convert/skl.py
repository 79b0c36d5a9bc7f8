"""The call of skl2onnx: an estimator to an ONNX graph in one precision, the same bytes every time."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis

from dbscore.convert.encoders import encoder_converters
from dbscore.convert.graph import flatten_output, keep_outputs, strip_zipmap
from dbscore.convert.linear import linear_converters
from dbscore.convert.trees import declare_ml_opset, tree_converters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx import ModelProto

    from dbscore.convert.lineage import Visit
    from dbscore.signature import Tensor

__all__ = ["corrections", "to_onnx"]

# ONNX Runtime 1.20, the oldest supported, knows it
OPSET = 21


def to_onnx(
    estimator: Any,  # noqa: ANN401 - an estimator
    tensors: Sequence[Tensor],
    *,
    unused: Sequence[Tensor] = (),
    precision: str,
    missing: str,
    outputs: int,
) -> ModelProto:
    """Convert a fitted estimator; whatever skl2onnx raises passes through.

    Args:
        estimator: The fitted estimator.
        tensors: The ONNX inputs.
        unused: Columns that the estimator is given and drops; they keep their place during the conversion only.
        precision: `float64` or `float32`, of the inputs.
        missing: What stands for a missing text.
        outputs: How many of the graph's outputs are kept: 1, or 2 with the probabilities.
    """
    shapes, converters = encoder_converters(missing, precision)
    more_shapes, more_converters = linear_converters(precision)
    shapes, converters = shapes | more_shapes, converters | more_converters
    tree_shapes, tree_conversions = tree_converters()
    shapes, converters = shapes | tree_shapes, converters | tree_conversions
    types = {"float64": DoubleTensorType, "float32": FloatTensorType, "string": StringTensorType}
    given = [(t.name, types[t.dtype]([None, t.width])) for t in (*tensors, *unused)]

    def attempt(options: dict[int, dict[str, bool]] | None) -> ModelProto:
        return convert_sklearn(
            estimator,
            # a fixed name: by default it is random, and the bytes would differ every time
            name="dbscore",
            initial_types=given,
            target_opset=OPSET,
            options=options,
            custom_shape_calculators=shapes,
            custom_conversion_functions=converters,
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = attempt({id(_last(estimator)): {"zipmap": False}})
        except NameError:
            # the estimator knows no such option, as it never makes a ZipMap
            model = attempt(None)
    declare_ml_opset(model)
    strip_zipmap(model)
    names = [o.name for o in model.graph.output][:outputs]
    keep_outputs(model, names, feeds=[t.name for t in tensors])
    if isinstance(_last(estimator), QuadraticDiscriminantAnalysis):
        # skl2onnx gives its labels the shape (1, rows)
        flatten_output(model, 0)
    return model


def corrections(seen: Sequence[Visit], precision: str, missing: str) -> tuple[str, ...]:
    """Return a sentence for each converter of dbscore's own that took part."""
    own, _ = encoder_converters(missing, precision)
    lines, _ = linear_converters(precision)
    trees, _ = tree_converters()
    present = {type(visit.estimator) for visit in seen}
    said = []
    for classes, what in (
        (own, f"compares in {precision}; a missing text is {missing!r}"),
        (lines, f"computes its scores in {precision}"),
        (trees, "compares thresholds as scikit-learn does and knows where missing values go"),
    ):
        named = sorted(c.__name__ for c in present.intersection(classes))
        if named:
            said.append(f"{', '.join(named)}: dbscore's own converter, which {what}.")
    return tuple(said)


def _last(estimator: Any) -> Any:  # noqa: ANN401 - an estimator
    while hasattr(estimator, "steps"):
        estimator = estimator.steps[-1][1]
    return estimator

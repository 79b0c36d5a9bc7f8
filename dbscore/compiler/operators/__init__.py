"""What each ONNX operator computes for one row: one module for each family, one entry for each operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbscore.compiler.operators import arithmetic, encoders, linear, logic, reductions, shapes, trees

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OPERATORS"]

ML = "ai.onnx.ml"

# an operator that is not here is not compiled; why each is: what skl2onnx, onnxmltools or dbscore writes it for
OPERATORS: Mapping[tuple[str, str], Any] = {
    # scalers, links, polynomial features, probabilities
    ("ai.onnx", "Add"): arithmetic.add,
    ("ai.onnx", "Sub"): arithmetic.sub,
    ("ai.onnx", "Mul"): arithmetic.mul,
    ("ai.onnx", "Div"): arithmetic.div,
    ("ai.onnx", "Neg"): arithmetic.neg,
    ("ai.onnx", "Reciprocal"): arithmetic.reciprocal,
    ("ai.onnx", "Abs"): arithmetic.absolute,
    ("ai.onnx", "Sqrt"): arithmetic.sqrt,
    ("ai.onnx", "Exp"): arithmetic.exp,
    ("ai.onnx", "Log"): arithmetic.log,
    ("ai.onnx", "Pow"): arithmetic.power,
    ("ai.onnx", "Floor"): arithmetic.floor,
    ("ai.onnx", "Ceil"): arithmetic.ceil,
    ("ai.onnx", "Sign"): arithmetic.sign,
    ("ai.onnx", "Tanh"): arithmetic.tanh,
    ("ai.onnx", "Sigmoid"): arithmetic.sigmoid,
    ("ai.onnx", "Relu"): arithmetic.relu,
    ("ai.onnx", "LeakyRelu"): arithmetic.leaky_relu,
    ("ai.onnx", "Clip"): arithmetic.clip,
    ("ai.onnx", "Min"): arithmetic.minimum,
    ("ai.onnx", "Max"): arithmetic.maximum,
    ("ai.onnx", "Sum"): arithmetic.total,
    # types, imputers, encoders, labels
    ("ai.onnx", "Cast"): logic.cast,
    ("ai.onnx", "CastLike"): logic.cast_like,
    ("ai.onnx", "Where"): logic.where,
    ("ai.onnx", "IsNaN"): logic.is_nan,
    ("ai.onnx", "Not"): logic.negate,
    ("ai.onnx", "And"): logic.both,
    ("ai.onnx", "Or"): logic.either,
    ("ai.onnx", "Xor"): logic.differ,
    ("ai.onnx", "Equal"): logic.equal,
    ("ai.onnx", "Less"): logic.less,
    ("ai.onnx", "LessOrEqual"): logic.less_or_equal,
    ("ai.onnx", "Greater"): logic.greater,
    ("ai.onnx", "GreaterOrEqual"): logic.greater_or_equal,
    # columns taken, put together and turned
    ("ai.onnx", "Identity"): shapes.identity,
    ("ai.onnx", "Constant"): shapes.constant,
    ("ai.onnx", "ConstantOfShape"): shapes.constant_of_shape,
    ("ai.onnx", "Shape"): shapes.shape,
    ("ai.onnx", "Size"): shapes.size,
    ("ai.onnx", "Reshape"): shapes.reshape,
    ("ai.onnx", "Flatten"): shapes.flatten,
    ("ai.onnx", "Squeeze"): shapes.squeeze,
    ("ai.onnx", "Unsqueeze"): shapes.unsqueeze,
    ("ai.onnx", "Transpose"): shapes.transpose,
    ("ai.onnx", "Expand"): shapes.expand,
    ("ai.onnx", "Tile"): shapes.tile,
    ("ai.onnx", "Concat"): shapes.concat,
    ("ai.onnx", "Split"): shapes.split,
    ("ai.onnx", "Slice"): shapes.slice_,
    ("ai.onnx", "Range"): shapes.range_,
    ("ai.onnx", "Gather"): shapes.gather,
    ("ai.onnx", "GatherElements"): shapes.gather_elements,
    (ML, "ArrayFeatureExtractor"): shapes.array_feature_extractor,
    (ML, "FeatureVectorizer"): shapes.feature_vectorizer,
    # sums, norms, votes
    ("ai.onnx", "ReduceSum"): reductions.sums,
    ("ai.onnx", "ReduceMean"): reductions.means,
    ("ai.onnx", "ReduceMax"): reductions.greatest,
    ("ai.onnx", "ReduceMin"): reductions.least,
    ("ai.onnx", "ReduceProd"): reductions.products,
    ("ai.onnx", "ReduceL1"): reductions.l1,
    ("ai.onnx", "ReduceL2"): reductions.l2,
    ("ai.onnx", "ReduceSumSquare"): reductions.squares,
    ("ai.onnx", "ReduceLogSumExp"): reductions.log_sums,
    ("ai.onnx", "CumSum"): reductions.running_sums,
    ("ai.onnx", "ArgMax"): reductions.arg_max,
    ("ai.onnx", "ArgMin"): reductions.arg_min,
    ("ai.onnx", "Softmax"): reductions.softmax,
    ("ai.onnx", "LogSoftmax"): reductions.log_softmax,
    ("ai.onnx", "LpNormalization"): reductions.lp_normalization,
    (ML, "Normalizer"): reductions.normalizer,
    # linear models, projections, layers of neurons
    ("ai.onnx", "MatMul"): linear.mat_mul,
    ("ai.onnx", "Gemm"): linear.gemm,
    (ML, "Scaler"): linear.scaler,
    (ML, "LinearRegressor"): linear.regressor,
    (ML, "LinearClassifier"): linear.classifier,
    # categories and missing values
    (ML, "LabelEncoder"): encoders.label_encoder,
    (ML, "OneHotEncoder"): encoders.one_hot_encoder,
    (ML, "CategoryMapper"): encoders.category_mapper,
    (ML, "Imputer"): encoders.imputer,
    (ML, "Binarizer"): encoders.binarizer,
    # trees, in both of their encodings
    (ML, "TreeEnsemble"): trees.ensemble,
    (ML, "TreeEnsembleRegressor"): trees.regressor,
    (ML, "TreeEnsembleClassifier"): trees.classifier,
}

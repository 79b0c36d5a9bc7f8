"""The rows that models are fitted on, and those that are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dbscore.signature import NullPolicy, SqlType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dbscore.signature import Signature
    from tests.exactness.cases import Case

FLOAT32_MAX = float(np.finfo(np.float32).max)
NUMBERS = [f"x{i}" for i in range(1, 7)]
EXTREMES = [0.0, -0.0, 5e-324, -1e-310, 1e-300, -1e-45, 16777217.0, 1e18, -FLOAT32_MAX, FLOAT32_MAX, 1e300, -1e300]


def sample(data: str, n: int, seed: int) -> pd.DataFrame:
    """Return rows such as models are fitted on."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(n, 6)) * [1, 1, 3, 0.1, 50, 1] + [0, 1, 0, 0, 100, 0], columns=NUMBERS)
    # many rows with equal numbers, as in tables
    frame["x6"] = np.round(frame["x6"], 1)
    if data == "gaps":
        frame[NUMBERS[1:]] = frame[NUMBERS[1:]].mask(random.random((n, 5)) < 0.15)
    if data == "codes":
        frame["x1"] = random.integers(0, 9, n).astype(float)
        frame["x1"] = frame["x1"].mask(random.random(n) < 0.1)
    if data == "mixed":
        frame = pd.DataFrame(
            {
                "plan": random.choice(np.array(["basic", "pro", "größer", "it's", None], object), n),
                "region": random.choice(np.array(["north", "south", "back\\slash"], object), n),
                "age": random.integers(18, 90, n),
                "active": random.random(n) < 0.5,
                "balance": np.where(random.random(n) < 0.2, np.nan, random.normal(size=n) * 1000),
                "score": random.normal(size=n).astype(np.float32),
            }
        )
    return frame


def target(frame: pd.DataFrame, kind: str) -> np.ndarray[Any, Any]:
    numbers = frame.select_dtypes([np.number, bool]).astype(float).fillna(0.3)
    scaled = (numbers - numbers.mean()) / numbers.std()
    value = scaled.to_numpy() @ np.linspace(1, -0.7, scaled.shape[1]) + np.sin(3 * scaled.iloc[:, 0].to_numpy())
    value = value + np.random.default_rng(5).normal(size=len(frame)) * 0.3
    if kind == "two":
        return (value > 0.2).astype(int)
    if kind == "three":
        return np.array(["high", "low", "mid"])[np.searchsorted([-0.7, 0.8], value)]
    return np.round(np.exp(value / 3)) + 1 if kind == "count" else value


def compared_rows(case: Case, thresholds: Iterable[tuple[int, float]], signature: Signature) -> pd.DataFrame:
    """Return the rows that are compared: such as those fitted on, larger ones, thresholds, NULLs and extremes."""
    random = np.random.default_rng(11)
    frame = sample(case.data, case.rows, 2)
    floats = [f.name for f in signature.features if f.type in (SqlType.REAL, SqlType.DOUBLE) and f.categories is None]
    for factor, share in ((30, 0.15), (2000, 0.05)):
        chosen = random.random(case.rows) < share
        frame.loc[chosen, floats] = (frame.loc[chosen, floats] * factor).astype(frame[floats].dtypes)
    steps = list(_steps(thresholds, signature))
    random.shuffle(steps)
    places = random.choice(case.rows, min(len(steps), case.rows * 2 // 3), replace=False)
    for place, (name, value) in zip(places.tolist(), steps, strict=False):
        frame.loc[place, name] = value
    for name in floats:
        at = random.integers(0, case.rows, 30 * len(EXTREMES))
        values = (
            np.array(EXTREMES * 30).clip(-FLOAT32_MAX, FLOAT32_MAX)
            if frame[name].dtype == "float32"
            else np.array(EXTREMES * 30)
        )
        frame.loc[at, name] = values.astype(frame[name].dtype)
    for feature in signature.features:
        if feature.categories is None or (feature.type is SqlType.TEXT and feature.null_policy is NullPolicy.NAN):
            frame[feature.name] = frame[feature.name].mask(random.random(case.rows) < 0.02)
        if feature.largest is not None:
            frame[feature.name] = frame[feature.name].clip(-feature.largest, feature.largest)
        if feature.type is SqlType.REAL:
            frame[feature.name] = frame[feature.name].clip(-FLOAT32_MAX, FLOAT32_MAX).astype(np.float32)
        if feature.type is SqlType.TEXT and feature.categories is None:
            frame.loc[random.random(case.rows) < 0.02, feature.name] = "unheard of"
    return frame


def _steps(thresholds: Iterable[tuple[int, float]], signature: Signature) -> Iterator[tuple[str, float]]:
    """Yield thresholds of trees that see the features themselves, and the numbers next to them."""
    for column, threshold in thresholds:
        single = np.float32(threshold)
        neighbours = [np.nextafter(single, np.float32(side)) for side in (-np.inf, np.inf)]
        doubles = [float(single), *map(float, neighbours), threshold]
        # halfway, where the rounding to float32 goes one way or the other
        doubles += [(float(single) + float(n)) / 2 for n in neighbours]
        for value in doubles:
            yield signature.features[column].name, value
            for side in (-np.inf, np.inf):
                yield signature.features[column].name, float(np.nextafter(value, side))

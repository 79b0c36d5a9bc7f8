"""The call that one PL/Python function makes with its arguments."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from dbscore.runtime.row import SHOWN, Refusal, Row
from dbscore.runtime.sessions import SESSIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import plpy

    from dbscore.runtime.model import Model


def scorer(name: str, sha256: str, signature_json: str, form: str, result: str) -> Callable[[list[Any]], Any]:
    """Return the call that one PL/Python function makes with its arguments.

    Args:
        name: The version, for messages: `tip_v3`.
        sha256: The model.
        signature_json: Its signature.
        form: `row`: one argument per feature; `array`: numbers, and texts where there are any; `json`: an object.
            In front of them stands the pinned hash, which the planner needs and nothing here does.
        result: `prediction`, `proba` (a list, in the order of the classes), `score` (the second class's), or
            `json` (all of them).
    """
    signature = json.loads(signature_json)
    row = Row(name, signature["features"])
    outputs = {o["kind"]: o for o in signature["outputs"]}
    wanted = outputs["probabilities" if result in ("proba", "score") else "prediction"]
    key = (sha256, signature_json)
    find, touch, get = SESSIONS.models.get, SESSIONS.models.move_to_end, SESSIONS.get

    def read(args: list[Any]) -> Sequence[Any]:
        if form == "json":
            return row.from_json(args[1])
        return row.from_array(args[1], args[2] if len(args) > 2 else None)  # noqa: PLR2004

    def call(args: list[Any]) -> Any:
        model = find(key)
        if model is None:
            model = get(key, signature)
        else:
            touch(key)
        try:
            values = args[1:] if form == "row" else read(args)
            if not row.fill(model, values):
                return json.dumps(dict.fromkeys(outputs)) if result == "json" else None
        except Refusal as refusal:
            plpy.error(refusal.message, hint=refusal.hint, sqlstate="ML002")
        model.calls += 1
        try:
            answer = model.runner(wanted)()
            if result == "score":
                return answer[1]
            return _as_json(model, signature, outputs, answer) if result == "json" else answer
        except Exception as error:  # noqa: BLE001 - whatever ONNX Runtime says of this row
            plpy.error(
                f"{name}: ONNX Runtime cannot score the row {list(values)!r:.{SHOWN}}: {error}",
                hint="Correct the row's values.",
                sqlstate="ML002",
            )

    return call


def _as_json(model: Model, signature: dict[str, Any], outputs: dict[str, Any], prediction: Any) -> str:
    """Return a row's prediction and, for a classifier that has them, its probabilities by class."""
    answer = {"prediction": prediction}
    if "probabilities" in outputs:
        names = [c if isinstance(c, str) else json.dumps(c) for c in signature["classes"]]
        answer["probabilities"] = dict(zip(names, model.runner(outputs["probabilities"])(), strict=True))
    return json.dumps(_finite(answer))


def _finite(value: Any) -> Any:
    """Return JSON values in which NaN and the infinities, which JSON has not, are strings."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value

"""A compiled model: what each of its functions returns, and which features that does not depend on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Program", "Result"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What computes one result of a version.

    Attributes:
        expression: SQL with placeholders for the features, where it is part of the caller's query; else None.
        body: The body of a PL/pgSQL function of the features f1, f2 and so on; else None.
        type: The SQL type.
        unchecked: The features, by number, of which a value that the model does not take shows in the result, which
            then is NULL; the others' values are looked at first.
        size: How many operations it is.
    """

    expression: str | None
    body: str | None
    type: str
    unchecked: tuple[int, ...]
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A compiled version.

    Attributes:
        results: By the suffix of the function that returns it: nothing, `_proba`, `_score`.
        unused: The names of the features that no result depends on.
        splits: How many splits of trees there are.
        is_complement: Whether the probabilities are those of the second class and what is left to 1.
    """

    results: Mapping[str, Result]
    unused: tuple[str, ...]
    splits: int
    is_complement: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the program as JSON values; `from_json` reads it back equal."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Program:
        """Read what `to_json` wrote."""
        results = {
            suffix: Result(**{**result, "unchecked": tuple(result["unchecked"])})
            for suffix, result in data["results"].items()
        }
        return cls(
            results=results,
            unused=tuple(data["unused"]),
            splits=data["splits"],
            is_complement=data.get("is_complement", False),
        )

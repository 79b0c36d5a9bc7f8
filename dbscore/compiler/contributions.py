"""An explained model: what each element of its contributions is, and what computes them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Contribution", "Explanation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """One row of an explanation.

    Attributes:
        name: The feature's name, or those of several that are multiplied: `a * b`.
        features: Their numbers.
    """

    name: str
    features: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What computes the contributions of a version's features.

    Attributes:
        method: `linear`, `path` or `linear and path`: how the terms are taken apart.
        scale: What the contributions and the base add up to.
        base: The base value.
        sample_rows: Of how many rows the base is the mean; 0 where it is none's, so that linear terms count from 0
            and both ways of a split are equally likely.
        rows: What each element of the result is.
        body: The statements of a PL/pgSQL function of the features f1, f2 and so on, returning double precision[].
        size: How many operations it is.
    """

    method: str
    scale: str
    base: float
    sample_rows: int
    rows: tuple[Contribution, ...]
    body: str
    size: int

    def to_json(self) -> dict[str, Any]:
        """Return the explanation as JSON values; `from_json` reads it back equal."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Explanation:
        """Read what `to_json` wrote."""
        rows = tuple(Contribution(name=row["name"], features=tuple(row["features"])) for row in data["rows"])
        return cls(**{**data, "rows": rows})

    @property
    def said(self) -> str:
        """How the contributions are computed, in sentences."""
        whose = f"the means of {self.sample_rows} rows of the sample" if self.sample_rows else None
        found = []
        if "linear" in self.method:
            found.append(f"A linear term contributes its difference from {whose or '0'}.")
        if "path" in self.method:
            weighed = whose or "unweighted means of their children's, as no sample was given"
            found.append(
                "A tree contributes the changes of the nodes' expected values along the path (Saabas 2014), which are "
                f"{weighed}."
            )
        return " ".join(found)

"""What was measured: figures with their bounds, as a Markdown table and as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.case import Measured

__all__ = ["Figure", "described", "machine", "ratio", "save", "table"]

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of the table.

    Attributes:
        arm: The arm of the benchmark it belongs to.
        name: What was measured.
        value: The figure: the median of the rounds' ratios, or a median of them in `unit`.
        unit: `x` for a ratio; else what `value` is counted in.
        at_most: The bound it must not exceed; None where there is none.
        at_least: The bound it must reach; None where there is none.
        detail: The medians behind it, in words.
        samples: What the rounds measured, by name, in the order of the rounds.
    """

    arm: str
    name: str
    value: float
    unit: str = "x"
    at_most: float | None = None
    at_least: float | None = None
    detail: str = ""
    samples: dict[str, list[float]] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the bound is kept; None where there is none."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return None if self.at_least is None else self.value >= self.at_least

    @property
    def bound(self) -> str:
        """The bound, as the table shows it."""
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return "" if self.at_least is None else f"≥ {self.at_least:g}"


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Return the median of the rounds' ratios, so that what disturbs a whole round cancels out."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as one Markdown table."""
    lines = ["| arm | figure | measured | bound | met | medians |", "|---|---|---|---|---|---|"]
    for one in figures:
        met = {True: "yes", False: "**no**", None: ""}[one.met]
        unit = "" if one.unit == "x" else f" {one.unit}"
        lines.append(f"| {one.arm} | {one.name} | {one.value:.2f}{unit} | {one.bound} | {met} | {one.detail} |")
    return "\n".join(lines)


def machine() -> dict[str, object]:
    """Return what the machine is: processor, cores, memory in GiB, system."""
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = (line for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("model name"))
        model = next(named, model).partition(":")[2].strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_at_start": os.getloadavg()[0],
    }


def save(
    figures: Sequence[Figure], *, about: dict[str, object], arms: Sequence[Measured] = (), markdown: str = ""
) -> Path:
    """Write what was measured to `results/<date and time, UTC>.json`, and as text to the .md beside it.

    Args:
        figures: The figures with their bounds.
        about: What they were measured on.
        arms: The whole-table arms, each with what its rounds took.
        markdown: The tables, as they are printed.

    Returns:
        The JSON file.
    """
    now = datetime.now(UTC)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now:%Y-%m-%dT%H%M}.json"
    content = {
        "measured_at": now.isoformat(timespec="seconds"),
        **about,
        "figures": [{**asdict(one), "met": one.met} for one in figures],
        "arms": [{**asdict(one), "median": one.median} for one in arms],
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(f"# Measured {now:%Y-%m-%d %H:%M} UTC\n\n{markdown}\n", encoding="utf-8")
    return path


def described(about: dict[str, object]) -> str:
    """Return what was measured on, as a Markdown list."""
    lines = []
    for name, value in about.items():
        lines.append(f"- {name}: {_flat(value)}".replace("_", " "))
    return "\n".join(lines)


def _flat(value: object) -> str:
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(
        f"{name} ({_flat(one)})" if isinstance(one, dict) else f"{name} {one}" for name, one in value.items()
    )

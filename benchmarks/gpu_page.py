"""Writes the part of docs/speed.md about accelerators from the file of benchmarks/gpu.py.

python benchmarks/gpu_page.py
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from postprior.pipelines.publishing import write_text
from postprior.pipelines.storage import read_json

RESULTS = Path(__file__).with_name("gpu.json")
PAGE = Path(__file__).parents[1] / "docs/speed.md"
BEGIN, END = "<!-- accelerator -->", "<!-- /accelerator -->"
NONE = "**No figure exists.** No accelerator has run this script yet."
PRECISIONS = ("single", "tf32", "bf16")


def absent(part: dict[str, Any]) -> str | None:
    """Return why a part has no figures; None if it has."""
    return part.get("left_out") or part.get("failed")


def values(part: dict[str, Any], of: str) -> str:
    """Return the sentence about values that were compared with the CPU."""
    if why := absent(part):
        return f"- Values of {of}: no figure ({why})."
    unequal = [name for name, entry in part.items() if not entry["equal"]]
    rest = f"; these differ: {', '.join(unequal)}" if unequal else ""
    return f"- Values of {of}: {len(part) - len(unequal)} of {len(part)} comparisons agree with the CPU{rest}."


def speeds(part: dict[str, Any], other: str) -> list[str]:
    """Return the table of a part that has the rows per second of each precision, and of `other` in each precision."""
    if why := absent(part):
        return [f"Against {other}: no figure ({why})."]
    heads = [text for kind in PRECISIONS for text in (kind, f"{kind}, {other}")]
    lines = [f"| model and phase | {' | '.join(heads)} | like | best |", f"|{'---|' * (len(heads) + 3)}"]
    ratios: dict[str, list[float]] = {"like": [], "best": []}
    for name, row in part.items():
        like = statistics.geometric_mean(row[kind] / row[f"{kind}, {other}"] for kind in PRECISIONS)
        best = max(row[kind] for kind in PRECISIONS) / max(row[f"{kind}, {other}"] for kind in PRECISIONS)
        ratios["like"].append(like)
        ratios["best"].append(best)
        lines.append(f"| `{name}` | {' | '.join(f'{row[head]:.0f}' for head in heads)} | {like:.2f} | {best:.2f} |")
    means = ", ".join(f"{kind} {statistics.geometric_mean(found):.2f}" for kind, found in ratios.items())
    return [*lines, "", f"Geometric means of the ratios: {means}."]


def compilation(part: dict[str, Any]) -> str:
    """Return the sentence about compiled steps."""
    if why := absent(part):
        return f"- `torch.compile`: no figure ({why})."
    rows = [
        f"`{name}` {row['compiled'] / row['as it is']:.2f} × (first step {row['first step, compiled']:.0f} s)"
        for name, row in part.items()
    ]
    return f"- `torch.compile`, single precision: {', '.join(rows)}."


def text(results: dict[str, Any]) -> str:
    """Return the part of the page: what a file of benchmarks/gpu.py says."""
    machine, reached = results["machine"], results["coherence"]
    lines = [f"{machine['name']} ({machine['device']}), torch {machine['torch']}, CUDA {machine['cuda']}.", ""]
    lines += [values(results["values_of_models"], "models"), values(results["values_of_densities"], "densities")]
    for name, entry in results["fits"].items():
        lines.append(
            f"- Fit of `{name}`: {entry['seconds']:.1f} s." if isinstance(entry, dict) else f"- Fits: {entry}."
        )
    made = results["generation"]
    of_digits = absent(made) or "{digits} digits in {seconds:.1f} s".format(**made)
    lines.append(f"- Generation: {of_digits}.")
    if (why := absent(reached)) is None:
        curve = reached["seconds_and_coherence"]
        found = f"{reached['seconds']:.1f} s" if reached["seconds"] else f"not reached, {curve[-1][1]:.2f} at the end"
        why = f"joint coherence {reached['target']}: {found}"
    lines += [f"- Digits: {why}.", compilation(results["compilation"]), "", *speeds(results["steps"], "bare"), ""]
    return "\n".join([*lines, *speeds(results["against_multivae"], "MultiVae")])


def main() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    part = text(read_json(RESULTS)) if RESULTS.exists() else NONE
    write_text(PAGE, f"{before}{BEGIN}\n{part}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()

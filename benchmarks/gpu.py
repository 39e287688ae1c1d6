"""Checks and measures an accelerator: everything that one must show, in a single run of at most six minutes.

It makes its own data, needs no network, and writes one file, after every part: values against the CPU in double and
single precision for all models and densities; rows per second of training steps, beside their bare network passes and,
if it is installed, MultiVae on the same networks; of compiled steps; the seconds of fits, of generation, and until
samples of `digits` are coherent. A part that fails is recorded with its error, and the next one runs. A part that would
start after the time limit is left out. docs/speed.md is written from this file.

    python benchmarks/gpu.py [--device cuda] [--small] [--seconds 330] [--out benchmarks/gpu.json]
"""

from __future__ import annotations

import argparse
import platform
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import device_speed
import device_values
import torch

from postprior.pipelines.storage import write_json

RESULTS = Path(__file__).with_name("gpu.json")


def machine(device: torch.device) -> dict[str, Any]:
    """Return what the results depend on besides the code."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": str(device),
        "name": name,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
    }


def parts(size: device_speed.Size, device: torch.device) -> dict[str, Callable[[], Any]]:
    """Return the parts by name, in their order."""
    measured = ("steps", "fits", "generation", "coherence", "against_multivae", "compilation")
    return {
        "values_of_models": partial(device_values.models, device),
        "values_of_densities": partial(device_values.densities, device),
        **{name: partial(getattr(device_speed, name), size, device) for name in measured},
    }


def run(size: device_speed.Size, device: torch.device, seconds: float, out: Path) -> dict[str, Any]:
    """Run all parts, write the file after each of them, and return its content."""
    start = time.perf_counter()
    results: dict[str, Any] = {"machine": machine(device), "seconds": {}}
    for name, part in parts(size, device).items():
        begun = time.perf_counter() - start
        if begun > seconds:
            results[name] = {"left_out": f"the time limit of {seconds:.0f} s was reached"}
        else:
            try:
                with device_speed.precision("single", device):  # convolutions allow TF32 by default
                    results[name] = part()
            except ImportError as error:
                results[name] = {"left_out": str(error)}
            except Exception as error:  # the other parts are wanted too
                traceback.print_exc()
                results[name] = {"failed": f"{type(error).__name__}: {error}"}
        results["seconds"][name] = time.perf_counter() - start - begun
        write_json(out, results)
        print(f"{name}: {results['seconds'][name]:.1f} s", flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="torch device to check")
    parser.add_argument("--small", action="store_true", help="the smallest form of every part")
    parser.add_argument("--seconds", type=float, default=330, help="time after which no part starts")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file to write")
    arguments = parser.parse_args()
    size = device_speed.SMALL if arguments.small else device_speed.Size()
    results = run(size, torch.device(arguments.device), arguments.seconds, arguments.out)
    failed = [name for name, part in results.items() if "failed" in part]
    unequal = [
        f"{name}: {key}"
        for name in ("values_of_models", "values_of_densities")
        for key, entry in results[name].items()
        if isinstance(entry, dict) and not entry["equal"]
    ]
    if failed or unequal:
        raise SystemExit("\n".join([*(f"{name} failed" for name in failed), *(f"{key} differs" for key in unequal)]))


if __name__ == "__main__":
    main()

"""What the stages take at 100 k, 400 k and all 1.8 M products of ESCI's size and shape.

    python -m bench.scale [STAGE ...] [--products N,N,N] [--folder DIR]

`bench.full_size` makes the catalogues. They and the stages' outputs stay in the folder, so that
another stage can be measured later. Each measurement is of a process of its own, with its children.
The figures go to reports/bench/scale.json, and as a table to scale.md. Figures of stages that are
not named stay there if they are of this machine and these libraries.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from bench import cheap_model, reports, scale_data, scale_search
from bench.full_size import command as full_size
from bench.full_size import shape
from bench.measure import Figures, Measure
from bench.memory import Peak, watched
from bench.project import read_settings, surroundings, write_settings
from pipeline.core import layout, stage
from pipeline.core.errors import PipelineError
from pipeline.core.files import read_json, write_json, write_text
from pipeline.core.log import log
from pipeline.core.params import Params
from pipeline.core.params_file import load_params

PRODUCTS = (100_000, 400_000, shape.PRODUCTS)

MEASURES: dict[str, Measure] = {**scale_data.MEASURES, **scale_search.MEASURES}
"""The stages, in the order in which they are measured."""

_FIGURES = Path("figures.json")


def make_project(products: int, folder: Path, threads: int) -> None:
    """Make a project folder with a catalogue, all of which sample takes; a whole one stays.

    Its encoders are all one random model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model"
    if not model.exists():
        cheap_model.write_model(model)
    settings = read_settings()
    settings["sample"] |= {
        "source": str(full_size.FOLDER), "version": "all", "splits": ["train", "test"],
        "queries": "all", "distractors": "all",
    }  # fmt: skip
    for name in set(settings["encoder"].values()):
        weights = {"kind": "folder", "path": "model"}
        settings["encoders"][name] |= {"weights": weights, "pooling": "mean"}
    write_settings(settings, folder)
    source = folder / full_size.FOLDER
    if not source.exists():
        full_size.write(source, products, threads)


def measure(name: str, products: int, folder: Path) -> Figures:
    """Measure a stage in a project folder.

    Returns:
        `products`, `seconds`, `peak_bytes` (resident, of all its processes together),
        `peak_private_bytes` (without mapped files), and the measure's own figures. If it is
        compared: `per_second`, the rate of what it is compared with, in products, and
        `times_as_fast`, its own rate over that.

    Raises:
        PipelineError: it failed.
    """
    _run(name, "prepare", products, folder)
    peak = _run(name, "run", products, folder)
    own: Figures = read_json(folder / _FIGURES, "")
    seconds = own["seconds"]
    figures = own | {
        "peak_bytes": peak.resident,
        "peak_private_bytes": peak.private,
        "products": products,
        "seconds": round(seconds, 2),
    }
    if MEASURES[name].compare:
        _run(name, "compare", products, folder)
        rates = read_json(folder / _FIGURES, "")["per_second"]
        figures["per_second"] = {key: round(rate) for key, rate in rates.items()}
        figures["times_as_fast"] = {
            key: round(products / seconds / rate, 2) for key, rate in rates.items()
        }
    return figures


def _run(name: str, what: str, products: int, folder: Path) -> Peak:
    code = f"from bench import scale; scale.alone({name!r}, {what!r}, {products})"
    command = [sys.executable, "-c", code]
    with (
        subprocess.Popen(command, cwd=folder, env=surroundings(folder)) as process,
        watched(process.pid) as peak,
    ):
        status = process.wait()
    if status:
        raise PipelineError(f"{name} at {products} products ended with status {status}; see above")
    return peak


def alone(name: str, what: str, products: int) -> None:
    """Do one part of a measure in this process and its folder; write its figures to a file.

    Args:
        name: of the stage.
        what: "prepare", "run" or "compare".
        products: how many the catalogue has.
    """
    with stage.report_errors(f"scale ({name}, {products} products)") as outcome:
        measure = MEASURES[name]
        if what == "prepare":
            measure.prepare(products)
        elif what == "compare":
            assert measure.compare
            write_json(_FIGURES, measure.compare(products))
        else:
            started = time.monotonic()
            figures = measure.run(products)
            write_json(_FIGURES, {"seconds": time.monotonic() - started, **figures})
    sys.exit(outcome.status)


def measure_all(names: list[str], sizes: list[int], folder: Path, params: Params) -> None:
    """Measure stages at all sizes, and put the figures into the report as they come."""
    path = layout.SCALE_BENCH
    report = _kept(path, reports.machine())
    commit = reports.commit()
    for products in sizes:
        project = folder / str(products)
        make_project(products, project, params.runtime.thread_count())
        for name in MEASURES:
            if name in names:
                figures = measure(name, products, project) | {"commit": commit}
                log.info("%s %s", name, figures)
                others = report["stages"].get(name, [])
                points = [each for each in others if each["products"] != products]
                report["stages"][name] = sorted(
                    [*points, figures], key=lambda each: int(each["products"])
                )
                write_json(path, report)
                text = table(report["stages"]) + origin(report)
                write_text(path.with_suffix(".md"), text)


def origin(report: Figures) -> str:
    """Return a line that says of what code and on what machine the figures are."""
    stages: Mapping[str, list[Figures]] = report["stages"]
    commits = (point.get("commit", "unknown") for of in stages.values() for point in of)
    return reports.origin(commits, report["machine"])


def _kept(path: Path, here: Figures) -> Figures:
    """Return the figures measured before, or none if another machine measured them."""
    report: Figures = read_json(path, "Remove it.") if path.exists() else {}
    if report.get("machine") == here:
        return report
    if report:
        log.warning(
            "warning: %s was measured on another machine or with other libraries (%s; here: %s): "
            "its figures for %s are dropped",
            path, report.get("machine"), here, ", ".join(report.get("stages", {})),
        )  # fmt: skip
    return {"machine": here, "stages": {}}


def table(stages: Mapping[str, list[Figures]]) -> str:
    """Return seconds and memory as a Markdown table, one row per stage, in the order of `MEASURES`.

    The last column but one holds the time per product at the largest size over that at the size
    before it: 1.0 where cost grows as the catalogue does. Memory is that at the largest size,
    without mapped files.
    """
    sizes = sorted({point["products"] for points in stages.values() for point in points})
    head = ["stage", *(f"{size:,}" for size in sizes), "a product, beside the size before", "GB"]
    rows = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for name in [each for each in MEASURES if each in stages]:
        of = {point["products"]: point for point in stages[name]}
        rates = [of[size]["seconds"] / size for size in sizes if size in of]
        growth = f"{rates[-1] / rates[-2]:.2f}" if len(rates) > 1 and rates[-2] else ""
        seconds = [f"{of[size]['seconds']:,.1f} s" if size in of else "" for size in sizes]
        peak = f"{of[max(of)]['peak_private_bytes'] / 1e9:.2f}"
        rows.append([name, *seconds, growth, peak])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.scale")
    parser.add_argument("stages", nargs="*", metavar="stage", help=f"one of {', '.join(MEASURES)}")
    parser.add_argument(
        "--products", default=",".join(map(str, PRODUCTS)), help="sizes, separated by commas"
    )
    parser.add_argument(
        "--folder", type=Path, help="for catalogues and stages' outputs (default: .cache/scale)"
    )
    options = parser.parse_args()
    if unknown := set(options.stages) - set(MEASURES):
        parser.error(f"unknown stage: {', '.join(sorted(unknown))} (known: {', '.join(MEASURES)})")
    try:
        options.products = [int(each) for each in options.products.split(",")]
    except ValueError:
        parser.error(f"--products {options.products}: must be numbers separated by commas")
    return options


def main() -> int:
    """Measure; return the exit status."""
    options = _options()
    with stage.report_errors("scale") as outcome:
        params = load_params()
        folder = (options.folder or layout.cache() / "scale").resolve()
        measure_all(options.stages or list(MEASURES), options.products, folder, params)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())

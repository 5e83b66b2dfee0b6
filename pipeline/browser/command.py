"""Write a folder that searches a locale's products in the visitor's own browser.

    python -m pipeline.browser --locale us --out build/us
    python -m http.server --directory build/us --bind 127.0.0.1

It needs the vectors of `embed`, the packages of '.[run,browser]' and, the first time, npm. Serve
the folder over https or on localhost: elsewhere, browsers check no hashes.
"""

import argparse
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.browser import check, tiles
from pipeline.browser.npm import PACKAGES, vendor
from pipeline.browser.onnx_model import OnnxEncoder, export_model
from pipeline.browser.tokens import token_settings
from pipeline.core import files, layout, stage
from pipeline.core.arrays import Ints, Matrix, blocks
from pipeline.core.clean_counts import check_text_settings
from pipeline.core.errors import PipelineError
from pipeline.core.log import log
from pipeline.core.outputs import iter_names, refuse_artefacts, refuse_to_lose
from pipeline.core.params import AS_TYPED, Params, Similarity
from pipeline.core.params_file import load_params
from pipeline.core.start import spare_pandas
from pipeline.core.trained_folder import refuse_other_model
from pipeline.encoders.weights import LocalWeights, resolve_weights
from pipeline.runs.inputs import read_inputs
from pipeline.vectors.lengths import to_index_form
from pipeline.vectors.manifest import Manifest, check_ids, read_manifest
from pipeline.vectors.shards import PIECE_ROWS, ShardReader, take_any

MADE_BY = "pipeline.browser"
SCHEMA = 1
ASSETS = Path(__file__).with_name("assets")

RESCORED = 100
MOST_MEGABYTES = 64
"""What the encoder may take, model and tokenizer, unless --megabytes says otherwise."""

_MB = 1_000_000


def make_folder(params: Params, locale: str, out: Path, most_megabytes: int) -> dict[str, Any]:
    """Write the folder, and return its manifest.

    Raises:
        PipelineError: an artefact is missing or stale, the spelling is corrected, the encoder
            cannot be run in a browser, is too large for one or differs from ours there, or npm
            cannot fetch what the page needs.
    """
    spec = params.encoder_of(locale)
    if spec.similarity == "l2":
        raise PipelineError(
            f"{params.entry_of(params.encoder[locale])}.similarity: the page searches by cosine or "
            "dot product (found l2). Use another encoder for this locale."
        )
    if params.spelling[locale] != AS_TYPED:
        raise PipelineError(
            f"spelling.{locale}: the page searches for queries as they are typed (found "
            f"{params.spelling[locale]}). Set it to {AS_TYPED} for this page."
        )
    refuse_to_lose(out, written_files(out))
    held, weights = _read_inputs(params, locale)
    with files.atomic_directory(out) as folder:
        _write_page(folder)
        encoder = _write_encoder(params, locale, held, weights, folder, most_megabytes)
        products = ShardReader(held, "products", locale)
        sample = products.take(tiles.training_rows(products.rows))
        sample = to_index_form(sample, spec.similarity, "products")
        quantiser = tiles.Quantiser(sample)
        (folder / "codebook.bin").write_bytes(quantiser.codebook.astype("<f4").tobytes())
        order = tiles.near_order(partial(_pieces, products, spec.similarity), sample)
        tiles.write_vectors(folder, _pieces(products, spec.similarity, order), quantiser)
        path, remedy = layout.clean(locale).products, layout.rerun_hint("clean", locale)
        brands = tiles.write_shown(folder, path, params.clean, order, remedy)
        return write_manifest(
            folder,
            {
                "locale": locale,
                "language": params.language[locale],
                "products": products.rows,
                "brands": brands,
                "dimension": held.dimension,
                "subvectors": len(quantiser.codebook),
                "encoder": encoder,
            },
        )


def _pieces(
    products: ShardReader, similarity: Similarity, order: Ints | None = None
) -> Iterator[Matrix]:
    """Yield the vectors of all products as an index has them, some thousands at a time.

    Args:
        products: the vectors.
        similarity: of the encoder.
        order: their rows in the order wanted; None for that of the shards.
    """
    for rows in blocks(np.arange(products.rows) if order is None else order, PIECE_ROWS):
        yield take_any(
            rows, lambda some: to_index_form(products.take(some), similarity, "products")
        )


def write_manifest(folder: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write and return the manifest of a filled folder: what it is, and the hash of each file.

    The tiles get their hashes into their names.
    """
    tiles.add_hashes(folder)
    manifest = {
        **about,
        "made_by": MADE_BY,
        "schema": SCHEMA,
        "rescored": RESCORED,
        "rows": {
            "codes": tiles.CODE_ROWS,
            "vectors": tiles.VECTOR_ROWS,
            "titles": tiles.SHOWN_ROWS,
        },
        "files": {
            name: {
                "bytes": (folder / name).stat().st_size,
                "sha256": files.sha256_file(folder / name),
            }
            for name in iter_names(folder)
        },
    }
    files.write_json(folder / "manifest.json", manifest)
    return manifest


def _read_inputs(params: Params, locale: str) -> tuple[Manifest, LocalWeights]:
    """Return the vectors' manifest and the encoder's weights, once all belong together."""
    check_text_settings(locale, params.clean)
    held = read_manifest(params, locale)
    ids = read_inputs(locale)
    check_ids(held, "queries", ids.queries, locale)
    check_ids(held, "products", ids.products, locale)
    weights = resolve_weights(params.encoder_of(locale), params.encoder[locale])
    refuse_other_model(params, params.encoder[locale], weights.sha256)
    if weights.sha256 != held.weights_sha256:
        raise PipelineError(
            f"{layout.embeddings(locale).manifest}: the vectors are of other weights than "
            f"{weights.entry} has now. {layout.rerun_hint('embed', locale)}"
        )
    return held, weights


def _write_page(folder: Path) -> None:
    """Write the page, its libraries and their licences."""
    for asset in sorted(ASSETS.iterdir()):
        shutil.copyfile(asset, folder / asset.name)
    vendor(PACKAGES, folder)
    # npm's package of onnxruntime lacks them; pip's, of the same project, has them.
    runtime = Path(str(distribution("onnxruntime").locate_file("onnxruntime")))
    for name in ("LICENSE", "ThirdPartyNotices.txt"):
        shutil.copyfile(runtime / name, folder / "licences" / f"onnxruntime-{Path(name).stem}.txt")


def _write_encoder(
    params: Params,
    locale: str,
    held: Manifest,
    weights: LocalWeights,
    folder: Path,
    most_megabytes: int,
) -> dict[str, Any]:
    """Export and check the encoder; return what the page must know of it."""
    spec = params.encoder_of(locale)
    tokenizer = export_model(spec, weights, folder / "model.onnx")
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8", newline="\n")
    sizes = [(folder / name).stat().st_size for name in ("model.onnx", "tokenizer.json")]
    refuse_large(weights.entry, locale, sizes[0], sizes[1], most_megabytes)
    settings = token_settings(tokenizer, spec, weights.entry)
    encode = OnnxEncoder(folder / "model.onnx", params.runtime.thread_count())
    least, overlap = check.compare(params, locale, held, encode, tokenizer)
    log.info(
        "browser locale=%s encoder=%s least_cosine=%.4f overlap@10=%s",
        locale, weights.name, least,
        "not measured (no queries)" if overlap is None else f"{overlap:.3f}",
    )  # fmt: skip
    return {"name": weights.name, "weights_sha256": weights.sha256, **settings}


def refuse_large(entry: str, locale: str, model: int, tokenizer: int, most_megabytes: int) -> None:
    """Raise a `PipelineError` if an encoder's files, in bytes, are too large to download."""
    if (total := model + tokenizer) > most_megabytes * _MB:
        raise PipelineError(
            f"{entry} takes {model / _MB:.0f} MB of weights in 8 bits and "
            f"{tokenizer / _MB:.0f} MB of vocabulary, which each visitor downloads (at most "
            f"{most_megabytes} MB are allowed). Use an encoder with a smaller vocabulary for "
            f"{locale}, or allow it: --megabytes {-(-total // _MB)}."
        )


def written_files(out: Path) -> set[str]:
    """Return the files that this command wrote to a folder, as its manifest there says.

    Raises:
        PipelineError: the manifest cannot be read.
    """
    manifest = out / "manifest.json"
    if not manifest.is_file():
        return set()
    found = files.read_json(manifest, "Name a folder that is absent or empty.")
    if not isinstance(found, dict) or found.get("made_by") != MADE_BY:
        return set()
    listed = found.get("files")
    return {manifest.name, *(listed if isinstance(listed, dict) else ())}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.browser",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--locale", required=True, help="a key of `encoder` in params.yaml")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    parser.add_argument(
        "--megabytes", type=int, default=MOST_MEGABYTES, metavar="MB",
        help=f"what the encoder may take of a visitor's download (default: {MOST_MEGABYTES})",
    )  # fmt: skip
    return parser.parse_args()


def main() -> int:
    """Write the folder and say how to serve it; return the exit status."""
    asked = _parse()
    with stage.report_errors("browser") as outcome:
        spare_pandas()
        params = load_params()
        stage.check_locale(params, asked.locale)
        refuse_artefacts({"--out": asked.out}, folders=True, replaced=True)
        for package in ("onnx", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise PipelineError(
                    f"the package {package} is not installed. Run pip install '.[browser]'."
                )
        manifest = make_folder(params, asked.locale, asked.out, asked.megabytes)
        for name, size in summarise(manifest).items():
            sys.stdout.write(f"{size / _MB:8.1f} MB  {name}\n")
        sys.stdout.write(
            f"Serve it: python -m http.server --bind 127.0.0.1 --directory {os.fspath(asked.out)}\n"
        )
    return outcome.status


def summarise(manifest: dict[str, Any]) -> dict[str, int]:
    """Return the bytes of each kind of file, and of what a visitor downloads at most."""
    parts: dict[str, int] = {}
    for name, about in manifest["files"].items():
        kind = name.partition("/")[0].partition("-")[0].partition(".")[0]
        kind = kind if name.endswith((".bin", ".onnx", ".json")) or "/" in name else "page"
        parts[kind] = parts.get(kind, 0) + about["bytes"]
    return {**dict(sorted(parts.items())), "in all": sum(parts.values())}

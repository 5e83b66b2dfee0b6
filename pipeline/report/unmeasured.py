"""The page and the tables of catalogues without judgements, of which nothing is measured."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core import layout
from pipeline.core.cards import read_model
from pipeline.core.clean_counts import CleanCounts, read_counts
from pipeline.core.params import Params
from pipeline.report import parts, render
from pipeline.report.basis import all_sha256, data_sha256
from pipeline.report.checks import check_scores
from pipeline.report.inputs import Scores, evaluate_again
from pipeline.report.parts import trusted_markup
from pipeline.runs.card import NO_JUDGEMENTS
from pipeline.runs.inputs import read_judgements
from pipeline.vectors.manifest import Manifest, check_ids, read_manifest

TABLE = f"Nothing is measured: {NO_JUDGEMENTS}.\n"
"""What reports/report.md says."""


@dataclass(frozen=True)
class Unmeasured:
    """What the page shows of a locale."""

    locale: str
    scores: Scores
    counts: CleanCounts
    manifest: Manifest
    data_sha256: str


def read_unmeasured(params: Params, locale: str) -> Unmeasured:
    """Read what the page shows of a locale.

    Raises:
        PipelineError: an artefact is missing, of another form, or of other tables or choices.
    """
    scores = read_model(layout.metrics(locale), Scores, evaluate_again(locale))
    ids, _, _ = read_judgements(locale)
    manifest = read_manifest(params, locale)
    check_ids(manifest, "queries", ids.queries, locale)
    check_ids(manifest, "products", ids.products, locale)
    counts = read_counts(locale)
    check_scores(locale, scores, manifest, counts, params)
    return Unmeasured(locale, scores, counts, manifest, data_sha256(locale))


def page(locales: Sequence[Unmeasured], params: Params) -> str:
    """Return the page: what the data are, that nothing is measured, and what can be done."""
    script = parts.join_scripts()
    return render.environment().get_template("unmeasured.html.j2").render(
        css=trusted_markup(parts.join_styles(parts.ASSETS / "page.css")),
        script=trusted_markup(script),
        script_hash=parts.integrity(script),
        why=NO_JUDGEMENTS,
        sample=params.sample,
        data_sha256=all_sha256({each.locale: each.data_sha256 for each in locales}),
        locales=[
            {
                "name": each.locale,
                "results": each,
                **render.describe_data(each.counts, each.manifest),
            }
            for each in locales
        ],
    )  # fmt: skip

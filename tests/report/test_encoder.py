"""What an encoder is worth by itself is shown only of the vectors that the page is of."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.core.errors import PipelineError
from pipeline.report.encoder import read_encoder
from pipeline.report.inputs import read_locale
from pipeline.vectors.manifest import Side
from tests.helpers.artefacts import params
from tests.helpers.page_artefacts import ONE, write_locale

LOCALE = "es"


def test_numbers_of_other_vectors_or_another_similarity_are_refused(project: Path) -> None:
    given = params(ONE)
    write_locale(given, LOCALE, queries=9)
    results = read_locale(given, LOCALE)
    read_encoder(results)

    def encoded_again(side: Side) -> Side:
        shards = tuple(each.model_copy(update={"sha256": "2" * 64}) for each in side.shards)
        return side.model_copy(update={"shards": shards})

    manifest = results.manifest
    for change, said in (
        ({"products": encoded_again(manifest.products)}, "product_vectors_sha256 must be"),
        ({"queries": encoded_again(manifest.queries)}, "query_vectors_sha256 must be"),
        ({"weights_sha256": "7" * 64}, "weights_sha256 must be 777777777777"),
        ({"contract": manifest.contract | {"similarity": "l2"}}, "similarity must be 'l2'"),
    ):
        other = replace(results, manifest=manifest.model_copy(update=change))
        with pytest.raises(PipelineError, match=said):
            read_encoder(other)

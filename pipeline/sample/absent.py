"""What a source lacks of a locale: its rows, or the products that are judged."""

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa

from pipeline.core.errors import PipelineError, list_first, named_as, shorten
from pipeline.core.log import log
from pipeline.sample.asker import Asker


def no_rows(
    path: Path, locale: str, found: Collection[str], asker: Asker, instead: str = ""
) -> PipelineError:
    """Return the error of a table that has no row of a locale.

    Args:
        path: the table.
        locale: the locale that is asked for.
        found: the locales that the table has.
        asker: the keys of params.yaml, for messages.
        instead: what else can be done if the table has no row at all.
    """
    if not found:
        return PipelineError(f"{path} has no rows. Write it again with all its rows.{instead}")
    first, listed = named_as(min(found).lower()), list_first(sorted(found))
    wrong = f"{path}: column product_locale never holds {locale!r} (found: {listed})."
    for other in sorted(found):
        if other.strip().lower() == locale:
            return PipelineError(f"{wrong} Write {locale} in place of {shorten(other)}.")
    if asker.options:
        return PipelineError(f"{wrong} Use --locale {first}, or add rows of {locale}.")
    return PipelineError(
        f"{wrong} Remove {locale} from {asker.locales} in params.yaml, or add its rows."
    )


def judged_products(
    judgements: pa.Table, ids: Collection[str], locale: str, path: Path
) -> set[str]:
    """Return the judged products that a source has; warn if it has less than half of them.

    Args:
        judgements: those of the locale, columns as in `tables.SAMPLE_JUDGEMENTS`.
        ids: the products of the locale that the source has.
        locale: the locale.
        path: the table of products.

    Raises:
        PipelineError: products are judged, and the source has none of them.
    """
    judged = set(judgements["product_id"].to_pylist())
    there = judged.intersection(ids)
    if judged and not there:
        raise PipelineError(
            f"{path}: none of the {len(judged)} products judged for locale {locale!r} is there: "
            f"judgements have product_id {shorten(min(judged))}, products {shorten(min(ids))}. "
            "Write ids in the same way in both tables, or add the judged products."
        )
    if 2 * len(there) < len(judged):
        log.warning(
            "warning: %s: %d of the %d products judged for locale %s are missing, such as "
            "product_id %s; their judgements are left out",
            path, len(judged) - len(there), len(judged), locale, shorten(min(judged - there)),
        )  # fmt: skip
    return there

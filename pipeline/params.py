"""Check params.yaml, or add a locale to it: `python -m pipeline.params`."""

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from pipeline.core import params_edit, params_text, stage
from pipeline.core.errors import PipelineError
from pipeline.core.languages import language_of
from pipeline.core.param_types import NO_RERANKER
from pipeline.core.params import ANY_LANGUAGE_ENCODER, AS_TYPED
from pipeline.core.params_file import PARAMS_FILE, check_params, load_params, refuse_locale_name


def add_locale(text: bytes, locale: str, choices: Mapping[str, Any]) -> bytes:
    """Return the text of params.yaml with one more locale; no other line changes.

    Args:
        text: params.yaml.
        locale: the new locale.
        choices: its value in each of the sections that name locales.

    Raises:
        PipelineError: the locale is there, or the text has a form that cannot be edited.
    """
    where = str(PARAMS_FILE)
    refuse_locale_name(locale)
    if locale in check_params(params_text.parse(text, where), where).locales:
        raise PipelineError(
            f"{where}: the locale {locale} is there already. Change its lines, or name another."
        )
    changes: dict[tuple[str, ...], Any] = {
        (section, locale): value for section, value in choices.items()
    }
    return params_edit.put_all(text, changes, where)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.params",
        description="Check params.yaml: every mistake in it is printed, with its key.",
        epilog="Exit status: 0 if params.yaml is valid, 1 if not.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    add = commands.add_parser("add-locale", help="add a locale to every section that names them")
    add.add_argument("locale", help="its name, as the source has it in product_locale")
    add.add_argument(
        "--encoder", default=ANY_LANGUAGE_ENCODER,
        help="its encoder (default: %(default)s, which knows any language)",
    )  # fmt: skip
    add.add_argument("--index", default="flat", help="its index (default: %(default)s)")
    add.add_argument("--rerank", default=NO_RERANKER, help="its reranker (default: %(default)s)")
    add.add_argument(
        "--language", help="an ISO 639-1 code, or any (default: the locale if it is such a code)"
    )
    return parser.parse_args()


def main() -> int:
    """Check `params.yaml`, or add a locale to it, and say so; return the exit status."""
    asked = _parse()
    with stage.report_errors("params") as outcome:
        if asked.command == "add-locale":
            choices = {
                "encoder": asked.encoder, "index": asked.index, "rerank": asked.rerank,
                "language": language_of(asked.locale) if asked.language is None else asked.language,
                "spelling": AS_TYPED, "systems": {},
            }  # fmt: skip
            params = params_edit.write(partial(add_locale, locale=asked.locale, choices=choices))
        else:
            params = load_params()
        sys.stderr.write(f"{PARAMS_FILE} is valid (locales: {', '.join(params.locales)})\n")
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())

"""`python -m pipeline.encoders`: show the encoders of params.yaml, check one, add one."""

import argparse
import sys

from pipeline.core import stage
from pipeline.core.log import log
from pipeline.core.params import Encoder, Params
from pipeline.core.params_file import load_params
from pipeline.core.text_tables import aligned
from pipeline.encoders.catalogue.add import Added, add, check
from pipeline.encoders.catalogue.proposal import Wishes
from pipeline.encoders.catalogue.source import FORMS
from pipeline.encoders.catalogue.table import locate, show_entries


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipeline.encoders", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", title="verbs", metavar="VERB")
    verbs.add_parser("list", help="show the entries; nothing is fetched (the default)")
    checking = verbs.add_parser("check", help="fetch an entry's weights and encode a text with it")
    checking.add_argument("name", metavar="NAME", help="a key of `encoders`")
    adding = verbs.add_parser(
        "add", help="add an entry that a model's own files describe", description=FORMS
    )
    adding.add_argument("name", metavar="NAME", help="its key under `encoders`, such as my-model")
    adding.add_argument("source", metavar="SOURCE", help="a folder, a model of the hub or a wheel")
    adding.add_argument("--replace", action="store_true", help="replace the entry of this name")
    adding.add_argument(
        "--allow-pickle", action="store_true", help="take pickled weights, which can run code"
    )  # fmt: skip
    adding.add_argument("--query-prefix", metavar="TEXT", help="goes before every query")
    adding.add_argument("--passage-prefix", metavar="TEXT", help="goes before every product's text")
    adding.add_argument("--pooling", metavar="NAME", help="such as mean, cls or lasttoken")
    adding.add_argument(
        "--language", metavar="CODES", help="the languages that it knows, such as en,es, or any"
    )
    adding.add_argument("--max-tokens", type=int, metavar="N", help="longer texts are cut there")
    return parser.parse_args()


def _show_added(name: str, added: Added) -> None:
    """Write the entry with the reason for each key, the proof, and how to go on."""
    rows = [["weights", f"{added.entry.weights.kind} {locate(added.entry)}", "SOURCE"]]
    for key, choice in added.proposal.choices.items():
        shown = ", ".join(choice.value) if isinstance(choice.value, list) else choice.value
        rows.append(
            [key, repr(shown) if key.endswith("prefix") else _as_yaml(shown), choice.reason]
        )
    sys.stdout.write(aligned(("key", "value", "because"), rows))
    sys.stdout.write(f"{added.proof}\n")
    licence = added.proposal.licence or "unknown; look it up where the model comes from"
    sys.stdout.write(f"licence: {licence}\n")
    for note in added.notes:
        log.info("%s", note)
    for doubt in added.proposal.doubts:
        log.warning("warning: %s", doubt)
    sys.stdout.write(f"params.yaml has encoders.{name}. {_next_step(name, added)}\n")


def _as_yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _next_step(name: str, added: Added) -> str:
    """Return a sentence with the command that brings the encoder's metrics."""
    users = [locale for locale, chosen in added.params.encoder.items() if chosen == name]
    if users:
        return f"{', '.join(users)} use it: `make repro` brings their metrics."
    locale = _fitting_locale(added.params, added.entry)
    return f"Its metrics beside the others': make try SET='encoder.{locale}={name}'"


def _fitting_locale(params: Params, spec: Encoder) -> str:
    """Return the first locale whose language the encoder knows, else the first."""
    return next(
        (one for one in params.locales if params.language[one] in spec.languages), params.locales[0]
    )


def main() -> int:
    """Do what the verb says; return the exit status."""
    arguments = _parse_arguments()
    with stage.report_errors("encoders") as outcome:
        match arguments.verb:
            case "add":
                codes = arguments.language
                wishes = Wishes(
                    query_prefix=arguments.query_prefix,
                    passage_prefix=arguments.passage_prefix,
                    pooling=arguments.pooling,
                    languages=None if codes is None else tuple(codes.replace(" ", "").split(",")),
                    max_tokens=arguments.max_tokens,
                )
                added = add(
                    arguments.name, arguments.source, wishes,
                    replace=arguments.replace, allow_pickle=arguments.allow_pickle,
                )  # fmt: skip
                _show_added(arguments.name, added)
            case "check":
                local, proof = check(arguments.name)
                sys.stdout.write(
                    f"{arguments.name}: {local.folder}\nsha256 {local.sha256}\n{proof}\n"
                )
            case _:
                sys.stdout.write(show_entries(load_params()))
    return outcome.status

"""Draw the plots of DVC on a page that opens without a network: `make plots`.

The page of `dvc plots` loads Vega from another host. DVC takes a template for its page, so this
command puts the same versions of Vega into one, and keeps it in the cache.
"""

import argparse
import re
import secrets
import sys
from pathlib import Path
from typing import Any

from pipeline.browser.npm import Package, read_taken
from pipeline.core import files, layout, stage
from pipeline.core.errors import PipelineError

LICENCE = "package/LICENSE"

PACKAGES = (
    Package(
        "vega@5.20.2",
        "qmH7aD9GGPpssVdxL1xgcdxTbQzyRUeRR16Os385ymvQhiwCYQNA6+eXUPAZDTVLfk0RXu6Jzj6kUE5jQ80EVw==",
        {LICENCE: "licence", "package/build/vega.min.js": "script"},
    ),
    Package(
        "vega-lite@5.2.0",
        "Yxcg8MvYfxHcG6BbkaKT0oVCIMIcE19UvqIsEwBmyd/7h2nzW7oRnID81T8UrY7hpDrIr6wa2JADOT2dhGNErw==",
        {LICENCE: "licence", "package/build/vega-lite.min.js": "script"},
    ),
    Package(
        "vega-embed@6.18.2",
        "wcDyQPE4J5aiCDc3/suH5RQDvrKkjuLkhzUcbOLwEkNF8/+pp17tS0JghzEvAPNRg+5aG1/N2ydixq8Lk3dOlg==",
        {LICENCE: "licence", "package/build/vega-embed.min.js": "script"},
    ),
)
"""What DVC's page loads, in its order (BSD-3-Clause)."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
script-src 'nonce-%(nonce)s' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: file:; \
base-uri 'none'; form-action 'none'">
<title>DVC plots</title>
{refresh_tag}
<script nonce="%(nonce)s">
%(scripts)s
</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""
"""DVC fills what is in braces; `{scripts}`, which would load the libraries, is left out.

Vega makes functions of the expressions in a plot, hence unsafe-eval.
"""


def write_template(path: Path, nonce: str) -> None:
    """Write a template of DVC's page with the libraries inside, each below its licence.

    Whoever hands the page on must hand on the licences too. Only scripts with the nonce will run.

    Raises:
        PipelineError: this DVC uses other versions, or npm cannot fetch the packages.
    """
    check_versions()
    scripts = []
    for package in PACKAGES:
        taken = {name: content.decode() for name, content in read_taken(package)}
        scripts.append(f"/*! {package.name}\n{taken['licence']}*/\n{taken['script']}")
    page = PAGE % {"nonce": nonce, "scripts": "\n".join(scripts)}
    files.write_text(path, page)


def check_versions() -> None:
    """Check that DVC's page loads the packages that are pinned here.

    Raises:
        PipelineError: it loads others.
    """
    from dvc_render.vega import VegaRenderer

    asked = re.findall(r"/npm/([^\"]+)\"", VegaRenderer.SCRIPTS)
    if asked != (ours := [package.name for package in PACKAGES]):
        raise PipelineError(
            f"this DVC draws with {', '.join(asked) or 'nothing known'}, but {', '.join(ours)} are "
            "pinned. Install the DVC of constraints.txt, or use `dvc plots`, whose page needs a "
            "network."
        )


def dvc_words(given: list[str]) -> list[str]:
    """Return what follows `dvc plots`: `show` where the first word is missing or an option.

    Raises:
        PipelineError: another template is asked for.
    """
    for word in given:
        if word.startswith("--html"):
            raise PipelineError(
                f"{word}: this command has a template of its own. Leave it out, or use `dvc plots`."
            )
    return given if given and not given[0].startswith("-") else ["show", *given]


def draw(words: list[str]) -> int:
    """Run `dvc plots` with the template, in this process; return its exit status.

    DVC writes the data into scripts as they are, and may open the page at once. A text must not end
    its script, so "<" becomes JSON's escape of it; and what a text adds has no nonce.
    """
    from dvc.cli import main as run_dvc
    from dvc_render.vega import VegaRenderer

    as_json = VegaRenderer.partial_html

    def as_safe_json(*given: Any, **named: Any) -> str:
        return str(as_json(*given, **named)).replace("<", r"\u003c")

    nonce = secrets.token_urlsafe(16)
    template = layout.cache().absolute() / "plots" / "page.html"
    write_template(template, nonce)
    VegaRenderer.partial_html = as_safe_json
    VegaRenderer.DIV = VegaRenderer.DIV.replace("<script", f'<script nonce="{nonce}"')
    return int(run_dvc(["plots", *words, "--html-template", str(template)]))


def main() -> int:
    """Draw the plots; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.plots",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "words", nargs="*", metavar="ARGUMENT",
        help="what follows `dvc plots`: show (default), or diff and two revisions",
    )  # fmt: skip
    parser.parse_known_args(sys.argv[1:2])  # for -h alone: what follows a word is for DVC
    with stage.report_errors("plots") as outcome:
        outcome.status = draw(dvc_words(sys.argv[1:]))
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())

"""`python -m pipeline.store`: show what the store holds, and delete the least recently used."""

import argparse
import json
import math
import re
import sys
import time
from datetime import UTC, datetime

from pipeline.core import layout, stage
from pipeline.core.text_tables import aligned
from pipeline.store.upkeep import Namespace, prune, usage


def _table(namespaces: list[Namespace]) -> str:
    """Return a line for each namespace, with all of its identity, and one for the total."""
    keys = sorted({key for namespace in namespaces for key in namespace.identity})
    rows = []
    for one in namespaces:
        identity = [_short(one.identity[key]) if key in one.identity else "-" for key in keys]
        used = _minute(one.used)
        rows.append([one.folder.name, *identity, used, f"{one.entries:,}", _bytes(one.size)])
    entries, size = sum(one.entries for one in namespaces), sum(one.size for one in namespaces)
    rows.append(["total", *("" for _ in keys), "", f"{entries:,}", _bytes(size)])
    header = ["namespace", *keys, "last used", "entries", "size"]
    return aligned(header, rows, numbers=("entries", "size"))


def _minute(seconds: float) -> str:
    """Return a time in Unix seconds as a local date and minute."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC).astimezone():%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):  # a file's date may be beyond the year 9999
        return "unknown"


def _short(value: object) -> str:
    text = str(value)
    if re.fullmatch("[0-9a-f]{64}", text):
        return text[:12]
    return text if text and text == text.strip() else json.dumps(text, ensure_ascii=False)


def _bytes(size: int) -> str:
    power = min(int(math.log10(max(size, 1))) // 3, 3)
    return f"{size / 1_000**power:,.{min(power, 1)}f} {('B', 'kB', 'MB', 'GB')[power]}"


def _not_negative(text: str) -> float:
    try:
        value = float(text)
    except ValueError:  # argparse would name this function in its message
        value = math.nan
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 up")
    return value


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.store",
        description="Show the store of vectors, and delete the least recently used ones. "
        "Nothing is deleted without --yes. Deleted vectors are computed again when needed.",
    )
    parser.add_argument(
        "--keep",
        type=_not_negative,
        metavar="GB",
        help="delete the least recently used until at most this much is left",
    )
    parser.add_argument(
        "--unused-for",
        type=_not_negative,
        metavar="DAYS",
        help="delete what was last used more than DAYS ago; with --keep, nothing newer is deleted",
    )
    parser.add_argument("--yes", action="store_true", help="delete; without it, only say how much")
    arguments = parser.parse_args()
    if arguments.yes and arguments.keep is None and arguments.unused_for is None:
        parser.error("--yes needs --keep or --unused-for (with make: KEEP=GB)")
    return arguments


def main() -> int:
    """Show the store and what could be freed; with --yes, free it. Return the exit status."""
    arguments = _parse_arguments()
    keep, days = arguments.keep, arguments.unused_for
    with stage.report_errors("store") as outcome:
        root = layout.store()
        sys.stdout.write(f"{root}\n{_table(usage(root))}")
        if keep is not None or days is not None:
            since = math.inf if days is None else time.time() - days * 86_400
            freed = prune(root, (keep or 0) * 1e9, since, delete=arguments.yes)
            what = f"{_bytes(freed.size)}: {freed.entries:,} entries in {freed.segments:,} files"
            sys.stdout.write(
                f"freed {what}\n" if arguments.yes else f"would free {what}; --yes frees it\n"
            )
    return outcome.status

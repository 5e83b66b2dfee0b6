"""Random damage to every artefact and random texts, for as long as one likes.

    python -m bench.fuzz [readers] [texts] [--seconds N] [--seed S]

readers: a file of a small finished project is damaged, and a stage or command that reads it runs.
Right is the same result as of the sound file, or one PipelineError with all outputs as they were.
texts: random Unicode and texts that grow go through `pipeline.text`. Right is the same result of
the fast way and the slow one, without what `normalise` takes out, in time linear in the length.

Tries are numbered: `--seed S --first N --tries 1` does try N again. Figures go to
reports/bench/fuzz.json. The exit status is 1 after a failure.
"""

import argparse
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench import damage, reports
from bench.fault_lab import INPUTS, LOCALE, OUTPUTS, Files, Workshop, give_run
from pipeline import gate, trec
from pipeline.core import layout, stage
from pipeline.core.errors import PipelineError
from pipeline.core.files import write_json
from pipeline.core.log import log
from pipeline.core.params import Params
from pipeline.core.params_file import PARAMS_FILE, load_params
from pipeline.text import columns
from pipeline.text.normalise import normalise

SECONDS = 60.0
SHOWN = 20
"""How many failures of a kind are printed with their seeds; all are counted."""

HANG = 60
"""After how many seconds a try counts as one that never ends."""

_ALL_LOCALES = ("demo", "sample", "report")

Read = Callable[[], Files]


@dataclass(frozen=True)
class Failure:
    """A try that ended as none may."""

    number: int
    kind: str
    what: str

    def line(self, part: str, seed: int) -> str:
        """Return it with the command that does it again."""
        again = f"python -m bench.fuzz {part} --seed {seed} --first {self.number} --tries 1"
        return f"{self.kind}: {self.what}\n    {again}"


@dataclass(frozen=True)
class Reader:
    """A stage or a command, and the files that it reads."""

    name: str
    reads: tuple[Path, ...]
    run: Read


class Hang(BaseException):
    """A try took too long; no reader may catch it."""


class Project:
    """A small project in which every stage has run, in this process."""

    def __init__(self, folder: Path) -> None:
        """Make it, or take it where a process before this one did."""
        self.shop = Workshop(folder, with_engine=True)
        os.chdir(folder)
        os.environ["PIPELINE_CACHE"] = str(self.shop.cache)
        self.params = load_params()
        for name in OUTPUTS:
            self._run_stage(name)
        self.readers = self._readers()
        self.sound = {path: path.read_bytes() for each in self.readers for path in each.reads}
        self.expected = {each.name: each.run() for each in self.readers}

    def _run_stage(self, name: str, params: Params | None = None) -> Files:
        if name == "systems":
            give_run(Path())
        body = getattr(import_module(f"pipeline.{name}.stage"), name)
        body(*[params or self.params] + [LOCALE] * (name not in _ALL_LOCALES))
        return self._written(name)

    def _written(self, name: str) -> Files:
        return self.shop.written([name]) if name in OUTPUTS else {}

    def _readers(self) -> list[Reader]:
        written = {name: tuple(map(Path, self.shop.written([name]))) for name in OUTPUTS}
        found = [
            Reader(name, tuple(path for one in of for path in written[one]),
                   partial(self._run_stage, name))
            for name, of in INPUTS.items()
        ]  # fmt: skip
        runs = [path for name in ("retrieve", "bm25", "hybrid") for path in written[name]]
        stored = tuple(path.relative_to(self.shop.folder) for path in self.shop.cache.rglob("*")
                       if path.is_file() and path.is_relative_to(self.shop.cache / "vectors")
                       and path.suffix in (".npy", ".json"))  # fmt: skip
        return [
            *found,
            Reader("store", stored, partial(self._run_stage, "embed")),
            Reader("trec", (*written["clean"], *runs), self._trec),
            Reader("gate", (layout.metrics(LOCALE),), self._gate),
            Reader("params", (PARAMS_FILE,), lambda: {"params": repr(load_params()).encode()}),
        ]

    def _trec(self) -> Files:
        with tempfile.TemporaryDirectory() as folder:
            trec.export(self.params, LOCALE, Path(folder))
            return {path.name: path.read_bytes() for path in Path(folder).iterdir()}

    def _gate(self) -> Files:
        gate.gate(self.params.model_copy(update={"index_gate": 0.5}))
        return {}

    def restore(self, path: Path) -> None:
        """Put the sound file back."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.sound[path])

    def attempt(self, rng: np.random.Generator, number: int) -> tuple[str, Failure | None]:
        """Damage a file and read it; return how it ended, and the failure if it is one."""
        reader = self.readers[int(rng.integers(len(self.readers)))]
        path = reader.reads[int(rng.integers(len(reader.reads)))]
        others = [one for one in self.sound if one.suffix == path.suffix and one != path]
        kinds = damage.of_file(path, others)
        kind = kinds[int(rng.integers(len(kinds)))]
        what = f"{reader.name} read {path} ({kind.name})"
        try:
            kind.apply(rng, path)
            with _bounded():
                found = reader.run()
        except (PipelineError, OSError) as err:
            if isinstance(err, OSError) and stage.system_remedy(err) is None:
                return "crash", Failure(number, "crash", f"{what}: {_place(err)}")
            self.restore(path)
            if self._written(reader.name) != (
                self.expected[reader.name] if reader.name in OUTPUTS else {}
            ):
                return "half", Failure(number, "half", f"{what}: outputs changed, yet: {err}")
            return "refused", None
        except Hang:
            return "hang", Failure(number, "hang", what)
        except Exception as err:  # noqa: BLE001 (whatever it is, it is a failure)
            return "crash", Failure(number, "crash", f"{what}: {_place(err)}")
        finally:
            self.restore(path)
        if found == self.expected[reader.name]:
            return "same", None
        if reader.name in OUTPUTS:
            self._run_stage(reader.name)
        # A source without the file of sources is sound, and so is another table of products.
        another_source = reader.name == "sample" and kind.name == "exchange"
        if kind.may_mean_more or another_source or path.name == layout.SOURCES_FILE:
            return "other", None
        return "wrong", Failure(number, "wrong", f"{what}: a different result, without a message")


def _place(err: Exception) -> str:
    """Return an exception and the last line of the project that it went through."""
    frames = traceback.extract_tb(err.__traceback__)
    at = [each for each in frames if "/pipeline/" in each.filename][-1:] or frames[-1:]
    name = Path(at[0].filename).as_posix().rpartition("/pipeline/")[2]
    return f"{type(err).__name__} at {name}:{at[0].lineno}: {str(err)[:150]}"


@contextmanager
def _bounded() -> Iterator[None]:
    """Raise `Hang` where the block takes longer than `HANG` seconds."""

    def end(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, HANG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


PIECES = (
    *("<br", "<br>", "</p>", "<", ">", "<!--", "-->", "<script>", "</script>", "<style", "<b>"),
    *("<sup>", "</sub>", "<i ", "< ", "<1", "<é", "＜br＞", "&", "&amp;", "&amp;amp;lt;", "&#"),
    *("&#x", "&#65;", "&#8482;", "&#x1F600;", "&copy", "&eacute", "&lt", "&nbsp;", "&#0;", ";"),
    *("™", "℠", "®", "ᵀᴹ", "½", "¼", "⁄", "²", "⁰", "₂", "①", "⒈", "º", "°", "Ⓐ", "㌔", "ﾞ"),
    *("ﾟ", "゛", "゜", "\u3099", "\u309a", "カ", "か", "ｶ", "ー", "－", "―", "—", "-", "~", "〜"),
    *("\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\xad", "\ufe0f", "\ufe0e", "\u20e3"),
    *("İ", "ı", "ſ", "ß", "ŉ", "ﬁ", "Ω", "Å", "i\u0307", "\u0301", "\u0345", "\u0f71", "🏴"),
    *("👩", "🏽", "😀", "🇯🇵", "\U000e0067", "\U000e007f", "क्", "\u064b", "ا", "한", "ᄒ", "ᅡ"),
    *("1", "12", "1,000", "1.000", "3/4", "10x20", "a", "Z", "name", " ", "  ", "\n", "\t", "\r"),
    *("\x00", "\x1f", "\x7f", "\x80", "\x85", "\xa0", "\u2028", "\u3000", "\ufffe", "\ufffd"),
    *("'", '"', "´", "`", "(", ")", "=", "/", "\\", "_", ".", ","),
)
"""Texts that some rule of `normalise` is about."""

GROWN = (1_000, 4_000, 16_000, 64_000)
"""How long texts are whose time is measured, in characters."""

STEEP, NOTED = 12.0, 0.5
"""How many times as long a text of four times the length may take, if more than NOTED seconds."""


def categories() -> list[list[str]]:
    """Return the characters of each category of Unicode, without surrogates."""
    found: dict[str, list[str]] = {}
    for code in range(sys.maxunicode + 1):
        found.setdefault(unicodedata.category(chr(code)), []).append(chr(code))
    return [found[name] for name in sorted(found) if name != "Cs"]


class Texts:
    """Random texts through `normalise` and `normalise_column`."""

    def __init__(self) -> None:
        """Sort the characters by category."""
        self.categories = categories()

    def draw(self, rng: np.random.Generator) -> str:
        """Return a text of up to 40 pieces and characters."""
        text = ""
        pieces = rng.choice(PIECES, int(rng.integers(1, 6)))
        for _ in range(int(rng.integers(1, 40))):
            match int(rng.integers(4)):
                case 0:
                    of = self.categories[int(rng.integers(len(self.categories)))]
                    text += of[int(rng.integers(len(of)))]
                case 1:
                    text += str(pieces[int(rng.integers(len(pieces)))])
                case _:
                    text += PIECES[int(rng.integers(len(PIECES)))]
        return text

    def attempt(self, rng: np.random.Generator, number: int) -> tuple[str, Failure | None]:
        """Try a hundred texts, or a text that grows; return how it ended."""
        try:
            with _bounded():
                if rng.random() < 0.03:
                    return self._grow(rng, number)
                texts = [self.draw(rng) for _ in range(100)]
                fast = columns.normalise_column(pa.array(texts, pa.string())).to_pylist()
                slow = [normalise(text) for text in texts]
        except Hang:
            return "hang", Failure(number, "hang", "a text took too long")
        except Exception as err:  # noqa: BLE001 (whatever it is, it is a failure)
            return "crash", Failure(number, "crash", f"{type(err).__name__}: {str(err)[:150]}")
        for text, one, other in zip(texts, fast, slow, strict=True):
            if one != other:
                return "differ", Failure(
                    number, "differ", f"{text!r}: fast {one!r}, slow {other!r}"
                )
            if other != " ".join(other.split()) or any(
                unicodedata.category(char) == "Cc" for char in other
            ):
                return "unclean", Failure(number, "unclean", f"{text!r}: {other!r}")
        return "same", None

    def _grow(self, rng: np.random.Generator, number: int) -> tuple[str, Failure | None]:
        parts = [str(each) for each in rng.choice(PIECES, 2)]
        pieces = [each * int(rng.choice([1, 1, 20])) for each in parts[: int(rng.integers(1, 3))]]
        start = str(rng.choice(PIECES))
        unit = "".join(pieces) or " "  # a piece may be empty
        before = 0.0
        for length in GROWN:
            text = start + unit * (length // len(unit))
            began = time.process_time()
            normalise(text)
            took = time.process_time() - began
            if took > max(NOTED, STEEP * before) and before:
                what = f"{start!r} + {unit!r} * {length // len(unit)}: {before:.2f} s, {took:.2f} s"
                return "steep", Failure(number, "steep", what)
            before = took
        return "linear", None


@dataclass(frozen=True)
class Tries:
    """Which tries to do: those from `first` on, until the time is over or `tries` are done."""

    seed: int
    first: int
    tries: int | None
    until: float

    def numbers(self) -> Iterator[int]:
        """Yield their numbers."""
        number = self.first
        while (self.tries is None or number < self.first + self.tries) and (
            time.monotonic() < self.until
        ):
            yield number
            number += 1


Event = dict[str, Any]


def attempts(part: str, folder: Path, which: Tries) -> Iterator[Event]:
    """Do tries in this process; yield a begun and an ended event of each."""
    source = Project(folder) if part == "readers" else Texts()
    for number in which.numbers():
        yield {"begun": number}
        outcome, failure = source.attempt(np.random.default_rng([which.seed, number]), number)
        yield {
            "ended": number,
            "outcome": outcome,
            "failure": [failure.kind, failure.what] if failure else None,
        }


class Tally:
    """What the tries of a part came to."""

    def __init__(self, part: str, seed: int) -> None:
        """Start at nothing."""
        self.part, self.seed = part, seed
        self.outcomes: Counter[str] = Counter()
        self.failures: list[Failure] = []

    def count(self, number: int, outcome: str, failure: list[str] | None) -> None:
        """Count a try; a failure is logged, the first of each kind and place."""
        self.outcomes[outcome] += 1
        if failure is not None:
            found = Failure(number, *failure)
            self.failures.append(found)
            if self.outcomes[outcome] <= SHOWN:
                log.error("%s", found.line(self.part, self.seed))

    def figures(self) -> dict[str, Any]:
        """Return them for the report."""
        return {
            "seed": self.seed,
            "tries": sum(self.outcomes.values()),
            "outcomes": dict(self.outcomes),
            "failures": [[each.number, each.kind, each.what] for each in self.failures],
        }


def run_part(part: str, seed: int, first: int, tries: int | None, seconds: float) -> Tally:
    """Do tries in processes of their own, since damaged files may kill one; count all."""
    tally = Tally(part, seed)
    until = time.monotonic() + seconds
    number = first
    last = None if tries is None else first + tries
    while (left := until - time.monotonic()) > 0 and (last is None or number < last):
        begun: int | None = None
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable, "-m", "bench.fuzz", part, "--worker", folder,
                "--seed", str(seed), "--first", str(number), "--seconds", str(left),
                *([] if last is None else ["--tries", str(last - number)]),
            ]  # fmt: skip
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    event = json.loads(line)
                    if "begun" in event:
                        begun = event["begun"]
                    else:
                        begun, number = None, event["ended"] + 1
                        tally.count(event["ended"], event["outcome"], event["failure"])
        if process.returncode == 0:
            break
        if begun is None:
            raise PipelineError(
                f"the process that makes the project failed with status {process.returncode}. "
                "The lines above say why."
            )
        tally.count(begun, "died", ["died", f"the process ended with {process.returncode}"])
        number = begun + 1
    return tally


def _work(options: argparse.Namespace) -> int:
    """Do tries in this process, and say each on standard output as a line of JSON."""
    log.addHandler(logging.NullHandler())
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is not for the parent
    until = time.monotonic() + options.seconds
    which = Tries(options.seed, options.first, options.tries, until)
    for event in attempts(options.parts[0], Path(options.worker), which):
        out.write(json.dumps(event) + "\n")
        out.flush()
    return 0


PARTS = ("readers", "texts")


def main() -> int:
    """Fuzz the parts that the command line names, or all; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"one of {', '.join(PARTS)}")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long, per part")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other tries")
    parser.add_argument("--first", type=int, default=0, help="the number of the first try")
    parser.add_argument("--tries", type=int, help="how many (default: until the time is over)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.parts = options.parts or list(PARTS)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown part: {', '.join(sorted(unknown))} (known: {', '.join(PARTS)})")
    if options.worker:
        return _work(options)
    with stage.report_errors("fuzz") as outcome:
        figures = {}
        for part in options.parts:
            tally = run_part(part, options.seed, options.first, options.tries, options.seconds)
            figures[part] = tally.figures()
            counts = ", ".join(f"{name} {n}" for name, n in sorted(tally.outcomes.items()))
            log.info("%s: %d tries: %s", part, sum(tally.outcomes.values()), counts)
        if options.tries is None:
            write_json(reports.FUZZ, figures)
        if failed := sum(len(each["failures"]) for each in figures.values()):
            raise PipelineError(f"{failed} tries failed. The lines above say which, with seeds.")
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())

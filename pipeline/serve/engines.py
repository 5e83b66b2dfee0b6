"""The open engines. They follow the artefacts: the old one answers until the new one is whole."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.core import stage
from pipeline.core.errors import PipelineError
from pipeline.search.engine import Engine
from pipeline.search.freshness import Signature, signature
from pipeline.search.opening import open_engine

POLL_SECONDS = 2.0
"""How often the artefacts are looked at; they are opened once two looks agree."""


@dataclass
class State:
    """What is known of a locale.

    Attributes:
        engine: what answers, None where it could not be opened yet.
        problem: why the artefacts that are there now cannot be opened; empty if they are open.
        tried: the signature of the artefacts that were tried last.
        seen: the signature at the last look.
    """

    engine: Engine | None = None
    problem: str = ""
    tried: Signature = ()
    seen: Signature = ()


class Engines:
    """The engine of each locale; a thread opens new ones when artefacts change."""

    def __init__(self, locales: Iterable[str]) -> None:
        """Open what can be opened."""
        self.states = {locale: State() for locale in locales}
        self._stop = threading.Event()
        for locale in self.states:
            self._open(locale)
        self._thread = threading.Thread(target=self._follow, name="follow", daemon=True)

    def start(self) -> None:
        """Begin to follow the artefacts, and load the models."""
        self._thread.start()

    def stop(self) -> None:
        """Stop following them."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def get(self, locale: str) -> Engine:
        """Return the engine of a locale.

        Raises:
            PipelineError: it is unknown, or could not be opened.
        """
        if locale not in self.states:
            known = ", ".join(self.states)
            raise PipelineError(f"locale: must be one of {known} (found {locale[:40]!r}).")
        state = self.states[locale]
        if state.engine is None:
            raise PipelineError(state.problem)
        return state.engine

    def ready(self) -> list[str]:
        """Return the locales that can be searched."""
        return [locale for locale, state in self.states.items() if state.engine is not None]

    def _follow(self) -> None:
        for state in self.states.values():
            self._warm(state.engine)
        while not self._stop.wait(POLL_SECONDS):
            for locale, state in self.states.items():
                if self.look(locale):
                    self._warm(state.engine)

    def look(self, locale: str) -> bool:
        """Open the artefacts of a locale if they have changed and two looks agree."""
        state, now = self.states[locale], signature(locale)
        settled = now == state.seen and now != state.tried
        state.seen = now
        if settled:
            self._open(locale)
        return settled

    def _open(self, locale: str) -> None:
        """Open the artefacts as they are now; if that fails, the engine before stays."""
        state = self.states[locale]
        state.tried = state.seen = signature(locale)
        try:
            opened = open_engine(locale)
        except (PipelineError, OSError) as err:
            state.problem = str(err)
            stage.log.warning("warning: %s: %s", locale, err)
            return
        if state.engine is not None:
            opened.query_vectors.take_model(state.engine.query_vectors)
            stage.log.info("locale=%s: the new artefacts are open", locale)
        state.engine, state.problem = opened, ""

    def _warm(self, engine: Engine | None) -> None:
        if engine is None:
            return
        try:
            engine.warm()
        except (PipelineError, OSError) as err:
            stage.log.warning("warning: %s: %s", engine.locale, err)

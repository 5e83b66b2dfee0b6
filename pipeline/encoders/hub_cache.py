"""The user's own cache of the Hugging Face hub: what is there need not be downloaded again."""

import hashlib
import json
from pathlib import Path

from pipeline.core.files import sha256_file
from pipeline.encoders.hub_files import RemoteFile, is_inside
from pipeline.encoders.hub_requests import hub_constants


def cached_list(model: str, revision: str) -> list[RemoteFile]:
    """Return the files that a model has at a commit, as the cache's list says; none without one.

    `hf download` and sentence-transformers keep that list with the files. Only with it is it known
    which files a model lacks, and without them it could give other vectors.
    """
    folder = _cache() / f"models--{model.replace('/', '--')}"
    try:
        text = (folder / "trees" / f"{revision}.json").read_text(encoding="utf-8")
        files = [
            RemoteFile(name, entry["size"], entry.get("lfs_sha256") or entry["blob_id"])
            for name, entry in sorted(json.loads(text)["files"].items())
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []  # written by another release of the library: the hub is asked
    return files if all(is_inside(file.name) for file in files) else []


def find_cached(model: str, revision: str, file: RemoteFile) -> Path | None:
    """Return a file of the cache if it is there and has the right content."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, file.name, cache_dir=_cache(), revision=revision)
    if not isinstance(found, str) or file.digest is None:
        return None
    return Path(found) if has_digest(Path(found), file.digest) else None


def has_digest(path: Path, digest: str) -> bool:
    """Say whether a file's content has a digest: a SHA-256, or the SHA-1 that Git gives a blob."""
    if len(digest) == 64:
        return sha256_file(path) == digest
    hashed = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashed).hexdigest() == digest


def _cache() -> Path:
    constants = hub_constants()
    return Path(constants.HF_HUB_CACHE)

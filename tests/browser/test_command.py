"""What the command refuses, each with one message, before it writes anything."""

import base64
import hashlib
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.browser.command import (
    make_folder,
    refuse_large,
    summarise,
    write_manifest,
    written_files,
)
from pipeline.browser.npm import PACKAGES, Package, fetch, vendor
from pipeline.browser.tokens import token_settings
from pipeline.core.errors import PipelineError
from pipeline.core.outputs import refuse_to_lose
from tests.helpers.artefacts import LOCALE, params, write_clean

TOKENIZER = """{"version": "1.0", "truncation": %s, "padding": null, "added_tokens": [],
 "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
 "post_processor": {"type": "TemplateProcessing",
  "single": [{"SpecialToken": {"id": "S", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
   {"SpecialToken": {"id": "E", "type_id": 0}}, {"SpecialToken": {"id": "E", "type_id": 0}}],
  "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
  "special_tokens": {"S": {"id": "S", "ids": [7], "tokens": ["S"]},
   "E": {"id": "E", "ids": [8], "tokens": ["E"]}}},
 "model": {"type": "WordLevel", "vocab": {"a": 0, "u": 1}, "unk_token": "u"}}"""
LEFT = '{"direction": "Left", "max_length": 4, "strategy": "LongestFirst", "stride": 0}'


def test_only_a_folder_that_this_command_wrote_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert written_files(out) == set()
    out.mkdir()
    (out / "tiles").mkdir()
    for name in ("page.js", "tiles/codes-0.bin"):
        (out / name).write_text("")
    manifest = write_manifest(out, {"locale": "us"})
    assert written_files(out) == {"manifest.json", *manifest["files"]}
    refuse_to_lose(out, written_files(out))
    (out / "tiles/notes.txt").write_text("mine")
    with pytest.raises(PipelineError, match=r"tiles/notes\.txt in it would be lost"):
        refuse_to_lose(out, written_files(out))
    for text in (
        '{"made_by": "me", "files": {"manifest.json": 1}}',
        '{"made_by": "pipeline.browser", "files": 3}', "[]", "{",
    ):  # fmt: skip
        (out / "manifest.json").write_text(text)
        with pytest.raises(PipelineError, match="Name a folder that is absent or empty"):
            refuse_to_lose(out, written_files(out))


def test_an_encoder_of_euclidean_distance_is_refused(tmp_path: Path) -> None:
    given = params({"encoders.minilm.similarity": "l2"})
    with pytest.raises(PipelineError, match="found l2"):
        make_folder(given, "us", tmp_path / "out", 64)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["fields", "separator"])
def test_texts_that_were_made_by_other_settings_are_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_clean(np.random.default_rng(0), 9, 3)
    other = {"fields": list(params().clean.fields)[::-1], "separator": "; "}
    with pytest.raises(PipelineError, match=rf"products\.{name} must be .*: the texts are made"):
        make_folder(params({f"clean.{name}": other[name]}), LOCALE, tmp_path / "out", 64)
    assert not (tmp_path / "out").exists()


def test_an_encoder_that_is_too_large_is_refused_with_its_megabytes() -> None:
    refuse_large("encoders.e5-small-q4", "es", 40_000_000, 24_000_000, 64)
    with pytest.raises(PipelineError, match="118 MB of weights in 8 bits and 17 MB") as refused:
        refuse_large("encoders.e5-small-q4", "es", 118_000_000, 17_000_001, 64)
    assert str(refused.value).endswith("--megabytes 136.")
    refuse_large("encoders.e5-small-q4", "es", 118_000_000, 17_000_001, 136)


def test_the_sizes_add_up(tmp_path: Path) -> None:
    for name in ("index.html", "page.js", "model.onnx", "codes-00000.bin", "codes-00001.bin"):
        (tmp_path / name).write_bytes(b"12345")
    sizes = summarise(write_manifest(tmp_path, {}))
    assert sizes == {"codes": 10, "model": 5, "page": 10, "in all": 25}


def test_a_tile_has_the_hash_of_its_bytes_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "vectors-00000.bin").write_bytes(b"1")
    (tmp_path / "brands.bin").write_bytes(b"2")
    named = f"vectors-00000-{hashlib.sha256(b'1').hexdigest()[:12]}.bin"
    assert list(write_manifest(tmp_path, {})["files"]) == ["brands.bin", named]
    assert (tmp_path / named).read_bytes() == b"1"


def test_the_page_learns_the_special_tokens_around_a_text() -> None:
    settings = token_settings(TOKENIZER % "null", params().encoder_of("es"), "encoders.x")
    assert settings == {
        "query_prefix": "query: ",
        "max_tokens": 256,
        "before": [7],
        "after": [8, 8],
    }
    with pytest.raises(PipelineError, match="cannot cut texts on the left"):
        token_settings(TOKENIZER % LEFT, params().encoder_of("us"), "encoders.x")


@pytest.mark.slow
def test_what_npm_fetches_must_be_the_pinned_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The npm here is a script that sends an archive of ours, as another registry could."""
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as made:
        entry = tarfile.TarInfo("package/a.mjs")
        entry.size = 5
        made.addfile(entry, io.BytesIO(b"let a"))
    (tmp_path / "sent.tgz").write_bytes(archive.getvalue())
    digest = base64.b64encode(hashlib.sha512(archive.getvalue()).digest()).decode()
    package = Package("@a/b@1.0.0", digest, {"package/a.mjs": "vendor/a.js"})
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(PipelineError, match="npm is not on the PATH"):
        fetch(package)
    npm = tools / "npm"
    for script, said in (
        ("echo no such package >&2; exit 1", "npm cannot fetch @a/b@1.0.0 .no such package"),
        ("exit 0", "npm cannot fetch"),
    ):
        npm.write_text(f"#!/bin/sh\n{script}\n")
        npm.chmod(0o755)
        with pytest.raises(PipelineError, match=said):
            fetch(package)
    npm.write_text(f"#!/bin/sh\n/bin/cp {tmp_path}/sent.tgz a-b-1.0.0.tgz\n")
    vendor((package,), tmp_path)
    assert (tmp_path / "vendor/a.js").read_bytes() == b"let a"
    with pytest.raises(PipelineError, match="must have the hash sha512-"):
        fetch(PACKAGES[1])
    os.unlink(npm)  # noqa: PTH108
    vendor((package,), tmp_path)  # from the cache

"""The odd mails of other projects: none is refused that is well formed, and where readers differ stands in a table."""

import os
import re
import tomllib
from pathlib import Path

import pytest

from gateway.pipeline.content import parse
from gateway.stages import Content

SHARED = Path(os.environ.get("GATEPOST_SHARED", Path(__file__).parents[4] / "shared"))
SUITES = SHARED / "suites" / "mime"
TABLE = tomllib.loads((Path(__file__).parents[2] / "views.toml").read_text("utf-8"))


@pytest.mark.parametrize("suite", TABLE)
def test_readers_differ_where_the_table_says_so_and_nowhere_else(suite: str):
    if not SUITES.exists() and os.environ.get("CI") != "true":
        pytest.skip(f"the mails of others are not at {SUITES}; GATEPOST_SHARED names the folder above its parent")
    paths = [path for path in sorted((SUITES / suite).rglob("*")) if path.suffix in {".eml", ".txt", ".raw"}]
    differ = {}
    for path in paths:
        content = parse(re.sub(rb"\r?\n", b"\r\n", path.read_bytes()), Content.Settings())
        if said := [*content.ambiguities, *filter(None, [content.unscannable])]:
            differ[path.relative_to(SUITES / suite).as_posix()] = said
    assert len(paths) == TABLE[suite]["mails"]
    assert differ == TABLE[suite]["differ"]


def test_most_are_read_alike_by_all():
    mails = sum(suite["mails"] for suite in TABLE.values())
    assert sum(len(suite["differ"]) for suite in TABLE.values()) < mails / 15

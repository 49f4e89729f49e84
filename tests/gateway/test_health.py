"""What `status` sees, thing by thing."""

import shutil
from collections import namedtuple

import pytest

from gateway import health
from gateway.config import Config, Server
from gateway.pipeline import policy

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("free", "ok"), [(10 << 30, True), (20 * (50 << 20), True), (900 << 20, False), (0, False)])
def test_a_disk_that_will_soon_refuse_mail_is_told(tmp_path, monkeypatch, free, ok):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(20 << 30, (20 << 30) - free, free))
    check = health._disk(Config(server=Server(data=tmp_path)), policy.load(None, None))
    assert check.ok is ok
    assert f"{free >> 20} MB free of 20480" in check.text

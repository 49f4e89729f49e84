"""Asking the filters: order, deadlines, and that whatever goes wrong is a finding."""

import asyncio
from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from gateway.model import Finding, Mail, Session, Stage, Temporary
from gateway.pipeline import inspect, think
from gateway.pipeline.policy import Policies, Policy
from gateway.stages import Stages

MAIL = Mail("m1", Session(ip_address("192.0.2.1")))


def asking(name, answer, after=(), timeout=1.0):
    filter_ = SimpleNamespace(stage=Stage.MESSAGE, codes=frozenset({"seen"}), after=frozenset(after), check=answer)
    return Policy(name, f"{name}.toml", filter_, timeout, (), pure=False)


def ask(*policies):
    by_name = {one.name: one for one in policies}
    return asyncio.run(inspect.ask(MAIL, Stage.MESSAGE, Policies(Stages(), by_name, "v"), {"before": [Finding("x")]}))


async def seen(mail, found):
    return [Finding("seen", ", ".join(found))]


def test_a_filter_reads_the_findings_of_those_it_comes_after():
    found = ask(asking("last", seen, {"first"}), asking("first", seen))
    assert found["first"][0].detail == "before"
    assert found["last"][0].detail == "before, first"


def test_filters_that_do_not_read_each_other_run_at_the_same_time():
    barrier = asyncio.Barrier(2)

    async def meet(mail, found):
        await barrier.wait()
        return [Finding("seen")]

    assert set(ask(asking("a", meet), asking("b", meet))) == {"before", "a", "b"}


async def raising(mail, found):
    raise ValueError("secret\r\nof ours")


async def undecided(mail, found):
    raise Temporary("nobody answered")


async def hanging(mail, found):
    await asyncio.sleep(30)


async def lying(mail, found):
    return [Finding("undeclared")]


async def nonsense(mail, found):
    return 3


@pytest.mark.parametrize(
    ("check", "detail"),
    [
        (raising, "ValueError in filters/x.py"),
        (undecided, "nobody answered"),
        (hanging, "no answer within 0.05 s"),
        (lying, "LookupError in filters/x.py"),
        (nonsense, "TypeError in filters/x.py"),
    ],
)
def test_whatever_goes_wrong_in_a_filter_is_its_finding_error(check, detail):
    found = ask(asking("x", check, timeout=0.05), asking("y", seen))
    assert found["x"] == [Finding("error", detail)]
    assert found["y"][0].code == "seen"


def test_findings_are_made_safe_to_show_and_bounded_for_each_code():
    async def loud(mail, found):
        return [Finding("seen", "a\r\nb\x1b[1m\u202e" + "x" * 1000)] * 100

    findings = ask(asking("x", loud))["x"]
    assert len(findings) == think.MAX_FINDINGS
    assert len(findings[0].detail) == 300
    assert findings[0].detail.isprintable()
    assert findings[-1] == Finding("seen", "and 81 more"), "it names no part that alone could be stripped"

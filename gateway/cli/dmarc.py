"""The verbs of DMARC: what others report of mail in the name of our domains (RFC 9990).

Names and numbers in reports are strangers' words; whose they are is said beside them.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from gateway import routes, terminal
from gateway.cli.base import CODES, MAX_NUMBER, REFUSED, Json, new_app, reading, wiring_of, writing
from gateway.model import Permanent, Report, ReportRecord, Temporary
from gateway.pipeline import imported, policy, reported
from gateway.stages import Stages
from gateway.store import reports
from gateway.store.reports import Listed, Proof, Received, Tally

app = new_app("What others report of mail in the name of our domains, and what we report to them.")

MAX_FILES = 1000
_DAY = 86400.0
_NAMES_AT_ONCE = 20
_HOW = {Proof.DMARC: "proved by DMARC", Proof.BY_HAND: "imported by hand", Proof.NONE: "not proved"}
_NONE = (
    "There are no reports. Publish an address at _dmarc.<domain>, as in 'v=DMARC1; p=none; rua=mailto:dmarc@<domain>', "
    "and name it under receive in reports.toml; the first reports come after a day or two."
)

Domain = Annotated[str, typer.Argument(help="Only this domain and those below it.")]
Days = Annotated[int, typer.Option(help="Look back so many days.", min=1, max=36500)]
By = Annotated[str, typer.Option("--by", help="Only reports that came from this domain.")]
Unproved = Annotated[bool, typer.Option("--all", help="Count reports too whose sender nobody has proved.")]
Lines = Annotated[int, typer.Option(help="At most so many lines for each domain.", min=1, max=reports.LIMIT)]


@app.command(epilog=CODES)
def report(
    ctx: typer.Context,
    domain: Domain = "",
    days: Days = 30,
    by: By = "",
    everything: Unproved = False,
    names: Annotated[bool, typer.Option("--names", help="Ask the DNS for the names of the sources.")] = False,
    number: Annotated[
        int | None, typer.Option("--id", help="Show this report in full; `reports` has the numbers.", max=MAX_NUMBER)
    ] = None,
    limit: Lines = 20,
    json: Json = False,
) -> None:
    """Say who sends mail in the name of our domains, and whether it passes DMARC.

    A source passes where DKIM or SPF is "pass" for the domain in From. What fails and is yours (a newsletter service,
    a printer) needs a key or a place in the SPF record, before the policy becomes stricter; what fails and is not yours
    is what DMARC is for.

    Examples: gatepost dmarc report · gatepost dmarc report example.org --days 7 --names · gatepost dmarc report --id 12
    """
    if number is not None:
        _show_one(ctx, number, json=json)
        return
    asked, sender, since = routes.normal(domain), routes.normal(by), time.time() - days * _DAY
    with reading(ctx) as conn:
        totals = reports.totals(conn, since, asked, sender=sender, unproved=everything)
        tallies = reports.tallies(conn, since, asked, sender=sender, unproved=everything)
        left_out = 0 if everything else reports.unproved_count(conn, since, asked, sender)
    by_domain = {name: [one for one in tallies if one.domain == name][:limit] for name in totals}
    named = _names(ctx, by_domain) if names else {}
    if json:
        _print_totals(totals, by_domain, named, since, left_out)
    else:
        _show_totals(totals, by_domain, named, left_out)


def _print_totals(
    totals: Mapping[str, tuple[int, int]],
    by_domain: Mapping[str, Sequence[Tally]],
    names: Mapping[str, str],
    since: float,
    left_out: int,
) -> None:
    domains = [
        {
            "domain": domain,
            "mails": mails,
            "passed": passed,
            "failed": mails - passed,
            "sources": [
                {**terminal.plain(one), "passed": one.passed, "name": names.get(one.source, "")}
                for one in by_domain[domain]
            ],
        }
        for domain, (mails, passed) in totals.items()
    ]
    terminal.as_json({"since": since, "unproved_reports": left_out, "domains": domains})


def _show_totals(
    totals: Mapping[str, tuple[int, int]],
    by_domain: Mapping[str, Sequence[Tally]],
    names: Mapping[str, str],
    left_out: int,
) -> None:
    if totals:
        rows = [
            (domain, mails, passed, mails - passed, _share(passed, mails)) for domain, (mails, passed) in totals.items()
        ]
        terminal.table("", ("domain", "mails", "passed", "failed", "passed of all"), rows)
    elif not left_out:
        terminal.say(_NONE)
    columns = (
        "mails",
        "DMARC",
        "dkim",
        "spf",
        "source",
        "From",
        "what was done",
        "reporters",
        *(["name"] if names else []),
    )
    for domain, tallies in by_domain.items():
        terminal.table(domain, columns, (_tally_row(one, names) for one in tallies))
    if left_out:
        few = "1 report is" if left_out == 1 else f"{left_out} reports are"
        terminal.say(
            f"{few} not counted: anybody can have sent them. --all counts them, `gatepost dmarc reports` shows them."
        )


def _share(passed: int, mails: int) -> str:
    return f"{100 * passed / mails:.1f} %" if mails else ""


def _tally_row(one: Tally, names: Mapping[str, str]) -> tuple[object, ...]:
    outcome = Text("pass", "green") if one.passed else Text("fail", "red")
    name = [names.get(one.source, "")] if names else []
    return one.mails, outcome, one.dkim, one.spf, one.source, one.header_from, one.disposition, one.reporters, *name


def _names(ctx: typer.Context, by_domain: Mapping[str, Sequence[Tally]]) -> dict[str, str]:
    """The names that the DNS has for the addresses that are shown; "" where it has none, or cannot tell."""
    wiring = wiring_of(ctx)
    sources = [*dict.fromkeys(one.source for tallies in by_domain.values() for one in tallies)]
    dns, turns = wiring.dns(wiring.config()), asyncio.Semaphore(_NAMES_AT_ONCE)

    async def name(address: str) -> str:
        async with turns:
            try:
                return next(iter(await dns.ptr(address)), "")
            except Temporary:
                return ""

    async def all_names() -> list[str]:
        return await asyncio.gather(*map(name, sources))

    return dict(zip(sources, asyncio.run(all_names()), strict=True))


# ---- Single reports -----------------------------------------------------------------------------------------------


@app.command("reports", epilog=CODES)
def list_reports(
    ctx: typer.Context,
    domain: Domain = "",
    days: Days = 30,
    by: By = "",
    limit: Annotated[int, typer.Option(help="At most so many lines.", min=1, max=reports.LIMIT)] = 50,
    json: Json = False,
) -> None:
    """List the reports that came, the latest first, and whether it is proved who sent them.

    Anybody can write a report. One is proved where the mail that brought it passed DMARC itself: then it comes from the
    domain in the column "from", which should be that of the organisation.

    Example: gatepost dmarc reports example.org --days 7
    """
    with reading(ctx) as conn:
        since = time.time() - days * _DAY
        found = reports.listed(conn, since, routes.normal(domain), routes.normal(by), limit)
    if json:
        terminal.as_json(found)
        return
    columns = ("number", "of (UTC)", "organisation", "from", "", "mails", "about", "mail")
    terminal.table("", columns, map(_report_row, found))


def _report_row(one: Listed) -> tuple[object, ...]:
    when = reported.days(one.begins, one.ends)
    return one.number, when, one.org, one.sender, _proof(one.proof), one.mails, one.domain, one.message_id


def _proof(proof: Proof) -> Text:
    return Text(_HOW[proof], "yellow" if proof is Proof.NONE else "green")


def _show_one(ctx: typer.Context, number: int, *, json: bool) -> None:
    with reading(ctx) as conn:
        found = reports.one(conn, number)
    if found is None:
        raise Permanent(f"there is no report {number}; `gatepost dmarc reports` lists them")
    if json:
        terminal.as_json(found)
    else:
        _show_report(found)


def _show_report(found: Received) -> None:
    told = found.report
    terminal.facts(
        [
            ("organisation", told.org),
            ("contact", told.email),
            ("from", Text.assemble(terminal.text(found.sender), " ", _proof(found.proof))),
            ("mail", found.message_id),
            ("received", terminal.moment(found.received_at)),
            ("id", told.id),
            ("about", told.domain),
            ("of (UTC)", reported.days(told.begins, told.ends)),
            ("published", "; ".join(f"{tag}={value}" for tag, value in told.policy)),
            *(("error", error) for error in told.errors),
            ("not read", "; ".join(_left(told))),
        ]
    )
    columns = ("mails", "dkim", "spf", "source", "From", "envelope", "what was done", "results")
    terminal.table("", columns, map(_record_row, told.records))


def _left(told: Report) -> Iterator[str]:
    if told.faulty:
        yield f"broken records: {told.faulty}"
    if told.left:
        yield f"records that are too many: {told.left}, with {told.left_mails} mails"


def _record_row(one: ReportRecord) -> tuple[object, ...]:
    done = ", ".join((one.disposition, *one.reasons))
    results = "; ".join(f"{method}={result} {domain} {place}".rstrip() for method, result, domain, place in one.results)
    return one.count, one.dkim, one.spf, one.source, one.header_from, one.envelope_from, done, results


# ---- Reports in files ---------------------------------------------------------------------------------------------


@app.command("import", epilog=CODES)
def import_(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="Mails, or XML, gzip or zip files; - reads standard input.")],
    json: Json = False,
) -> None:
    """Read reports from files, for the time before the gateway received them.

    They count as proved: you vouch for them. What is there already is not counted twice; what is about domains that are
    neither in routes.toml nor in reports.toml is not kept. Exits 1 where a file was not kept.

    Example: gatepost dmarc import old-reports/*.gz
    """
    if len(files) > MAX_FILES:
        raise typer.BadParameter(f"at most {MAX_FILES} files at once")
    policies = policy.load(wiring_of(ctx).config().server.policies, None)
    read = asyncio.run(_all(imported.read(policies, map(_content, files))))
    outcomes = {str(file): _keep(ctx, told, policies.stages) for file, told in zip(files, read, strict=True)}
    if json:
        terminal.as_json([{"file": file, "kept": kept, "what": what} for file, (kept, what) in outcomes.items()])
    else:
        for file, (kept, what) in outcomes.items():
            (terminal.say if kept else terminal.complain)(f"{file}: {what}")
    if not all(kept for kept, _ in outcomes.values()):
        raise typer.Exit(REFUSED)


async def _all(read: AsyncIterator[Report]) -> list[Report]:
    return [one async for one in read]


def _keep(ctx: typer.Context, told: Report, stages: Stages) -> tuple[bool, str]:
    """Whether *told* is kept now, and what is to be said of it."""
    now = time.time()
    if why := reported.unusable(told, stages, now):
        return False, f"not kept: {why}"
    with writing(ctx, create=True) as conn:
        kept = reports.keep(conn, Received(told, now, proof=Proof.BY_HAND))
    return kept, reported.sentence(told) if kept else f"already there: {reported.sentence(told)}"


def _content(file: Path) -> bytes:
    try:
        if str(file) == "-":
            content = sys.stdin.buffer.read(imported.MAX_FILE + 1)
        else:
            with file.open("rb") as opened:
                content = opened.read(imported.MAX_FILE + 1)
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {(error.strerror or '').lower()}") from None
    if len(content) > imported.MAX_FILE:
        raise typer.BadParameter(f"{file} is larger than {imported.MAX_FILE >> 20} MB")
    return content

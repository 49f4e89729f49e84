"""The pages of docs/ that an administrator reads tell the truth: all findings, as their policies have them, and every verb.

`python -m tests.test_docs` writes the list of findings anew, from policies/*.toml.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config import SHIPPED_POLICIES
from gateway.pipeline import policy

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "verdicts.md"
BEGIN, END = "<!-- findings: begin -->", "<!-- findings: end -->"
_LINE = re.compile(r"(?P<code>\w+) += (?P<effect>\"\w+\"|-?[\d.]+) *(?:# (?P<words>.*))?")


def findings() -> str:
    """A section for each filter: its question, and a table of its findings."""
    return "\n".join(line for name in sorted(policy.names()) for line in _section(name))


def _section(name: str) -> Iterator[str]:
    text = (SHIPPED_POLICIES / f"{name}.toml").read_text("utf-8")
    question = text.partition("\n")[0].removeprefix("# ")
    yield f"\n### {name}\n\n{_escaped(question)}\n"
    yield "| finding | as shipped | what it means |\n| --- | --- | --- |"
    for code, (effect, words) in explained(text).items():
        yield f"| `{name}/{code}` | {effect} | {_escaped(words)} |"


def explained(text: str) -> dict[str, tuple[str, str]]:
    """What each code of a policy file leads to, and the comment on it: beside it, below it, or on the lines above it."""
    found: dict[str, tuple[str, str]] = {}
    above: list[str] = []
    code = ""
    for line in re.split(r"\n\[actions\]\n", text)[1].split("\n[[")[0].splitlines():
        if match := _LINE.fullmatch(line):
            code, words = match["code"], match["words"] or " ".join(above)
            found[code], above = (match["effect"].strip('"'), words), []
        elif code and re.match(r" +# ", line):
            found[code] = (found[code][0], f"{found[code][1]} {line.strip(' #')}")
        else:
            above = [*above, line.removeprefix("# ")] if line.startswith("# ") else []
    return found


def _escaped(words: str) -> str:
    return re.sub(r"([|<*_])", r"\\\1", words)


def written(page: str) -> str:
    """*page* with the findings as they are now."""
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    return f"{before}{BEGIN}\n{findings()}\n\n{END}{after}"


def test_the_page_has_every_finding_as_the_shipped_policies_have_it() -> None:
    page = PAGE.read_text("utf-8")
    assert page == written(page), "python -m tests.test_docs writes it anew"


@pytest.mark.parametrize("name", policy.names())
def test_every_finding_is_explained_in_its_policy_file(name: str) -> None:
    text = (SHIPPED_POLICIES / f"{name}.toml").read_text("utf-8")
    told = explained(text)
    assert told.keys() == policy.codes(name) == tomllib.loads(text)["actions"].keys()
    assert [code for code, (_, words) in told.items() if len(words) < 10] == []


def test_every_verb_and_option_in_the_pages_is_one(gatepost_verbs: dict[tuple[str, ...], set[str]]) -> None:
    pages = [DOCS / "verdicts.md", DOCS / "signing.md", DOCS.parent / "README.md"]
    typed = [words for page in pages for words in _typed(page.read_text("utf-8"))]
    assert len(typed) > 20
    for words in typed:
        verb = next((v for v in (tuple(words[:2]), tuple(words[:1])) if v in gatepost_verbs), None)
        assert verb, words
        assert {word for word in words if word.startswith("--")} <= gatepost_verbs[verb] | {"--help"}, words


def _typed(page: str) -> Iterator[list[str]]:
    """What the page has people type, word by word, without `gatepost` and its own options."""
    blocks = "\n".join(re.findall(r"```\w*\n(.*?)```", page, re.DOTALL))
    for line in (*re.findall(r"(?m)^gatepost (.*)", blocks), *re.findall(r"`gatepost ([^`]+)`", page)):
        yield re.sub(r"^--config \S+ ", "", line.partition(" #")[0]).split()


@pytest.fixture
def gatepost_verbs() -> dict[tuple[str, ...], set[str]]:
    """The options of every verb."""
    import typer  # noqa: PLC0415 - as the command itself is made

    from gateway import cli  # noqa: PLC0415

    def walk(command: object, before: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], set[str]]]:
        for name, one in getattr(command, "commands", {}).items():
            yield (*before, name), {option for param in one.params for option in param.opts}
            yield from walk(one, (*before, name))

    return dict(walk(typer.main.get_command(cli.app), ()))


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")

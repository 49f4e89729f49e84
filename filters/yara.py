"""Do rules of the administrator (YARA) know something in what the mail carries?

They are compiled before the first mail, and applied in the confined child to the decoded octets of each part. Where
there are none, nothing is loaded and nothing asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from gateway.model import Finding, Found, Mail, Part, Payloads, Stage

if TYPE_CHECKING:
    import yara_x

SUFFIXES = {".yar", ".yara"}
MAX_RULES = 20
"""Rules that are named of one part; of 1,000 that match, the first say enough."""

MAX_MATCHES = 1000
"""Places of one pattern that are looked at."""

_SUSPICIOUS = "suspicious"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the rules are, and how much of a part they see."""

    rules: str = ""
    """The absolute path of a folder with files *.yar or *.yara; empty: there are none."""

    part_size: int = 20 << 20
    """Octets of a part that are looked at; a larger one is `unscanned` as well."""


class Filter:
    """Applies all rules to each part. One that is tagged `suspicious` is a doubt, any other a find."""

    stage: ClassVar[Stage] = Stage.MESSAGE
    codes: ClassVar[frozenset[str]] = frozenset({"found", _SUSPICIOUS, "unscanned"})
    after: ClassVar[frozenset[str]] = frozenset()
    by_part: ClassVar[bool] = True

    def __init__(self, settings: Settings, payloads: Payloads | None) -> None:
        """ValueError where a rule cannot be compiled. Without *payloads* that is all it is made for."""
        if settings.part_size < 1:
            raise ValueError("part_size is above 0")
        self._payloads, self._most = payloads, settings.part_size
        sources = _sources(settings.rules) if settings.rules else {}
        self.folders = (Path(settings.rules),) if settings.rules else ()
        self.version = _version(sources)
        # Its time cannot be limited by itself (that needs a thread): the clocks of the confined child count it.
        scanner = _scanner(sources) if sources else None
        self._scanner = None if payloads is None else scanner

    def check(self, mail: Mail, found: Found) -> Sequence[Finding]:  # noqa: ARG002  it reads no other filter
        """One finding for each rule that matches in each part, and one for each part that is too large for them."""
        if self._scanner is None or self._payloads is None:
            return []
        return [one for part in mail.content.parts for one in _judged(self._scanner, self._payloads, part, self._most)]


def _judged(scanner: yara_x.Scanner, payloads: Payloads, part: Part, most: int) -> Iterator[Finding]:
    octets = payloads.of(part, most + 1)
    if not octets:
        return
    for rule in scanner.scan(octets[:most] if len(octets) > most else octets).matching_rules[:MAX_RULES]:
        code = _SUSPICIOUS if _SUSPICIOUS in rule.tags else "found"
        yield Finding(code, f"the rule {rule.identifier} of {rule.namespace} matches", part.path)
    if len(octets) > most:
        yield Finding("unscanned", f"the rules saw its first {most} octets only", part.path)


def _sources(folder: str) -> Mapping[str, str]:
    """The texts of all files of rules in *folder*, by their names."""
    if not Path(folder).is_absolute():
        raise ValueError(f'rules is the absolute path of a folder, not "{folder}"')
    try:
        files = sorted(path for path in Path(folder).iterdir() if path.suffix in SUFFIXES)
        texts = {path.name: path.read_text("utf-8") for path in files}
    except (OSError, UnicodeError) as error:
        why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else f"{folder}: not UTF-8"
        raise ValueError(f"the rules cannot be read: {why}") from None
    if not texts:
        raise ValueError(f"there are no rules in {folder}: their files end in .yar or .yara")
    return texts


def _version(sources: Mapping[str, str]) -> str:
    """What names exactly these texts."""
    return hashlib.sha256(repr(sorted(sources.items())).encode("utf-8", "surrogatepass")).hexdigest()


def _scanner(sources: Mapping[str, str]) -> yara_x.Scanner:
    """All rules, compiled; each file is a namespace of its own. What a file would include is not looked for."""
    import yara_x  # noqa: PLC0415  37 MB on disk and 6 in memory, where there are rules

    compiler = yara_x.Compiler(includes_enabled=False)
    for name, text in sources.items():
        compiler.new_namespace(name)
        try:
            compiler.add_source(text, origin=name)
        except yara_x.CompileError as error:
            first, place, *_ = [*str(error).splitlines(), ""]
            raise ValueError(f"a rule cannot be used: {first} {place.strip()}") from None
    scanner = yara_x.Scanner(compiler.build())
    scanner.max_matches_per_pattern(MAX_MATCHES)
    return scanner

"""Policies decide. One TOML file binds one filter and says what its findings do.

    policies/spf.toml  <->  filters/spf.py  <->  tests/filters/test_spf.py

A finding leads to a word (an action) or to a number (an amount of score). Every code that a filter can report, and
"error", must be decided in its file: a set of policies with a gap or a fault does not load, and says all that is wrong.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import inspect
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from gateway import stages, toml
from gateway.config import Networks
from gateway.model import (
    ERROR,
    Action,
    AskingFilter,
    Finding,
    Found,
    Mail,
    Payloads,
    PureFilter,
    Reason,
    Stage,
    Tools,
    Verdict,
)
from gateway.stages import STAGE_FILES, Stages
from gateway.toml import Duration, Fault, FaultyFiles, List, Table

CONTENT = "content"
"""The one policy with actions but without a filter: what the confined parser says of a mail that it cannot read."""

MARGIN = 5.0
"""Seconds that a filter with a time of its own has beyond it, where its file says nothing."""

CONTENT_CODES = frozenset({"unscannable", "ambiguous"})

_UNKNOWN = {"settings": "is not a known setting", "actions": "no such finding"}
_WORDS = {action.value: action for action in Action}


def _effect(value: object) -> object:
    if isinstance(value, Action):
        return value
    if isinstance(value, str) and value in _WORDS:
        return _WORDS[value]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise ValueError(f"an effect is a finite number (score) or one of: {', '.join(_WORDS)}")


_NOTHING: Any = None
NO_TOOLS = Tools(_NOTHING, _NOTHING, "", _NOTHING, _NOTHING, _NOTHING, _NOTHING)
"""With these a filter can be made, which shows whether it takes its settings, and not be asked."""

Effect = Annotated[Action | float, BeforeValidator(_effect)]


class Rule(Table):
    """What codes lead to, for the mail that all given patterns match. An empty pattern matches everything."""

    recipients: List[str] = ()
    senders: List[str] = ()
    peers: Networks = ()
    users: List[str] = ()
    direction: Literal["", "inbound", "outbound"] = ""
    actions: dict[str, Effect]

    def covers(self, mail: Mail, recipient: str) -> bool:
        """Whether this rule is for *mail* on its way to *recipient*."""
        return (
            (not self.direction or self.direction == mail.session.direction.value)
            and (not self.recipients or _matches(self.recipients, recipient))
            and (not self.senders or _matches(self.senders, mail.envelope.sender))
            and (not self.users or _matches(self.users, mail.session.user))
            and (not self.peers or any(mail.session.peer in network for network in self.peers))
        )


def _matches(patterns: tuple[str, ...], value: str) -> bool:
    lowered = value.lower()
    return any(fnmatchcase(lowered, pattern.lower()) for pattern in patterns)


class PolicyFile(Table):
    """The shape of a filter's policy file. One that is not `enabled` is checked like the others, and never asked."""

    enabled: bool = True
    timeout: Duration = 10.0
    settings: dict[str, Any] = Field(default_factory=dict)
    actions: dict[str, Effect]
    exceptions: List[Rule] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """One filter, ready to run, with its rules: exceptions in their order, then what holds for all.

    `filter` is None for `content` alone. `pure` filters think about content only, and so run in the confined child,
    which builds them from `settings` (JSON).
    """

    name: str
    file: str
    filter: PureFilter | AskingFilter | None
    timeout: float
    rules: tuple[Rule, ...]
    pure: bool = False
    settings: str = "{}"

    @property
    def stage(self) -> Stage:
        """When it is decided what the filter is to find."""
        return self.filter.stage if self.filter is not None else Stage.MESSAGE

    def effect(self, finding: Finding, mail: Mail, recipient: str) -> Action | float:
        """What *finding* leads to for this *recipient*: the first rule that covers it and names its code."""
        for rule in self.rules:
            if finding.code in rule.actions and rule.covers(mail, recipient):
                return rule.actions[finding.code]
        raise LookupError(f"{self.file} does not decide {finding.code}")


Waves = tuple[tuple[Policy, ...], ...]
"""Policies in the order in which their filters are asked: those of one wave do not read each other's findings."""


@dataclass(frozen=True)
class Policies:
    """All policy files, loaded and checked: one set, swapped as a whole. `version` names exactly these texts."""

    stages: Stages
    by_name: Mapping[str, Policy]
    version: str

    @cached_property
    def pure(self) -> tuple[Policy, ...]:
        """The policies whose filters run in the confined child."""
        return tuple(policy for policy in self.by_name.values() if policy.pure)

    @cached_property
    def folders(self) -> frozenset[Path]:
        """Where filters have files of their own, which belong to the set as the policy files do."""
        return frozenset(folder for one in self.by_name.values() for folder in getattr(one.filter, "folders", ()))

    def asking(self, stage: Stage) -> Waves:
        """The policies whose filters ask the world at *stage*, in waves: those of one are asked at the same time."""
        return self._asking[stage]

    @cached_property
    def _asking(self) -> Mapping[Stage, Waves]:
        asking = [policy for policy in self.by_name.values() if policy.filter is not None and not policy.pure]
        return {stage: waves(policy for policy in asking if policy.stage is stage) for stage in Stage}

    def decide(self, found: Found, mail: Mail, recipient: str) -> Verdict:
        """Weigh what was *found* for one recipient. Pure: same facts, same verdict. The sentence is `explain`'s."""
        reasons = tuple(
            Reason(name, finding, self.by_name[name].effect(finding, mail, recipient))
            for name, findings in found.items()
            for finding in findings
        )
        score = math.fsum(reason.effect for reason in reasons if not isinstance(reason.effect, Action))
        words = [reason.effect for reason in reasons if isinstance(reason.effect, Action)]
        return Verdict(Action.strictest(self.stages.score.action(score), *words), score, reasons)


def waves(policies: Iterable[Policy]) -> Waves:
    """Group *policies* so that each filter comes later than those whose findings it reads."""
    by_name = {policy.name: policy for policy in policies}
    order = TopologicalSorter({name: _after(policy) & by_name.keys() for name, policy in by_name.items()})
    order.prepare()
    found = []
    while ready := order.get_ready():
        found.append(tuple(by_name[name] for name in ready))
        order.done(*ready)
    return tuple(found)


def _after(policy: Policy) -> frozenset[str]:
    return policy.filter.after if policy.filter is not None else frozenset()


def load(configured: Path | None, tools: Tools | None) -> Policies:
    """Read every policy file in force, or raise `FaultyFiles` with every fault in all of them.

    Without *tools* the set can be checked and can decide, but its asking filters cannot be run.
    """
    faults: list[Fault] = []
    tables: dict[str, Table] = {}
    policies: dict[str, Policy] = {}
    digest = hashlib.sha256()
    for stem, path in stages.files(configured).items():
        try:
            table, text = toml.read(path)
            digest.update(f"{stem}\0{text}\0".encode())
            if stem in STAGE_FILES:
                tables[stem] = toml.validated(STAGE_FILES[stem], table, path, text)
            elif stem == CONTENT:
                tables[stem], policies[stem] = _content(table, path, text)
            else:
                policies[stem] = _bind(stem, table, path, text, tools)
                digest.update(getattr(policies[stem].filter, "version", "").encode())
            if table.get("enabled") is False:
                policies.pop(stem, None)
        except FaultyFiles as error:
            faults += error.faults
    faults += [*_order_faults(policies), *_blind_faults(policies, tables)]
    if faults:
        raise FaultyFiles(faults)
    return Policies(Stages.model_validate(tables), policies, digest.hexdigest()[:12])


def _content(table: dict[str, Any], path: Path, text: str) -> tuple[Table, Policy]:
    _demand_no_timeout(table, path, text)
    file = toml.validated(PolicyFile, table, path, text)
    settings = toml.validated(stages.Content, {"settings": file.settings}, path, text)
    rules = _rules(file, CONTENT_CODES, path, text)
    return settings, Policy(CONTENT, path.name, None, file.timeout, rules)


def _bind(name: str, table: dict[str, Any], path: Path, text: str, tools: Tools | None) -> Policy:
    module = _module(name, path)
    try:
        file = toml.validated(PolicyFile, table, path, text)
    except FaultyFiles as error:
        raise FaultyFiles([*error.faults, *_unknown_words(module, table, path, text)]) from None
    asking = inspect.iscoroutinefunction(module.Filter.check)
    if not asking:
        _demand_no_timeout(table, path, text)
    settings = _settings(module.Settings, file.settings, path, text)
    rules = _rules(file, module.Filter.codes, path, text)
    timeout = _timeout(file, settings, path, text)
    try:
        made = module.Filter(settings, tools or NO_TOOLS) if asking else made_pure(module, settings, _NOTHING)
    except ValueError as error:
        raise FaultyFiles([Fault(str(path), toml.line_of(text, ("settings",)), "settings", str(error))]) from None
    filter_ = module.Filter if asking and tools is None else made
    return Policy(name, path.name, filter_, timeout, rules, not asking, json.dumps(file.settings))


def _unknown_words(module: Any, table: Mapping[str, Any], path: Path, text: str) -> Iterator[Fault]:
    """The settings and findings that a file names and nobody knows, when it cannot be read as a whole."""
    settings = {one.name for one in dataclasses.fields(module.Settings)}
    for place, known in {"settings": settings, "actions": {*module.Filter.codes, ERROR}}.items():
        named = table.get(place)
        for word in sorted(named.keys() - known) if isinstance(named, dict) else ():
            line, cure = toml.line_of(text, (place, word)), toml.suggestion(word, known)
            yield Fault(str(path), line, f"{place}.{word}", _UNKNOWN[place], cure)


def names() -> tuple[str, ...]:
    """All whose findings a policy file decides: every filter, and `CONTENT`."""
    return (*sorted(p.stem for p in (Path(__file__).parents[2] / "filters").glob("[a-z]*.py")), CONTENT)


def codes(name: str) -> frozenset[str]:
    """All that *name*, one of `names`, can find, and `ERROR`."""
    found = CONTENT_CODES if name == CONTENT else importlib.import_module(f"filters.{name}").Filter.codes
    return found | {ERROR}


def made_pure(module: Any, settings: Any, payloads: Payloads) -> Any:
    """The pure filter of *module*; one that looks into parts gets *payloads*."""
    looks_in = len(inspect.signature(module.Filter).parameters) == 2
    return module.Filter(settings, payloads) if looks_in else module.Filter(settings)


def _demand_no_timeout(table: Mapping[str, Any], path: Path, text: str) -> None:
    """What runs in the confined child has one time for all together; a key that changes nothing is a fault."""
    if "timeout" in table:
        cure = "see timeout in the settings of content.toml"
        raise FaultyFiles([Fault(str(path), toml.line_of(text, ("timeout",)), "timeout", "has no meaning here", cure)])


def _timeout(file: PolicyFile, settings: Any, path: Path, text: str) -> float:
    """A filter with a time of its own has to come to an end before it is stopped: else it can only be an error."""
    own = float(getattr(settings, "timeout", 0.0))
    if "timeout" not in file.model_fields_set:
        return max(file.timeout, own + MARGIN)
    if own >= file.timeout:
        cure = f"write a timeout above {own:g}, at the top of the file"
        problem = f"is not longer than the timeout of the settings, {own:g} seconds"
        raise FaultyFiles([Fault(str(path), toml.line_of(text, ("timeout",)), "timeout", problem, cure)])
    return file.timeout


def _module(name: str, path: Path) -> Any:
    if name not in names():
        cure = toml.suggestion(name, [*names(), *STAGE_FILES])
        raise FaultyFiles([Fault(str(path), 0, "", f"there is no filter and no stage named {name}", cure)])
    return importlib.import_module(f"filters.{name}")


def _settings(kind: type[Any], table: dict[str, Any], path: Path, text: str) -> Any:
    """*table* as the filter's own `Settings`, by way of JSON: so a list becomes a tuple, and nothing else bends."""
    known = {field.name for field in dataclasses.fields(kind)}
    faults = [
        Fault(str(path), toml.line_of(text, ("settings", key)), f"settings.{key}", _UNKNOWN["settings"], cure)
        for key in table.keys() - known
        for cure in [toml.suggestion(key, known)]
    ]
    if faults:
        raise FaultyFiles(faults)
    try:
        return build_settings(kind, json.dumps(table, allow_nan=False))
    except ValidationError as error:
        found = [(("settings", *item["loc"]), *toml.in_words(item, ())) for item in error.errors(include_url=False)]
    except (TypeError, ValueError) as error:
        found = [(("settings",), str(error), "")]
    raise FaultyFiles(
        [Fault(str(path), toml.line_of(text, at), ".".join(map(str, at)), *words) for at, *words in found]
    )


def build_settings(kind: type[Any], settings: str) -> Any:
    """A filter's `Settings` from JSON, strictly."""
    return TypeAdapter(kind).validate_json(settings, strict=True)


def _rules(file: PolicyFile, codes: frozenset[str], path: Path, text: str) -> tuple[Rule, ...]:
    """The rules of *file*, or faults for each undecided and each unknown code."""
    decidable = codes | {ERROR}
    line = toml.line_of(text, ("actions",))
    faults = [
        Fault(str(path), line, f"actions.{code}", "is undecided", f'add e.g. {code} = "{_usual(code)}"')
        for code in sorted(decidable - file.actions.keys())
    ]
    tables: Iterator[tuple[tuple[str | int, ...], dict[str, Any]]] = iter(
        [
            (("actions",), file.actions),
            *((("exceptions", i, "actions"), r.actions) for i, r in enumerate(file.exceptions)),
        ]
    )
    for place, actions in tables:
        for code in sorted(actions.keys() - decidable):
            key = (*place, code)
            cure = toml.suggestion(code, decidable)
            faults.append(Fault(str(path), toml.line_of(text, key), ".".join(map(str, key)), _UNKNOWN["actions"], cure))
    if faults:
        raise FaultyFiles(faults)
    return (*file.exceptions, Rule(actions=file.actions))


def _usual(code: str) -> Action:
    """What a cure proposes: to find out later what nobody could tell, and to mark what was found."""
    return Action.DEFER if code == ERROR else Action.TAG


def _order_faults(policies: Mapping[str, Policy]) -> list[Fault]:
    """A pure filter that reads an asking one could never be answered: the child comes first."""
    return [
        Fault(
            policy.file, 0, "", f"filters/{policy.name}.py is pure but reads the asking filter {name}", "make it async"
        )
        for policy in policies.values()
        if policy.pure and policy.filter is not None
        for name in policy.filter.after
        if name in policies and not policies[name].pure
    ]


def _blind_faults(policies: Mapping[str, Policy], tables: Mapping[str, Table]) -> list[Fault]:
    """Where the confined parser is switched off, a filter of the message would see none, and call it clean."""
    if CONTENT in policies or CONTENT not in tables:
        return []
    cure = f"set enabled = true in {CONTENT}.toml, or false here"
    return [
        Fault(policy.file, 0, "enabled", f"its filter sees no message while {CONTENT}.toml is not enabled", cure)
        for policy in policies.values()
        if policy.stage is Stage.MESSAGE
    ]

"""TOML files that people edit -> frozen, validated tables; or faults that name file, line, key and cure.

Every fault of a file is found, not only the first, and an unknown key is a fault: nothing in a file is ignored.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

MAX_FILE = 1 << 20
"""Bytes a configuration or policy file may have."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a file. `line` is 0 where no line can be named."""

    file: str
    line: int
    key: str
    problem: str
    cure: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        key = f" {self.key}:" if self.key else ""
        cure = f" ({self.cure})" if self.cure else ""
        return f"{place}:{key} {self.problem}{cure}"


class FaultyFiles(Exception):
    """Files cannot be used as they stand; `faults` holds everything that is wrong with them."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))


class Table(BaseModel):
    """A table of a TOML file: strict, frozen, every key known, every number finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}


def _seconds(value: object) -> object:
    if isinstance(value, str) and (match := re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)\s*([smhd])", value.strip())):
        return float(match[1]) * _UNITS[match[2]]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise ValueError('a time is written like "30s", "5m", "4h" or "5d"')


def _bytes(value: object) -> object:
    if isinstance(value, str) and (match := re.fullmatch(r"(\d{1,12})\s*(|kb|mb|gb)", value.strip().lower())):
        return int(match[1]) * _SIZES[match[2]]
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError('a size is written like "256 KB" or "50 MB"')


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Duration = Annotated[float, BeforeValidator(_seconds), Field(ge=0)]
"""Seconds, written as a number or like "5m"."""

Size = Annotated[int, BeforeValidator(_bytes), Field(ge=0)]
"""Octets, written as a number or like "50 MB"."""

T = TypeVar("T")
List = Annotated[tuple[T, ...], BeforeValidator(_tuple)]
"""A TOML array, kept as a tuple."""

M = TypeVar("M", bound=BaseModel)


def read(path: Path) -> tuple[dict[str, Any], str]:
    """Return the raw table and the text of the TOML file *path*; raise `FaultyFiles` where it is none."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE + 1)
    except OSError as error:
        raise FaultyFiles([Fault(str(path), 0, "", f"cannot be read: {error.strerror}")]) from None
    if len(raw) > MAX_FILE:
        raise FaultyFiles([Fault(str(path), 0, "", "is larger than 1 MB", "it is probably not the file you meant")])
    try:
        text = raw.decode("utf-8")
        table = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise FaultyFiles([Fault(str(path), line, "", "is not UTF-8 text", "save the file as UTF-8")]) from None
    except tomllib.TOMLDecodeError as error:
        raise FaultyFiles([_syntax_fault(path, str(error))]) from None
    except RecursionError:
        raise FaultyFiles([Fault(str(path), 0, "", "is nested too deeply")]) from None
    except ValueError:  # Python reads no number of more than 4300 digits
        raise FaultyFiles([Fault(str(path), 0, "", "holds a number that is too large")]) from None
    if faults := [
        Fault(str(path), line_of(text, place), ".".join(map(str, place)), "is too large a number")
        for place in _too_large(table)
    ]:
        raise FaultyFiles(faults)
    return table, text


def _too_large(value: object, *place: str | int) -> Iterator[tuple[str | int, ...]]:
    """Where in *value* there are whole numbers of more than 64 bits, which TOML has not, and a float may not hold."""
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        yield place
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield from _too_large(one, *place, key)


def _syntax_fault(path: Path, message: str) -> Fault:
    match = re.search(r"\(at line (\d+), column \d+\)", message)
    problem = re.sub(r"\s*\(at .*\)", "", message)
    return Fault(str(path), int(match[1]) if match else 0, "", f"is not TOML: {problem}")


_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": 'a text in quotes, as "..."',
    "bool_type": "true or false",
    "tuple_type": "a list in brackets, as [...]",
    "dict_type": "a table",
    "model_type": "a table",
    "dataclass_type": "a table",
}
"""What has to stand there, by pydantic's name for the fault."""


def validated(model: type[M], table: Mapping[str, Any], path: Path, text: str) -> M:
    """Return *table* as a *model*, or raise `FaultyFiles` with every fault in it."""
    try:
        return model.model_validate(table)
    except ValidationError as error:
        raise FaultyFiles(faults_of(error, model, path, text)) from None


def faults_of(error: ValidationError, model: type[BaseModel], path: Path, text: str) -> list[Fault]:
    """Every fault that pydantic found, in our words, with its line."""
    faults = []
    for item in error.errors(include_url=False):
        place = item["loc"]
        known = len(place) - (item["type"] == "extra_forbidden")  # what stands behind is what a person wrote
        location = (*_written(place[:known]), *place[known:])
        problem, cure = in_words(item, _keys_at(model, place[:-1]))
        faults.append(Fault(str(path), line_of(text, location), ".".join(map(str, location)), problem, cure))
    return faults


def _written(location: Sequence[int | str]) -> tuple[int | str, ...]:
    """Drop from *location* what pydantic adds for unions and validators: only keys that a person wrote."""
    return tuple(key for key in location if isinstance(key, int) or re.fullmatch(r"[a-z0-9_\-]+", key))


def in_words(item: Mapping[str, Any], known: Iterable[str]) -> tuple[str, str]:
    """What is wrong, and the cure, of one error of pydantic's; *known* are the keys of the table that it is in."""
    match item["type"]:
        case "unexpected_keyword_argument":
            return "is not a known setting", ""
        case "extra_forbidden":
            return "is not a known key", suggestion(str(item["loc"][-1]), known)
        case "missing":
            return "is missing", "add it"
        case "value_error":
            return str(item["msg"]).removeprefix("Value error, "), ""
        case kind:
            wanted = _KINDS.get(kind) or _said(str(item["msg"]))
            return f"has to be {wanted}", f"it is {_shown(item.get('input'))}"


def _said(message: str) -> str:
    """pydantic's words for a limit, in ours."""
    wanted = message.removeprefix("Input should be ")
    return wanted.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """The keys that the table at *location* may have; empty where that cannot be told."""
    current: Any = model
    for key in location:
        if isinstance(key, int):
            continue
        field = current.model_fields.get(key) if _is_model(current) else None
        current = _model_in(field.annotation) if field is not None else None
    return list(current.model_fields) if _is_model(current) else []


def _is_model(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)


def _model_in(annotation: Any) -> Any:
    if _is_model(annotation):
        return annotation
    return next((found for arg in getattr(annotation, "__args__", ()) if (found := _model_in(arg))), None)


def suggestion(word: str, known: Iterable[str]) -> str:
    """What may have been meant by *word*, as a cure."""
    known = sorted(known)
    if close := difflib.get_close_matches(word, known, 1):
        return f"did you mean {close[0]}?"
    return f"known: {', '.join(known)}" if known else "remove it"


def line_of(text: str, location: Sequence[int | str]) -> int:
    """The line of *text* (from 1) on which the key at *location* stands; of the nearest table around it; or 0.

    tomllib tells no positions. This walks the headers and keys as they are written, which is right for every file laid
    out one key to a line, and names the enclosing table for what is written otherwise.
    """
    wanted = tuple(location)
    best, best_line = 0, 0
    table: tuple[int | str, ...] = ()
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"\s*\[\[\s*([^\]]+?)\s*\]\]", line):
            index = counts[match[1]] = counts.get(match[1], -1) + 1
            table = (*_dotted(match[1]), index)
            here = table
        elif match := re.match(r"\s*\[\s*([^\]]+?)\s*\]", line):
            table = here = _dotted(match[1])
        elif match := re.match(r"""\s*((?:[\w\-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w\-]+|"[^"]*"))*)\s*=""", line):
            here = (*table, *_dotted(match[1]))
        else:
            continue
        if len(here) >= best and wanted[: len(here)] == here and here:
            best, best_line = len(here), number
    return best_line


def _dotted(key: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in key.split("."))

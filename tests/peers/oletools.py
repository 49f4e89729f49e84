"""What oletools says of the documents in `tests.documents`, in the words of the filter `macros`.

Not a dependency of ours: it is run by hand where it is installed (`pip install oletools`, in an environment of its own),
as `python -m tests.peers.oletools tests/peers/oletools.json`, and what it said is kept there.
"""

import contextlib
import io
import json
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from oletools import msodde, oleobj, ooxml, rtfobj
from oletools.mraptor import MacroRaptor
from oletools.olevba import VBA_Parser

from tests.documents import SAMPLES


def said(path: Path) -> Iterator[str]:
    """One word for each kind of thing that olevba, mraptor, msodde, oleobj and rtfobj see in the file."""
    for tool in (_macros, _dde, _objects, _links):
        with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
            yield from tool(path)


def _macros(path: Path) -> Iterator[str]:
    parser = VBA_Parser(str(path))
    if parser.detect_is_encrypted():
        yield "encrypted"
    if parser.type == "Text" and path.suffix != ".xml":
        return  # it takes any text for a macro
    code = "\n".join(text if isinstance(text, str) else text.decode("latin-1") for *_, text in parser.extract_macros())
    if "sub " in code.lower() or "function " in code.lower():
        yield "macro"
        raptor = MacroRaptor(code)
        raptor.scan()
        if raptor.autoexec:
            yield "auto"
    if parser.detect_xlm_macros():
        yield "xlm"


def _dde(path: Path) -> Iterator[str]:
    if msodde.process_file(str(path), msodde.FIELD_FILTER_DDE).strip():
        yield "dde"


def _objects(path: Path) -> Iterator[str]:
    if path.read_bytes().startswith(b"{\\rt"):
        parser = rtfobj.RtfObjParser(path.read_bytes())
        parser.parse()
        names = [one.filename or "" for one in parser.objects]
    else:
        with tempfile.TemporaryDirectory() as folder:
            oleobj.process_file(str(path), None, folder)
            names = [one.name for one in Path(folder).iterdir()]
    if any(name.lower().endswith((".exe", ".js")) for name in names):
        yield "program"


def _links(path: Path) -> Iterator[str]:
    links = list(oleobj.find_external_relationships(ooxml.XmlParser(str(path))))
    if any(kind != "hyperlink" for kind, _ in links):
        yield "remote"


def main(record: Path) -> None:
    logging.disable(logging.CRITICAL)
    words = {}
    with tempfile.TemporaryDirectory() as folder:
        for title, sample in SAMPLES.items():
            path = Path(folder) / sample.name
            path.write_bytes(sample.octets)
            words[title] = sorted(set(said(path)))
    record.write_text(json.dumps(words, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

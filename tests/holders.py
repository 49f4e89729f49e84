"""Documents and pages that hold a file: what they are called, and how they are made of the file. Harmless themselves."""

import base64
import textwrap
import zlib
from collections.abc import Callable

from tests import locked, office, tricks


def _pdf(file: bytes) -> bytes:
    packed = zlib.compress(file)
    return (
        b"%%PDF-1.7\n1 0 obj\n<</Type/Filespec/F(letter.txt)/EF<</F 2 0 R>>>>\nendobj\n2 0 obj\n<</Type/EmbeddedFile"
        b"/Filter[/ASCIIHexDecode/FlateDecode]/Length %d>>\nstream\n%s>\nendstream\nendobj\n%%%%EOF\n"
        % (2 * len(packed) + 1, packed.hex().encode())
    )


def _page(file: bytes) -> bytes:
    packed = office.zipped({"letter.txt": file})
    return b"<html><script>var b=new Blob([f('%s')]);</script></html>" % packed.hex().encode()


def _appointment(file: bytes) -> bytes:
    lines = textwrap.wrap(
        f"ATTACH;FILENAME=letter.txt;ENCODING=BASE64;VALUE=BINARY:{base64.b64encode(file).decode()}", 40
    )
    around = ("BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\n", "\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n")
    return "\r\n ".join(lines).join(around).encode()


def _letter(file: bytes) -> bytes:
    return tricks.tnef_text(
        office.packed_rich(office.rich(office.objdata(office.ole1("Package", office.package("letter.txt", file)))))
    )


HOLDERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "a package in a doc": ("a.doc", lambda file: office.word({"ObjectPool/_1/\1Ole10Native": office.native("letter.txt", file)})),
    "a package in rich text": ("a.rtf", lambda file: office.rich(office.objdata(office.ole1("Package", office.package("letter.txt", file))))),
    "the rich text of a mail in winmail.dat": ("winmail.dat", _letter),
    "a notebook": ("a.one", office.notebook),
    "a docx that opens without its password": ("a.docx", lambda file: locked.agile(office.zipped({"word/a.bin": file}), "VelvetSweatshop")),
    "a PDF": ("a.pdf", _pdf),
    "the script of a page": ("a.html", _page),
    "an appointment": ("a.ics", _appointment),
}  # fmt: skip

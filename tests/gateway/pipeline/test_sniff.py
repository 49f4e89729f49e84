"""First bytes and what they say."""

import pytest

from gateway.pipeline.sniff import PREFIX, sniff


@pytest.mark.parametrize(
    ("first", "media_type"),
    [
        (b"MZ\x90\0", "application/x-dosexec"),
        (b"\x7fELF\x02", "application/x-executable"),
        (b"PK\x03\x04", "application/zip"),
        (b"\0" * 257 + b"ustar", "application/x-tar"),
        (b"junk before\n%PDF-1.4", "application/pdf"),
        (b"\xef\xbb\xbf \r\n<!DOCTYPE html>", "text/html"),
        (b"<SVG onload=x>", "image/svg+xml"),
        (b"[InternetShortcut]\r\nURL=", "application/x-url-shortcut"),
        (b"\0\0\0\x18ftypmp42", "video/mp4"),
        (b"hello", ""),
        (b"", ""),
        (b"x" * PREFIX, ""),
    ],
)
def test_the_first_bytes_name_the_type(first, media_type):
    assert sniff(first) == media_type

"""First bytes and what they say."""

import pytest

from gateway.pipeline.sniff import PREFIX, is_message, sniff


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


@pytest.mark.parametrize(
    ("first", "is_one"),
    [
        (b"Subject: x\r\n", True),
        (b"\r\nReceived: from x\r\n", True),
        (b"DKIM-Signature: v=1\r\nARC-Seal: i=1\r\nContent-Type: text/plain\r\n", True),
        (b"\xef\xbb\xbfDelivered-To: x\nMIME-Version : 1.0\n", True),
        (b"From ann@far.example Mon Jan  1 00:00:00 2024\nDelivered-To: x\nMime-Version: 1.0\n", True),
        (b"1234      \nDelivered-To: x\nMime-Version: 1.0\n", True),
        (b"1234\nname: a list\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n", False),
        (b"name: a list\nitems: none\n", False),
        (b"From here on: nothing\n", False),
        (b"", False),
    ],
)
def test_the_first_fields_tell_a_mail(first, is_one):
    assert is_message(first) == is_one

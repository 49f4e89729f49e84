"""What stands encoded in a script is decoded whatever the script would do with it, and each character is counted."""

import base64
import time

import pytest

from filters._html import literals
from filters._html.seen import Exhausted, Meter

SECRET = b"MZ harmless, and long enough to be worth while to decode it"
PACKED = base64.b64encode(SECRET).decode()


def decoded(text: str) -> list[bytes]:
    return list(literals.runs(literals.joined(text), Meter(1_000_000)))


@pytest.mark.parametrize(
    "text",
    [
        f"x='{PACKED}'",
        f"x='{PACKED.rstrip('=')}'",
        f"x='{PACKED[:9]}' + \"{PACKED[9:]}\"",
        f"x='{PACKED[:9]}'.concat('{PACKED[9:]}')",
        f"x=['{PACKED[:9]}', '{PACKED[9:]}'].join('')",
        f"x='{PACKED[:9]}\\\n{PACKED[9:]}'",
        f"x=`{PACKED[:44]}\n    {PACKED[44:]}`",
        f"x='{PACKED[::-1]}'.split('').reverse()",
        f"x='{SECRET.hex()}'",
        f"x='{SECRET.hex().upper()}'",
        f"x=[{','.join(map(str, SECRET))}]",
        f"x=[{', '.join(map(hex, SECRET))}]",
        f"x=[{','.join(str(octet - 256) for octet in SECRET)}]",
    ],
)
def test_it_is_found_however_it_is_written(text: str) -> None:
    assert any(SECRET in octets for octets in decoded(text))


def test_the_alphabet_of_addresses_is_read_as_the_other_one() -> None:
    octets = bytes(range(200, 256)) * 2
    assert base64.urlsafe_b64encode(octets) != base64.b64encode(octets)
    assert octets in decoded(base64.urlsafe_b64encode(octets).decode())


def test_words_are_not_worth_decoding() -> None:
    assert decoded("a script of short words, and of numbers: 1, 2, 3") == []


def test_each_character_is_counted() -> None:
    with pytest.raises(Exhausted):
        list(literals.runs("QUJD" * 100, Meter(399)))
    assert len(list(literals.runs("QUJD" * 100, Meter(400)))) == 1


@pytest.mark.parametrize(
    "form", ["\\x{:02x}", "\\u00{:02x}", "\\u{{00{:02x}}}", "%u00{:02x}", "%{:02x}", "&#x{:02x};", "&#{};"]
)
def test_escapes_of_each_kind_are_resolved(form: str) -> None:
    assert "<script>alert(1)" in literals.unescaped("".join(form.format(octet) for octet in b"<script>alert(1)"))


def test_a_text_with_hardly_any_escapes_is_not_read_again_and_one_of_too_many_is_given_up() -> None:
    assert literals.unescaped("100%, and &#39;so&#39; on") == ""
    with pytest.raises(Exhausted):
        literals.unescaped("%" * (literals.MAX_ESCAPES + 1))


def test_what_is_made_to_be_slow_is_not() -> None:
    began = time.process_time()
    for hostile in (
        "'+" * 100_000,
        "' " * 100_000,
        "A" * 200_000 + "\n",
        "0x," * 100_000,
        "\\x" * 100_000,
        "&#0" * 60_000,
    ):
        text = literals.joined(hostile)
        list(literals.runs(text, Meter(10_000_000)))
        literals.unescaped(hostile)
    assert time.process_time() - began < 2.0

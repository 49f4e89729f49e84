"""Which words of a mail are tried as a password, and that there are never many."""

import time

import pytest

from gateway.pipeline.passwords import MOST, candidates

LONG = "word " * 100
"""So many words that none is tried only because the body is short."""


@pytest.mark.parametrize(
    "text",
    [
        "The password is: Geheim12.",
        "Password for the archive: Geheim12",
        "PASSWORD=Geheim12",
        "Das Passwort lautet Geheim12!",
        "Kennwort: Geheim12",
        "contraseña: Geheim12",
        "Mot de passe : Geheim12",
        "пароль Geheim12",
        "密码\uff1aGeheim12",
        "パスワードは「x」 パスワード: Geheim12",
        "pw: <b>Geheim12</b>",
        "<td>Password</td><td>Geheim12</td>",
        "Password:\r\n\r\nGeheim12\r\n",
        "open it with 'Geheim12'",
        "open it with (Geheim12)",
    ],
)
def test_a_password_is_found_where_people_put_it(text: str) -> None:
    assert b"Geheim12" in candidates([LONG + text + " " + LONG])


def test_every_word_of_a_short_body_is_tried() -> None:
    assert b"Geheim12" in candidates(["See the file. Geheim12"])
    assert candidates([LONG]) == []


def test_the_likely_ones_come_first() -> None:
    assert candidates(["hello world, password: Geheim12"])[0] == b"Geheim12"


def test_a_stop_may_belong_to_the_password_or_not() -> None:
    assert {b"Geheim12!", b"Geheim12"} <= set(candidates(["password Geheim12!"]))


def test_quoted_words_may_have_blanks() -> None:
    assert b"two words" in candidates([LONG + '"two words"'])


def test_letters_beyond_ascii_are_tried_in_both_ways_that_programs_write_them() -> None:
    assert {"Gehéim".encode(), "Gehéim".encode("cp1252")} <= set(candidates(["password Gehéim"]))


@pytest.mark.parametrize(
    "text",
    [
        "password " * 20_000,
        "'" * 20_000,
        "<" * 20_000,
        "(a" * 10_000,
        "\U0001f600" * 5000,
        "password" + " " * 20_000,
        "mot de " * 5000,
    ],
)
def test_there_are_never_many_and_they_cost_little(text: str) -> None:
    start = time.process_time()
    assert len(candidates([text] * 20)) <= MOST
    assert time.process_time() - start < 1

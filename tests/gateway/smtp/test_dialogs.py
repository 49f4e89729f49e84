"""Each file of tests/dialogs/smtp is one conversation."""

from pathlib import Path

import pytest

from tests.gateway.smtp import conversation

HERE = Path(__file__).resolve().parent
DIALOGS = sorted((HERE.parents[1] / "dialogs" / "smtp").glob("*.txt"))


@pytest.mark.parametrize("path", DIALOGS, ids=lambda path: path.stem)
def test_the_server_answers_as_the_dialog_says(path, tmp_path):
    conversation.perform(path, tmp_path)


@pytest.mark.parametrize("path", [*filter(conversation.is_for_any_transport, DIALOGS)], ids=lambda path: path.stem)
def test_the_server_answers_so_within_tls(path, tmp_path):
    conversation.perform(path, tmp_path, tls="implicit")


@pytest.mark.parametrize("path", [*filter(conversation.is_for_starttls, DIALOGS)], ids=lambda path: path.stem)
def test_the_server_answers_so_after_starttls(path, tmp_path):
    conversation.perform(path, tmp_path, tls="starttls", secured="yes")

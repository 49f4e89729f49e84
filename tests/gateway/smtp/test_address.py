"""What MAIL, RCPT and EHLO carry: what comes out normalised, and what is refused."""

import pytest

from gateway.model import Envelope, Recipient
from gateway.smtp import address, replies
from gateway.smtp.replies import ProtocolError

MAILBOXES = {
    "user@example.org": "user@example.org",
    "User@EXAMPLE.Org": "User@example.org",
    '"user"@example.org': "user@example.org",
    '"us\\er"@example.org': "user@example.org",
    '"a b"@example.org': '"a b"@example.org',
    '"a>b"@example.org': '"a>b"@example.org',
    '"a\\"\\\\b"@example.org': '"a\\"\\\\b"@example.org',
    "a+tag=x!%$@b-c.d1": "a+tag=x!%$@b-c.d1",
    "user@xn--bcher-kva.example": "user@xn--bcher-kva.example",
    "u@single": "u@single",
    "l" * 64 + "@x.org": "l" * 64 + "@x.org",
}

MALFORMED = [
    "user@example.org.",
    "user@.example.org",
    "user@exam..ple.org",
    "user@-example.org",
    "user@exa_mple.org",
    "user@example.org (comment)",
    "user@dst@example.org",
    ".user@example.org",
    "us..er@example.org",
    "us er@example.org",
    "user",
    "|id@x y",
    "@example.org",
    "user@",
    '"user@example.org',
    '"us"er@example.org',
    '"tab\there"@example.org',
    "user@xn--a",
    "user@127.0.0.1",
    "user@0x7f.1",
    "user@2130706433",
    "user@xn--0.pt",
    "user@" + "a" * 64 + ".org",
    "user@" + ".".join(["a" * 60] * 5),
    "l" * 65 + "@x.org",
    "l" * 60 + "@" + ".".join(["a" * 62] * 4),
    "us\x00er@example.org",
    "us\x85er@example.org",
    "us\u202eer@example.org",
    "us\udce4er@example.org",
    "user@exam\u3002ple.org",
    "user@\u202eexample.org",
]


def reply_to(parse, *args, **kwargs):
    with pytest.raises(ProtocolError) as raised:
        parse(*args, **kwargs)
    return raised.value.reply


@pytest.mark.parametrize(("sent", "normalised"), MAILBOXES.items())
def test_a_mailbox_comes_out_normalised(sent, normalised):
    assert address.rcpt(f"TO:<{sent}>") == Recipient(normalised)
    assert address.mail(f"FROM:<{sent}>") == (Envelope(sender=normalised), 0)


@pytest.mark.parametrize("sent", MALFORMED)
def test_a_malformed_mailbox_is_refused(sent):
    assert reply_to(address.rcpt, f"TO:<{sent}>", smtputf8=True) is replies.BAD_RECIPIENT
    assert reply_to(address.mail, f"FROM:<{sent}> SMTPUTF8") is replies.BAD_SENDER


@pytest.mark.parametrize(
    "argument", ["", "TO", "TO:", "TO:user@example.org", "FROM:<a@b>", "TO:  <a@b>", "TO: <a@b> \t"]
)
def test_a_path_needs_its_keyword_and_brackets(argument):
    assert reply_to(address.rcpt, argument) in (replies.BAD_RCPT, replies.BAD_RECIPIENT, replies.BAD_PARAMETER)


@pytest.mark.parametrize("argument", ["TO:<>", "TO:<a@b", "TO:<a@b>SIZE=1", "TO:<<a@b>>", "TO:<a@b>>"])
def test_brackets_have_to_be_paired_and_filled(argument):
    assert reply_to(address.rcpt, argument) in (replies.BAD_RCPT, replies.BAD_RECIPIENT)


def test_the_keyword_may_be_lower_case_and_one_space_may_follow():
    assert address.rcpt("to: <a@b>").address == "a@b"
    assert address.mail("from: <>")[0].sender == ""


def test_the_null_path_is_a_sender():
    assert address.mail("FROM:<>") == (Envelope(), 0)


@pytest.mark.parametrize("sent", ["<postmaster>", "<Postmaster>", " <POSTMASTER>"])
def test_postmaster_needs_no_domain(sent):
    assert address.rcpt(f"TO:{sent}") == Recipient("postmaster")


@pytest.mark.parametrize(
    "sent", ["<@us.example:user@there.example>", "<@a,@b:user@c>", "<user@[127.0.0.1]>", "<u@[IPv6:::1]>"]
)
def test_routes_and_literals_are_not_relayed_to(sent):
    assert reply_to(address.rcpt, f"TO:{sent}") is replies.NOT_OURS


def test_a_sender_has_neither_route_nor_literal():
    assert reply_to(address.mail, "FROM:<@us.example:user@there.example>") is replies.BAD_SENDER
    assert reply_to(address.mail, "FROM:<user@[192.0.2.1]>") is replies.SENDER_LITERAL
    assert reply_to(address.mail, "FROM:<user@[192.0.2]>") is replies.BAD_SENDER


def test_letters_beyond_ascii_need_smtputf8_and_domains_become_a_labels():
    assert reply_to(address.rcpt, "TO:<jürgen@bücher.example>") is replies.NEEDS_SMTPUTF8
    assert reply_to(address.mail, "FROM:<a@bücher.example>") is replies.NEEDS_SMTPUTF8
    assert address.rcpt("TO:<jürgen@BÜCHER.example>", smtputf8=True).address == "jürgen@xn--bcher-kva.example"
    envelope, _ = address.mail("FROM:<jürgen@bücher.example> SMTPUTF8")
    assert envelope == Envelope(sender="jürgen@xn--bcher-kva.example", smtputf8=True)


def test_sharp_s_keeps_its_own_domain():
    assert address.rcpt("TO:<a@faß.example>", smtputf8=True).address == "a@xn--fa-hia.example"


def test_mail_parameters_fill_the_envelope():
    envelope, size = address.mail("FROM:<a@b> size=0123 BODY=8bitmime RET=hdrs ENVID=Q+2Bx AUTH=e+3Dmc2@example.com")
    assert size == 123
    assert envelope == Envelope(sender="a@b", eight_bit=True, ret="HDRS", envid="Q+2Bx")


@pytest.mark.parametrize(
    "parameters",
    [
        "SIZE",
        "SIZE=",
        "SIZE=-1",
        "SIZE=1 SIZE=1",
        "SIZE=" + "1" * 21,
        "BODY=BINARYMIME",
        "BODY",
        "SMTPUTF8=1",
        "RET=ALL",
        "ENVID=a+0D+0A",
        "ENVID=a+7F",
        "ENVID=" + "a" * 101,
        "ENVID=a+2b",
        "ENVID=a+",
        "AUTH=a=b",
        "=1",
        "SIZE=1=2",
        "-X=1",
    ],
)
def test_malformed_mail_parameters_are_refused(parameters):
    assert reply_to(address.mail, f"FROM:<a@b> {parameters}") is replies.BAD_PARAMETER


def test_unknown_parameters_are_refused():
    assert reply_to(address.mail, "FROM:<a@b> NOTIFY=NEVER") is replies.UNKNOWN_PARAMETER
    assert reply_to(address.rcpt, "TO:<a@b> RET=FULL") is replies.UNKNOWN_PARAMETER


def test_rcpt_parameters_fill_the_recipient():
    found = address.rcpt("TO:<a@b> NOTIFY=success,Delay ORCPT=rfc822;x+2By@z")
    assert found == Recipient("a@b", frozenset({"SUCCESS", "DELAY"}), "rfc822;x+2By@z")
    assert address.rcpt("TO:<a@b> NOTIFY=never").notify == {"NEVER"}


def test_orcpt_of_type_utf8_may_hold_letters_beyond_ascii_under_smtputf8():
    sent = "TO:<a@b> ORCPT=utf-8;jürgen@example.org"
    assert address.rcpt(sent, smtputf8=True).orcpt == "utf-8;jürgen@example.org"
    assert reply_to(address.rcpt, sent) is replies.BAD_PARAMETER


@pytest.mark.parametrize(
    "parameters",
    [
        "NOTIFY",
        "NOTIFY=",
        "NOTIFY=NEVER,SUCCESS",
        "NOTIFY=SUCCESS,",
        "NOTIFY=ALWAYS",
        "ORCPT=rfc822",
        "ORCPT=;x",
        "ORCPT=rfc822;a+0D+0Ab",
        "ORCPT=rfc822;ü",
        "ORCPT=utf-8;a+0Ab",
        "ORCPT=rfc822;" + "x" * 500,
        "ORCPT=rf/c;x",
    ],
)
def test_malformed_rcpt_parameters_are_refused(parameters):
    assert reply_to(address.rcpt, f"TO:<a@b> {parameters}", smtputf8=True) is replies.BAD_PARAMETER


@pytest.mark.parametrize(
    "name", ["mail.example.org", "WORK_STATION", "[192.0.2.1]", "[IPv6:2001:db8::1]", "localhost", "10.0.0.1"]
)
def test_a_helo_name_is_a_domain_or_a_literal(name):
    assert address.helo(name) == name


def test_a_helo_name_beyond_ascii_becomes_a_labels():
    assert address.helo("bücher.example") == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "a..b",
        ".",
        "a.",
        "-a",
        "[1.2.3]",
        "[1.2.3.4",
        "[IPv6:::g]",
        "[IPv6:fe80::1%lo]",
        "a;b",
        "<a>",
        "x" * 64,
        "\udcff",
        "a\x85",
    ],
)
def test_a_malformed_helo_name_is_refused(name):
    assert reply_to(address.helo, name) is replies.BAD_HELO


@pytest.mark.parametrize("routed", ["user%there@here", "there!user@here", '"user@there"@here'])
def test_local_parts_that_route_onward_are_told(routed):
    assert address.routes_onward(routed)
    assert not address.routes_onward("user+tag@here")

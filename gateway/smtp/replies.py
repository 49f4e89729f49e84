"""Every reply of the SMTP edge, once, as a named constant with its enhanced code (RFC 5321 4.2, RFC 3463).

No text from anybody else can get into one: what `naming` adds is a mail id and words of our own, and is checked.
A reply with code 421 always ends the session.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

_ID = re.compile(r"[0-9a-z]{1,32}")
_NOT_OURS = re.compile(r"[^A-Za-z0-9 .,:/_-]+")
_MAX_REFERENCE = 100
_BY_POLICY = ".7.1"
_REGISTERED = {
    **dict.fromkeys(("spf/fail", "spf/softfail", "spf/helo_fail"), ".7.23"),
    **dict.fromkeys(("spf/permerror", "spf/temperror", "spf/helo_temperror"), ".7.24"),
    **dict.fromkeys(("dmarc/fail_none", "dmarc/fail_quarantine", "dmarc/fail_reject"), ".7.26"),
    "arc/fail": ".7.29",
}
"""What enhanced codes tell more than that it was policy: RFC 7372 3.2 and 3.4, RFC 8617 10.3."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply line. `enhanced` is empty where RFC 2034 has none (3xx)."""

    code: int
    enhanced: str
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.enhanced} {self.text}" if self.enhanced else f"{self.code} {self.text}"

    def naming(self, mail_id: str = "", reference: str = "") -> Reply:
        """This reply with the filter and code that caused it, and the id under which the mail can be found."""
        text, enhanced = self.text, self.enhanced
        if enhanced.endswith(_BY_POLICY):
            registered = _REGISTERED.get(reference.partition(":")[0], _BY_POLICY)
            enhanced = enhanced.removesuffix(_BY_POLICY) + registered
        if why := _NOT_OURS.sub("", reference)[:_MAX_REFERENCE].strip():
            text += f" ({why})"
        if _ID.fullmatch(mail_id):
            text += f" id={mail_id}"
        return replace(self, enhanced=enhanced, text=text)


class ProtocolError(Exception):
    """What the peer asked for is refused with `reply`; the session goes on, unless its code is 421."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        super().__init__(str(reply))


# Going well
OK = Reply(250, "2.0.0", "OK")
SENDER_OK = Reply(250, "2.1.0", "Sender accepted")
RECIPIENT_OK = Reply(250, "2.1.5", "Recipient accepted")
CHUNK_OK = Reply(250, "2.0.0", "Chunk received")
ACCEPTED = Reply(250, "2.0.0", "Message accepted")
GO_AHEAD = Reply(354, "", "Send the message, end with <CRLF>.<CRLF>")
READY_FOR_TLS = Reply(220, "2.0.0", "Ready to start TLS")
LOGGED_IN = Reply(235, "2.7.0", "Authentication succeeded")
HELP = Reply(214, "2.0.0", "See RFC 5321")
CANNOT_VERIFY = Reply(252, "2.0.0", "Addresses are not verified; send the message and see")
BYE = Reply(221, "2.0.0", "Goodbye")

# Challenges (RFC 4954 4): nothing, "Username:", "Password:" in base64
CHALLENGE = Reply(334, "", "")
ASK_USERNAME = Reply(334, "", "VXNlcm5hbWU6")
ASK_PASSWORD = Reply(334, "", "UGFzc3dvcmQ6")

# At the door
NOT_YOUR_NETWORK = Reply(554, "5.7.1", "Your network may not use this service")
PEER_REFUSED = Reply(554, "5.7.1", "Mail from your host is refused by our policy")
PEER_DEFERRED = Reply(421, "4.7.1", "Mail from your host is not taken now, try again later")
TALKED_BEFORE_GREETING = Reply(554, "5.5.0", "You spoke before our greeting")
TOO_MANY_CONNECTIONS = Reply(421, "4.3.2", "Too many connections, try again later")
TOO_MANY_FROM_PEER = Reply(421, "4.7.0", "Too many connections from your address, try again later")
TOO_MANY_FROM_NETWORK = Reply(421, "4.7.0", "Too many connections from your network, try again later")

# The end of a session
TALKED_OUT_OF_TURN = Reply(421, "4.5.0", "You sent more before our answer was there")
NOT_SMTP = Reply(421, "4.5.2", "This is a mail server")
LINE_TOO_LONG = Reply(421, "4.5.2", "Command line too long")
BAD_CHUNK = Reply(421, "4.5.4", "Syntax: BDAT size [LAST]")
IDLE_TOO_LONG = Reply(421, "4.4.2", "Nothing heard from you for too long")
CROWDED_OUT = Reply(421, "4.3.2", "Too many connections to wait for you, try again later")
DATA_STOPPED = Reply(421, "4.4.2", "No more of your message came for too long")
DATA_TOO_SLOW = Reply(421, "4.4.2", "Your message comes too slowly")
REPLIES_UNREAD = Reply(421, "4.4.2", "You do not read our replies")
SESSION_TOO_LONG = Reply(421, "4.4.2", "This session has lasted too long")
TOO_MANY_COMMANDS = Reply(421, "4.7.0", "Too many commands in one session")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors in one session")
TOO_MANY_UNKNOWN = Reply(421, "4.7.0", "Too many recipients who are not here")
TOO_MANY_MESSAGES = Reply(421, "4.7.0", "Too many messages in one session, connect again")
TOO_MANY_LOGINS = Reply(421, "4.7.0", "Too many failed logins")
BROKEN_OFF = Reply(421, "4.3.0", "We cannot go on with this message, try again later")
SHUTTING_DOWN = Reply(421, "4.3.2", "We are going down for a moment, try again")

# Commands
BAD_LINE = Reply(500, "5.5.2", "A command is one line of text that ends with CRLF")
UNKNOWN_COMMAND = Reply(500, "5.5.1", "Command not known")
NOT_IMPLEMENTED = Reply(502, "5.5.1", "Command not implemented")
NO_ARGUMENT = Reply(501, "5.5.4", "This command takes no argument")
BAD_HELO = Reply(501, "5.5.4", "Syntax: HELO or EHLO, then a domain or address literal")
BAD_MAIL = Reply(501, "5.5.4", "Syntax: MAIL FROM:<address> [parameters]")
BAD_RCPT = Reply(501, "5.5.4", "Syntax: RCPT TO:<address> [parameters]")
BAD_PARAMETER = Reply(501, "5.5.4", "A parameter is malformed or given twice")
UNKNOWN_PARAMETER = Reply(555, "5.5.4", "A parameter is not known")
HELO_FIRST = Reply(503, "5.5.1", "Send EHLO first")
MAIL_FIRST = Reply(503, "5.5.1", "Send MAIL first")
RCPT_FIRST = Reply(503, "5.5.1", "No recipient was accepted")
NESTED_MAIL = Reply(503, "5.5.1", "A message is under way; finish it or send RSET")
CHUNKS_UNDER_WAY = Reply(503, "5.5.1", "A message is coming by BDAT; finish it or send RSET")

# TLS and AUTH
TLS_FIRST = Reply(530, "5.7.0", "Send STARTTLS first")
TLS_ALREADY = Reply(503, "5.5.1", "TLS is active already")
AUTH_FIRST = Reply(530, "5.7.0", "Log in first")
AUTH_ALREADY = Reply(503, "5.5.1", "You are logged in already")
AUTH_NEEDS_TLS = Reply(538, "5.7.11", "Logging in needs TLS")
AUTH_MECHANISM = Reply(504, "5.5.4", "We know PLAIN and LOGIN")
AUTH_SYNTAX = Reply(501, "5.5.2", "This is not what the mechanism asks for, in base64")
AUTH_CANCELLED = Reply(501, "5.7.0", "Authentication cancelled")
AUTH_FAILED = Reply(535, "5.7.8", "User name or password is wrong")
AUTH_HELD_BACK = Reply(454, "4.7.0", "Too many failed logins from your address, try again later")
AUTH_UNAVAILABLE = Reply(454, "4.7.0", "Logging in is not possible now, try again later")

# Addresses
BAD_SENDER = Reply(553, "5.1.7", "The sender's address is malformed")
BAD_RECIPIENT = Reply(553, "5.1.3", "The recipient's address is malformed")
NEEDS_SMTPUTF8 = Reply(553, "5.6.7", "An address that is not ASCII needs SMTPUTF8")
SENDER_LITERAL = Reply(553, "5.1.8", "A sender in an address literal is not taken")
NOT_OURS = Reply(550, "5.7.1", "We do not relay to this address")
NO_SUCH_USER = Reply(550, "5.1.1", "No such mailbox here")
NOT_YOURS = Reply(553, "5.7.1", "This sender's address is not yours")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients for one message")
TOO_MANY_FOR_BOUNCE = Reply(452, "4.5.3", "Too many recipients for a message from the null sender")

# The message
BARE_NEWLINE = Reply(550, "5.6.11", "The message holds CR or LF that are not a CRLF")
NUL_OCTET = Reply(550, "5.6.0", "The message holds a NUL octet")
TEXT_LINE_TOO_LONG = Reply(550, "5.6.0", "The message holds a line of more than 998 octets")
HEADER_TOO_BIG = Reply(552, "5.3.4", "The header of the message is too big")
TOO_BIG = Reply(552, "5.3.4", "The message is bigger than we take")
LOOP = Reply(554, "5.4.6", "The message goes round in a loop")
REJECTED = Reply(550, "5.7.1", "Refused by our policy")
DEFERRED = Reply(451, "4.7.1", "Not taken now by our policy, try again later")
FULL = Reply(452, "4.3.1", "No room for the message now, try again later")
UNAVAILABLE = Reply(451, "4.3.0", "We cannot do this now, try again later")

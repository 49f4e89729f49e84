"""Every line that the POP3 service says, once. No stranger's text and no exception's text is ever part of one.

A reply is octets without the line end. Response codes in brackets are those of RFC 2449 and RFC 3206.
"""

from __future__ import annotations

GREETING = b"+OK Gatepost ready"
OK = b"+OK"
BYE = b"+OK bye"
CHALLENGE = b"+ "
SEND_PASSWORD = b"+OK now the password"
BEGIN_TLS = b"+OK begin TLS"
UTF8_ON = b"+OK UTF-8 it is"
CAPABILITIES = b"+OK capabilities follow"
UNIQUE_IDS = b"+OK unique ids follow"
LANGUAGES = b"+OK languages follow"
LANGUAGE_SET = b"+OK en English it is"
DELETED = b"+OK marked for deletion"
TOP_FOLLOWS = b"+OK top of message follows"

SYNTAX = b"-ERR this is not how the command is written"
TOO_LONG = b"-ERR the line is too long"
UNKNOWN = b"-ERR unknown command"
WRONG_STATE = b"-ERR not in this state"
TOO_MANY_FAULTS = b"-ERR too many errors"
NO_SUCH_MESSAGE = b"-ERR no such message"
NO_SUCH_LANGUAGE = b"-ERR only en and i-default are spoken here"
NO_SUCH_MECHANISM = b"-ERR unknown authentication mechanism"
CANCELLED = b"-ERR authentication cancelled"
USER_FIRST = b"-ERR USER comes first"
TLS_FIRST = b"-ERR start TLS first"
NO_TLS = b"-ERR TLS cannot be started here"
STLS_ALONE = b"-ERR nothing may follow STLS in one go"
WRONG_PASSWORD = b"-ERR [AUTH] user name or password is wrong"
HELD_BACK = b"-ERR [SYS/TEMP] too many wrong passwords, try again later"
IN_USE = b"-ERR [IN-USE] another session has this mailbox open"
TEMPORARY = b"-ERR [SYS/TEMP] not possible now, try again later"
TOO_MANY_SESSIONS = b"-ERR [SYS/TEMP] too many sessions, try again later"
NOT_YOUR_NETWORK = b"-ERR [SYS/PERM] your network may not use this service"
SHUTTING_DOWN = b"-ERR [SYS/TEMP] the service is closing, try again later"
NOT_DELETED = b"-ERR [SYS/TEMP] some deleted messages not removed"


def maildrop(count: int, octets: int) -> bytes:
    """How much there is, in words: after login, RSET and LIST."""
    return b"+OK %d messages (%d octets)" % (count, octets)


def drop_listing(count: int, octets: int) -> bytes:
    """The answer to STAT (RFC 1939 5)."""
    return b"+OK %d %d" % (count, octets)


def scan_listing(number: int, size: int) -> bytes:
    """The answer to LIST with a number (RFC 1939 5)."""
    return b"+OK %d %d" % (number, size)


def unique_id(number: int, uid: str) -> bytes:
    """The answer to UIDL with a number (RFC 1939 7)."""
    return b"+OK %d %s" % (number, uid.encode("ascii"))


def octets(size: int) -> bytes:
    """What stands before a message that is sent whole."""
    return b"+OK %d octets" % size

"""Office documents under a password, as Office writes them ([MS-OFFCRYPTO] 2.3). msoffcrypto-tool opens them, too."""

import base64
import hashlib
import struct
from collections.abc import Callable

from cryptography.hazmat.decrepit.ciphers.algorithms import ARC4
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests import office

SALT = bytes(range(16))
_SECRET = bytes(range(32))
_CHALLENGE = b"sixteen octets!!"


def _aes(key: bytes, octets: bytes, vector: bytes = b"") -> bytes:
    mode = modes.CBC(vector) if vector else modes.ECB()
    return Cipher(algorithms.AES(key), mode).encryptor().update(octets + bytes(-len(octets) % 16))


def _spun(name: str, password: str, spins: int) -> bytes:
    digest = hashlib.new(name, SALT + password.encode("utf-16-le")).digest()
    for number in range(spins):
        digest = hashlib.new(name, struct.pack("<I", number) + digest).digest()
    return digest


def agile(octets: bytes, password: str, *, name: str = "SHA512", bits: int = 256, spins: int = 1000) -> bytes:
    """As Office writes it since 2010. Where it wants more than a million *spins*, nobody has made them."""
    algorithm, spun = name.lower(), _spun(name.lower(), password, spins % 1_000_000)

    def under(block: str, plain: bytes) -> str:
        key = hashlib.new(algorithm, spun + bytes.fromhex(block)).digest()[: bits // 8].ljust(bits // 8, b"\x36")
        return base64.b64encode(_aes(key, plain, SALT)).decode()

    secret = _SECRET[: bits // 8]
    shape = f'saltSize="16" blockSize="16" keyBits="{bits}" hashSize="{hashlib.new(algorithm).digest_size}" cipherAlgorithm="AES" cipherChaining="ChainingModeCBC" hashAlgorithm="{name}" saltValue="{base64.b64encode(SALT).decode()}"'
    info = (
        '<?xml version="1.0" encoding="UTF-8" standalone="yes"?><encryption xmlns="http://schemas.microsoft.com/office/2006/encryption" '
        f'xmlns:p="http://schemas.microsoft.com/office/2006/keyEncryptor/password"><keyData {shape}/>'
        '<dataIntegrity encryptedHmacKey="AA==" encryptedHmacValue="AA=="/>'
        '<keyEncryptors><keyEncryptor uri="http://schemas.microsoft.com/office/2006/keyEncryptor/password">'
        f'<p:encryptedKey spinCount="{spins}" {shape} encryptedVerifierHashInput="{under("fea7d2763b4b9e79", _CHALLENGE)}" '
        f'encryptedVerifierHashValue="{under("d7aa0f6d3061344e", hashlib.new(algorithm, _CHALLENGE).digest())}" '
        f'encryptedKeyValue="{under("146e0be7abacd0d6", secret)}"/></keyEncryptor></keyEncryptors></encryption>'
    )
    package = struct.pack("<Q", len(octets))
    for number, at in enumerate(range(0, len(octets), 4096)):
        vector = hashlib.new(algorithm, SALT + struct.pack("<I", number)).digest()[:16]
        package += _aes(secret, octets[at : at + 4096], vector)
    return office.compound(
        {"EncryptionInfo": struct.pack("<HHI", 4, 4, 0x40) + info.encode(), "EncryptedPackage": package}
    )


def standard(octets: bytes, password: str) -> bytes:
    """As Office 2007 writes it: AES with 128 bits."""
    last = hashlib.sha1(_spun("sha1", password, 50_000) + bytes(4)).digest()
    key = hashlib.sha1(bytes(one ^ 0x36 for one in last.ljust(64, b"\0"))).digest()[:16]
    header = struct.pack("<IIIIIIII", 0x24, 0, 0x660E, 0x8004, 128, 24, 0, 0) + "AES\0".encode("utf-16-le")
    verifier = struct.pack("<I", 16) + SALT + _aes(key, _CHALLENGE) + struct.pack("<I", 20)
    verifier += _aes(key, hashlib.sha1(_CHALLENGE).digest())
    info = struct.pack("<HHII", 4, 2, 0x24, len(header)) + header + verifier
    return office.compound(
        {"EncryptionInfo": info, "EncryptedPackage": struct.pack("<Q", len(octets)) + _aes(key, octets)}
    )


def _rc4(key: bytes, octets: bytes) -> bytes:
    return Cipher(ARC4(key), None).encryptor().update(octets)


def rc4(plain: bytes, password: str) -> bytes:
    """A workbook as Excel 97 writes it; *plain* is its stream, with a lock of 52 octets in it that says nothing."""
    first = hashlib.md5(password.encode("utf-16-le")).digest()[:5]
    second = hashlib.md5((first + SALT) * 16).digest()[:5]

    def key(sector: int) -> bytes:
        return hashlib.md5(second + struct.pack("<I", sector)).digest()

    lock = struct.pack("<HHH", 1, 1, 1) + SALT + _rc4(key(0), _CHALLENGE + hashlib.md5(_CHALLENGE).digest())
    return _locked(plain, lock, key)


def crypto_api(plain: bytes, password: str, bits: int = 128) -> bytes:
    """A workbook as Excel 2003 and its successors write it."""
    first = hashlib.sha1(SALT + password.encode("utf-16-le")).digest()

    def key(sector: int) -> bytes:
        digest = hashlib.sha1(first + struct.pack("<I", sector)).digest()
        return digest[:5] + bytes(11) if bits == 40 else digest[: bits // 8]

    header = struct.pack("<IIIIIIII", 4, 0, 0x6801, 0x8004, bits, 1, 0, 0) + "RC4\0".encode("utf-16-le")
    both = _rc4(key(0), _CHALLENGE + hashlib.sha1(_CHALLENGE).digest())
    verifier = struct.pack("<I", 16) + SALT + both[:16] + struct.pack("<I", 20) + both[16:]
    return _locked(plain, struct.pack("<HHHII", 1, 2, 2, 4, len(header)) + header + verifier, key)


def _locked(plain: bytes, lock: bytes, key: Callable[[int], bytes]) -> bytes:
    """*plain* behind its *lock*, each sector of 1024 octets under its own key."""
    whole = _with(plain, lock)
    sectors = range(0, len(whole), 1024)
    return _masked(whole, b"".join(_rc4(key(at // 1024), bytes(len(whole[at : at + 1024]))) for at in sectors))


def xor(plain: bytes) -> bytes:
    """A workbook under the password of Excel itself, as Excel 97 masks it (2.3.7)."""
    whole = _with(plain, bytes.fromhex("0000") + bytes.fromhex("59b30a9a"))
    array = bytes.fromhex("876b9ae21ee305621e699660986e9404")
    out = bytearray(whole)
    for _, at, size, kept in _bodies(whole):
        for index in range(kept, size):
            octet = whole[at + index]
            out[at + index] = (octet << 5 & 0xFF | octet >> 3) ^ array[(at + size + index) % 16]
    return bytes(out)


def _with(plain: bytes, lock: bytes) -> bytes:
    """*plain* with *lock* behind its first record; entries of sheets say where they begin then."""
    added = office.record(0x2F, lock)
    whole = bytearray(plain[:20] + added + plain[20:])
    for kind, at, _, _ in _bodies(bytes(whole)):
        if kind == 0x85:
            struct.pack_into("<I", whole, at, struct.unpack_from("<I", whole, at)[0] + len(added))
    return bytes(whole)


def _bodies(whole: bytes) -> list[tuple[int, int, int, int]]:
    """Type, place, size, and how much stays as it is, of the body of each record that is not in clear."""
    at, found = 0, []
    while at + 4 <= len(whole):
        kind, size = struct.unpack_from("<HH", whole, at)
        if kind not in {0x809, 0x2F}:
            found.append((kind, at + 4, size, 4 if kind == 0x85 else 0))
        at += 4 + size
    return found


def _masked(whole: bytes, stream: bytes) -> bytes:
    out = bytearray(whole)
    for _, at, size, kept in _bodies(whole):
        for index in range(at + kept, at + size):
            out[index] ^= stream[index]
    return bytes(out)

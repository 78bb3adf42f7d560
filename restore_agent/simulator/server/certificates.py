"""Certificate authority in pure Python: ECDSA P-256 and a small DER writer.

Only for the TLS of the simulator: the arithmetic is not constant-time, so its keys must not protect anything else.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

# NIST P-256 (FIPS 186-4, D.1.2.3): prime, order, a generator; a is -3
_P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF

_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)

_DAY = 86_400

_OID_EC_PUBLIC_KEY = "1.2.840.10045.2.1"

_OID_P256 = "1.2.840.10045.3.1.7"

_OID_ECDSA_SHA256 = "1.2.840.10045.4.3.2"

_OID_COMMON_NAME = "2.5.4.3"

_OID_SUBJECT_KEY = "2.5.29.14"

_OID_KEY_USAGE = "2.5.29.15"

_OID_ALT_NAME = "2.5.29.17"

_OID_BASIC_CONSTRAINTS = "2.5.29.19"

_OID_AUTHORITY_KEY = "2.5.29.35"

_OID_EXTENDED_USAGE = "2.5.29.37"

_OID_SERVER_AUTH = "1.3.6.1.5.5.7.3.1"

_OID_CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"

_Point = tuple[int, int] | None


@dataclass(frozen=True)
class Certificate:
    """Certificate and its private key, both PEM."""

    certificate: str
    key: str


class Authority:
    """Certificate authority. `certificate` is its own certificate, PEM, for the CA file of clients."""

    def __init__(self, name: str = "Simulated Ops Manager CA") -> None:
        self._name = _name(name)
        self._key = _Key()
        now = time.time()
        extensions = [
            _extension(_OID_BASIC_CONSTRAINTS, _sequence(_tlv(0x01, b"\xff")), critical=True),
            _extension(_OID_KEY_USAGE, _tlv(0x03, b"\x01\x06"), critical=True),  # keyCertSign, cRLSign
            _extension(_OID_SUBJECT_KEY, _tlv(0x04, self._key.identifier)),
            self._authority_key(),
        ]
        der = self._issue(self._name, self._key, (now - 30 * _DAY, now + 365 * _DAY), extensions)
        self.certificate = _pem("CERTIFICATE", der)

    def server(self, hosts: Sequence[str], *, expired: bool = False) -> Certificate:
        """Return a server certificate for names and addresses; `expired`: it expired yesterday."""
        names = _sequence(*(_alternative_name(host) for host in hosts))
        return self._leaf(hosts[0], _OID_SERVER_AUTH, [_extension(_OID_ALT_NAME, names)], expired)

    def client(self, name: str) -> Certificate:
        """Return a client certificate for mutual TLS."""
        return self._leaf(name, _OID_CLIENT_AUTH, [], expired=False)

    def _leaf(self, name: str, usage: str, more: list[bytes], expired: bool) -> Certificate:
        key = _Key()
        now = time.time()
        extensions = [
            _extension(_OID_BASIC_CONSTRAINTS, _sequence(), critical=True),
            _extension(_OID_KEY_USAGE, _tlv(0x03, b"\x07\x80"), critical=True),  # digitalSignature
            _extension(_OID_EXTENDED_USAGE, _sequence(_oid(usage))),
            _extension(_OID_SUBJECT_KEY, _tlv(0x04, key.identifier)),
            self._authority_key(),
            *more,
        ]
        end = now - _DAY if expired else now + 365 * _DAY
        der = self._issue(_name(name), key, (now - 30 * _DAY, end), extensions)
        return Certificate(_pem("CERTIFICATE", der), _pem("PRIVATE KEY", key.pkcs8()))

    def _authority_key(self) -> bytes:
        return _extension(_OID_AUTHORITY_KEY, _sequence(_tlv(0x80, self._key.identifier)))

    def _issue(self, subject: bytes, key: _Key, span: tuple[float, float], extensions: list[bytes]) -> bytes:
        algorithm = _sequence(_oid(_OID_ECDSA_SHA256))
        body = _sequence(
            _tlv(0xA0, _integer(2)),  # version 3
            _integer(secrets.randbits(126) | 1 << 126),
            algorithm,
            self._name,
            _sequence(*(_time(moment) for moment in span)),
            subject,
            key.public_info(),
            _tlv(0xA3, _sequence(*extensions)),
        )
        return _sequence(body, algorithm, _tlv(0x03, b"\x00" + self._key.sign(body)))


class _Key:
    """ECDSA key on P-256."""

    def __init__(self) -> None:
        self._secret = secrets.randbelow(_N - 1) + 1
        point = _public_point(self._secret)
        self.public = b"\x04" + point[0].to_bytes(32) + point[1].to_bytes(32)
        self.identifier = hashlib.sha1(self.public, usedforsecurity=False).digest()  # RFC 5280, 4.2.1.2 (1)

    def public_info(self) -> bytes:
        """Return the SubjectPublicKeyInfo (RFC 5480, 2)."""
        return _sequence(_key_algorithm(), _tlv(0x03, b"\x00" + self.public))

    def pkcs8(self) -> bytes:
        """Return the PrivateKeyInfo (RFC 5208) with an ECPrivateKey (RFC 5915)."""
        inner = _sequence(
            _integer(1),
            _tlv(0x04, self._secret.to_bytes(32)),
            _tlv(0xA1, _tlv(0x03, b"\x00" + self.public)),
        )
        return _sequence(_integer(0), _key_algorithm(), _tlv(0x04, inner))

    def sign(self, message: bytes) -> bytes:
        """Return the ECDSA signature with SHA-256 (FIPS 186-4, 6.4), as DER."""
        digest = int.from_bytes(hashlib.sha256(message).digest())
        while True:
            nonce = secrets.randbelow(_N - 1) + 1
            r = _public_point(nonce)[0] % _N
            s = pow(nonce, -1, _N) * (digest + r * self._secret) % _N
            if r and s:
                return _sequence(_integer(r), _integer(s))


def _add(left: _Point, right: _Point) -> _Point:
    if left is None or right is None:
        return left or right
    (x1, y1), (x2, y2) = left, right
    if x1 == x2 and (y1 + y2) % _P == 0:
        return None
    rise, run = (3 * x1 * x1 - 3, 2 * y1) if left == right else (y2 - y1, x2 - x1)
    slope = rise * pow(run, -1, _P)
    x3 = (slope * slope - x1 - x2) % _P
    return x3, (slope * (x1 - x3) - y1) % _P


def _public_point(secret: int) -> tuple[int, int]:
    """Return the generator multiplied by a secret of 1 to _N - 1, by doubling and adding."""
    total: _Point = None
    power: _Point = _G
    while secret:
        if secret & 1:
            total = _add(total, power)
        power = _add(power, power)
        secret >>= 1
    if total is None:
        raise ValueError("a multiple of the order of the group gives the point at infinity")
    return total


def _tlv(tag: int, content: bytes) -> bytes:
    """Return one DER element (X.690): tag, length, content."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(length)]) + length + content


def _sequence(*elements: bytes) -> bytes:
    return _tlv(0x30, b"".join(elements))


def _integer(value: int) -> bytes:
    return _tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1))


def _oid(dotted: str) -> bytes:
    first, second, *rest = (int(part) for part in dotted.split("."))
    return _tlv(0x06, b"".join(_base128(part) for part in (first * 40 + second, *rest)))


def _base128(value: int) -> bytes:
    out = bytes([value & 0x7F])
    while value := value >> 7:
        out = bytes([value & 0x7F | 0x80]) + out
    return out


def _time(moment: float) -> bytes:
    return _tlv(0x17, datetime.fromtimestamp(moment, UTC).strftime("%y%m%d%H%M%SZ").encode())  # UTCTime, to 2049


def _name(common_name: str) -> bytes:
    attribute = _sequence(_oid(_OID_COMMON_NAME), _tlv(0x0C, common_name.encode()))
    return _sequence(_tlv(0x31, attribute))


def _alternative_name(host: str) -> bytes:
    try:
        return _tlv(0x87, ipaddress.ip_address(host).packed)
    except ValueError:
        return _tlv(0x82, host.encode("idna"))


def _extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    flag = _tlv(0x01, b"\xff") if critical else b""
    return _sequence(_oid(oid), flag, _tlv(0x04, value))


def _key_algorithm() -> bytes:
    return _sequence(_oid(_OID_EC_PUBLIC_KEY), _oid(_OID_P256))


def _pem(label: str, der: bytes) -> str:
    text = base64.b64encode(der).decode()
    lines = "\n".join(text[start : start + 64] for start in range(0, len(text), 64))
    return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n"

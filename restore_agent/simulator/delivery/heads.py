"""Unusual heads and framing of deliveries, by fault."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from urllib.parse import unquote

from ..body import Headers
from ..faults.faults import Faults

_NOISE: Headers = (
    ("x-FRAME-options", "  DENY  "),
    ("cAcHe-CoNtRoL", "no-cache"),
    ("Cache-Control", "no-store"),
    ("Content-Disposition", 'attachment; filename="../../etc/cron.d/evil"'),
    ("Set-Cookie", "mmsa-prod=; Max-Age=0; Path=/"),
    ("Set-Cookie", "mmsa-hosted=x\tx"),
    *((f"X-Noise-{number}", "n" * 100) for number in range(40)),
)


@dataclass(frozen=True)
class HeadStyle:
    """Form of the head. `reason` replaces that of the status; `interim` answers are sent before the head."""

    reason: str | None = None
    newline: str = "\r\n"
    interim: int = 0


@dataclass(frozen=True)
class ChunkStyle:
    """Form of a chunked body. `end` is the value of the `chunk-end` fault."""

    zeros: int = 0
    extension: str = ""
    trailer: bytes = b""
    end: str = "missing"


@dataclass(frozen=True)
class Form:
    """Framing of an answer, and the form of its head and chunks. `excess` is added to Content-Length."""

    framing: str = "length"
    transfer_encoding: str = "chunked"
    head: HeadStyle = HeadStyle()
    chunks: ChunkStyle = ChunkStyle()
    excess: int = 0


def form_of(faults: Faults) -> Form:
    """Return the form of delivery answers."""
    chunks = ChunkStyle(
        zeros=faults.chunk_zeros,
        extension=';note="a; b"' if faults.chunk_extension else "",
        trailer=b"X-Checksum: none\r\nX-Trailer: yes\r\n" if faults.chunk_trailer else b"",
        end=faults.chunk_end,
    )
    return Form(faults.framing, faults.transfer_encoding, head_style(faults), chunks, faults.wrong_length or 0)


def head_style(faults: Faults) -> HeadStyle:
    """Return the form of heads."""
    newline = "\n" if faults.bare_lf else "\r\n"
    return HeadStyle("" if faults.no_reason else None, newline, faults.interim)


def more_headers(faults: Faults) -> Headers:
    """Return the headers that faults add."""
    headers: Headers = _NOISE if faults.header_noise else ()
    headers += tuple((f"X-More-{number}", "m" * 20) for number in range(faults.many_headers))
    if faults.long_header:
        headers += (("X-Long", "l" * max(0, faults.long_header - len("X-Long: "))),)
    if faults.space_colon:
        headers += (("X-Space ", "before the colon"),)
    if faults.non_ascii_header:
        headers += (("X-Größe", "42"),)
    return headers


def echoes(faults: Faults, token: str) -> dict[str, str]:
    """Return the forms in which an answer repeats the token, by place; `token` is as it stands in the request."""
    return {echo.place: _in_form(token, echo.form) for echo in faults.echo_token}


def _in_form(token: str, form: str) -> str:
    return {
        "plain": token,
        "decoded": unquote(token),
        "hex": token.encode().hex(),
        "base64": base64.b64encode(token.encode()).decode(),
        "upper": token.upper(),
    }[form]

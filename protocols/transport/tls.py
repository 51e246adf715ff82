"""TLS to a broker from a machine whose clock may never have been set.

OpenSSL judges certificates by the system's clock, so a board that boots in 1970 could reach nobody, not even to learn the time. Where the
system's clock is before a time that is known to have passed, OpenSSL's check of dates is left out, and the broker's certificate is held
against that time instead: one that had expired by then is refused. Whether it is valid *yet* cannot be told from a time that has
passed. All else (the authority, the name, the signature) is checked as ever; of the dates, only the broker's own certificate's are.
Over HTTP (`transport.http`) the system's clock counts: there such a board waits until it is set.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from typing import Final

from protocols.errors import ConfigError

NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME, which the ssl module does not name"""
SLACK_MS: Final = 60_000

Known = Callable[[], int]
"""ms since 1970 that are known to have passed; may be called from another thread than the clock's"""


def client_context(ca_file: str | None, cert_file: str | None = None, key_file: str | None = None) -> ssl.SSLContext:
    """Checks names and certificates, by the authority in a file or the system's; shows the certificate in `cert_file` to who asks for one.
    Errors: ConfigError: a file cannot be read."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigError(f"Cannot read certificates from {ca_file}: {error.strerror or error}.") from None
    if cert_file:
        try:
            context.load_cert_chain(cert_file, key_file, password=_no_password)
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise ConfigError(f"The client certificate {cert_file} and its key {key_file} cannot be used: {why}.") from None
    return context


def _no_password() -> str:
    """Without this OpenSSL would ask at the terminal for the password of a key that has one."""
    raise ValueError("the key has a password; use one without")


def handshake(context: ssl.SSLContext, sock: socket.socket, host: str, timeout_s: float, known: Known | None = None) -> ssl.SSLSocket:
    """A socket over which the broker has shown its certificate. Errors: OSError (ssl.SSLError too), ValueError; it is closed then."""
    known_ms = known() if known is not None else 0
    unset = time.time_ns() // 1_000_000 + SLACK_MS < known_ms
    before = context.verify_flags
    if unset:
        context.verify_flags = ssl.VerifyFlags(before | NO_CHECK_TIME)
    try:
        wrapped = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    finally:
        context.verify_flags = before
    try:
        wrapped.settimeout(timeout_s)
        wrapped.do_handshake()
        if unset:
            _check_expiry(wrapped, known_ms)
    except (OSError, ValueError):
        wrapped.close()
        raise
    return wrapped


def _check_expiry(wrapped: ssl.SSLSocket, known_ms: int) -> None:
    shown = (wrapped.getpeercert() or {}).get("notAfter")
    if not isinstance(shown, str) or ssl.cert_time_to_seconds(shown) * 1_000 < known_ms:
        error = ssl.SSLCertVerificationError(1, "certificate has expired")
        error.verify_message = f"the broker's certificate was valid until {shown}, which is known to have passed"
        raise error

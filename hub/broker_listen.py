"""Where the embedded broker listens, and with what certificate."""

from __future__ import annotations

import ipaddress
import socket
import ssl

from protocols.errors import ConfigError


def tls_context(cert_file: str | None, key_file: str | None) -> ssl.SSLContext | None:
    """TLS with this certificate (PEM); None without one. Errors: ConfigError."""
    if cert_file is None or key_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert_file, key_file)
    except OSError as error:
        raise ConfigError(f"The broker's certificate {cert_file} cannot be used: {error.strerror or error}.") from None
    return context


def why_not(error: OSError) -> str:
    """Why a socket could not be bound, without what Python adds: the address, a second time."""
    return str(error.strerror or error).partition(" (while ")[0]


def listen(host: str, port: int, tls: ssl.SSLContext | None) -> socket.socket:
    """The broker's socket; beyond loopback it must have TLS. Errors: ConfigError, in one line for people."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise ConfigError(f"The broker cannot listen on {host}: {error.strerror}.") from None
    if tls is None and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise ConfigError(
            f"The broker would listen on {host} without TLS.", remedy="Give it a certificate and key file, or listen on 127.0.0.1."
        )
    try:
        return socket.create_server(address, family=family, backlog=1_024)
    except OSError as error:
        raise ConfigError(
            f"The broker cannot listen on {host}:{port}: {why_not(error)}.", remedy="Choose another broker.port, or end what uses it."
        ) from None

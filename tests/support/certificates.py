"""Certificates for tests of TLS on loopback: an authority, and a server certificate for 127.0.0.1 that it signed."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths of PEM files."""

    ca: str
    cert: str
    key: str


def make_certificates(folder: Path, in_days: int = 0) -> Certificates:
    """Write three PEM files into `folder`, valid for a day, in so many days."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("test authority")
    ca = _builder(ca_name, ca_name, ca_key, in_days).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    ca = ca.add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    ca_cert = ca.add_extension(usage, critical=True).sign(ca_key, hashes.SHA256())
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    server = _builder(_name("127.0.0.1"), ca_name, key, in_days).add_extension(names, critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    cert = server.add_extension(issuer, critical=False).sign(ca_key, hashes.SHA256())
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem = serialization.Encoding.PEM
    return Certificates(
        ca=_write(folder / "ca.pem", ca_cert.public_bytes(pem)),
        cert=_write(folder / "cert.pem", cert.public_bytes(pem)),
        key=_write(folder / "key.pem", private),
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, in_days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=in_days)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    hour, day = datetime.timedelta(hours=1), datetime.timedelta(days=1)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(now - hour).not_valid_after(now + day)


def _write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)

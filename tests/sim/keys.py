"""Signatures of the simulated world: the same callables as in production, cheap (keyed blake2) or the real Ed25519."""

from __future__ import annotations

from hashlib import blake2b

from protocols.errors import NotVerified
from protocols.sync.seal import Sign, Verify
from protocols.trust import NodeKey
from protocols.trust import verify as verify_real


class Keys:
    """A key per name, made from the seed."""

    def __init__(self, seed: int, *, real: bool) -> None:
        self._seed, self._real = seed, real
        self.fixed: dict[str, bytes] = {}
        """secrets that are not made from the seed"""
        self._secrets: dict[bytes, bytes] = {}
        self._keys: dict[str, NodeKey] = {}
        self.verify: Verify = verify_real if real else self._verify

    def _secret(self, name: str) -> bytes:
        return self.fixed.get(name) or blake2b(f"{self._seed}/key/{name}".encode(), digest_size=32).digest()

    def _key(self, name: str) -> NodeKey:
        return self._keys.setdefault(name, NodeKey(self._secret(name)))

    def public(self, name: str) -> bytes:
        """The public half."""
        if self._real:
            return self._key(name).public
        public = blake2b(self._secret(name), digest_size=32).digest()
        self._secrets[public] = self._secret(name)
        return public

    def signer(self, name: str) -> Sign:
        """Signs as that name."""
        if self._real:
            return self._key(name).sign
        secret = self._secret(name)
        return lambda data: blake2b(data, key=secret, digest_size=64).digest()

    def _verify(self, public: bytes, signature: bytes, data: bytes) -> None:
        if blake2b(data, key=self._secrets[public], digest_size=64).digest() != signature:
            raise NotVerified("not by that key")

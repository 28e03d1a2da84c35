# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ed25519 keys, and envelopes that they sign.

The library `cryptography` signs within the process: the private key is on no command line and in no file of a second
program, as it would be with openssl or ssh-keygen, and the ten or thousand verifications of a decision start none.
Controllers have it with Ansible, targets as Debian's python3-cryptography.

Keys are kept as OpenSSH keeps them, so that a public key is one line of an inventory and ssh-keygen shows and makes
them. An envelope is a DSSE one (Dead Simple Signing Envelope, as in-toto and SLSA use it): the signature is of the
bytes that are read later and of their type, so nothing is normalised before it is proven, and no approval
passes for a verdict.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import os
import stat
import tempfile
import typing as t
from pathlib import Path

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
except ImportError:
    HAS_CRYPTOGRAPHY = False
else:
    HAS_CRYPTOGRAPHY = True

Json = dict[str, t.Any]

MOST_BYTES = 256 * 1024  # of a statement: what is larger was not measured by gates
MOST_DEPTH = 20
_TYPE = "application/vnd.bitnet.devops.{}+json"


class BadInput(Exception):
    """An option that cannot be used; the text names it, its value and the way out."""


class Unreadable(Exception):
    """What came is no envelope, or no statement; the text says what it lacks."""


# ---------------------------------------------------------------------------- keys


def make_key(path: str) -> bool:
    """A new key at C(path), for its owner alone. False if there is something already, which is never replaced."""
    target = Path(path)
    text = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    try:
        handle, making = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # 0600 from the beginning
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(handle)
            os.link(making, target)  # unlike a rename, it replaces nothing that somebody made meanwhile
        finally:
            Path(making).unlink()
    except FileExistsError:
        return False
    except OSError as error:
        raise BadInput(
            f"path: {path} cannot be written ({error.strerror}); make its folder first, for its owner alone (0700)"
        ) from error
    return True


def read_key(option: str, path: str) -> Ed25519PrivateKey:
    """The private key in a file that is nobody else's to read."""
    try:
        # Without waiting, should it be a pipe.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            mode = os.fstat(handle).st_mode
            text = file.read(8192) if stat.S_ISREG(mode) else b""
    except OSError as error:
        raise BadInput(
            f"{option}: {path} cannot be read ({error.strerror}). bitnet.devops.signing_key makes a key; the task may "
            "need become to read it"
        ) from error
    if stat.S_ISREG(mode) and stat.S_IMODE(mode) & 0o077:
        raise BadInput(f"{option}: others may read {path} (mode {stat.S_IMODE(mode):04o}); chmod 0600 {path}")
    key = None
    with contextlib.suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = serialization.load_ssh_private_key(text, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput(
            f"{option}: {path} holds no Ed25519 key in OpenSSH's form without a passphrase; bitnet.devops.signing_key "
            "makes one where there is no file, as does ssh-keygen -t ed25519 -N ''"
        )
    return key


def public_line(key: Ed25519PrivateKey) -> str:
    """Its public key as one line, as in C(ssh-ed25519 AAAA...)."""
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        .decode("ascii")
    )


def public_key(option: str, line: str) -> Ed25519PublicKey:
    key = None
    with contextlib.suppress(ValueError, TypeError, UnsupportedAlgorithm):
        [only] = line.strip().splitlines()
        key = serialization.load_ssh_public_key(only.encode())
    if not isinstance(key, Ed25519PublicKey):
        raise BadInput(
            # No more of it: it may be a private key that was put here by mistake.
            f"{option}: {line[:20]!r} is no Ed25519 public key, as one line 'ssh-ed25519 AAAA...' is; take public_key "
            "of bitnet.devops.signing_key, or the .pub file of ssh-keygen -t ed25519"
        )
    return key


def raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


class Keyring:
    """Whose public key is whose. One owner may have several: one per manager, or an old and a new one."""

    def __init__(self, option: str, lines: t.Iterable[tuple[str, t.Sequence[str]]]) -> None:
        self.keys: list[tuple[str, Ed25519PublicKey]] = []
        owners: dict[bytes, str] = {}
        for owner, texts in lines:
            if not texts:
                raise BadInput(
                    f"{option}: {owner} has no keys, so nothing it says could be believed; list its public key"
                )
            for text in texts:
                key = public_key(f"{option}: a key of {owner}", text)
                other = owners.setdefault(raw(key), owner)
                if other != owner:
                    raise BadInput(
                        f"{option}: {other} and {owner} have the same key {text[:80]!r}, so either could speak for the "
                        "other; make one key for each"
                    )
                self.keys.append((owner, key))

    def signer(self, message: bytes, signature: bytes) -> str:
        """Whose key has signed it; empty if none of these has."""
        for owner, key in self.keys:
            with contextlib.suppress(InvalidSignature):
                key.verify(signature, message)
                return owner
        return ""


# ---------------------------------------------------------------------------- envelopes


@dataclasses.dataclass(frozen=True)
class Opened:
    """The statement in an envelope. Without a C(signer) it is a claim and no more."""

    signer: str
    payload: bytes
    statement: Json


def _message(kind: str, payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding."""
    name = _TYPE.format(kind).encode("ascii")
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


def seal(kind: str, statement: t.Mapping[str, t.Any], key: Ed25519PrivateKey) -> Json:
    if not _is_shallow(statement, MOST_DEPTH):
        raise BadInput(f"a {kind} of more than {MOST_DEPTH} levels; give figures, not what they are made of")
    text = json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # Half a surrogate pair, as of bytes that a command printed, would be read by nobody.
    payload = text.encode("utf-8", "replace")
    if len(payload) > MOST_BYTES:
        raise BadInput(
            f"a {kind} of {len(payload)} bytes is larger than {MOST_BYTES}; give figures, not what they are made of"
        )
    fingerprint = hashlib.sha256(base64.b64decode(public_line(key).split()[1])).digest()  # as ssh-keygen -l says it
    return {
        "payloadType": _TYPE.format(kind),
        "payload": base64.b64encode(payload).decode("ascii"),
        "signatures": [
            {
                "keyid": "SHA256:" + base64.b64encode(fingerprint).decode("ascii").rstrip("="),
                "sig": base64.b64encode(key.sign(_message(kind, payload))).decode("ascii"),
            }
        ],
    }


def open_envelope(kind: str, envelope: t.Any, keyring: Keyring) -> Opened:
    """What is in it, which may still be the text of JSON, and whose it is. Raises Unreadable."""
    try:
        if isinstance(envelope, str):
            if len(envelope) > MOST_BYTES * 2:
                raise Unreadable(f"it is larger than {MOST_BYTES} bytes")
            envelope = json.loads(envelope)
        if envelope["payloadType"] != _TYPE.format(kind):
            raise Unreadable(f"its payloadType is not {_TYPE.format(kind)}")
        if len(envelope["payload"]) > MOST_BYTES * 4 // 3 + 4:
            raise Unreadable(f"it is larger than {MOST_BYTES} bytes")
        payload = base64.b64decode(envelope["payload"], validate=True)
        [one] = envelope["signatures"]
        signature = base64.b64decode(one["sig"], validate=True)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise Unreadable(
            "it is no envelope of one signature (payloadType, payload, signatures), as bitnet.devops.verdict makes it"
        ) from error
    return Opened(keyring.signer(_message(kind, payload), signature), payload, _statement(payload))


def _statement(payload: bytes) -> Json:
    try:
        statement = json.loads(payload)
        # Half a surrogate pair or an infinite number would break whoever prints it.
        json.dumps(statement, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise Unreadable("its payload is no JSON") from error
    if not isinstance(statement, dict) or not _is_shallow(statement, MOST_DEPTH):
        raise Unreadable(f"its payload is no JSON object of at most {MOST_DEPTH} levels")
    return statement


def _is_shallow(value: t.Any, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return True
    return levels > 0 and all(
        _is_shallow(part, levels - 1) for part in (value.values() if isinstance(value, dict) else value)
    )

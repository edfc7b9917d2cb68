#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Verify tracers, and open sealed ones, with PyNaCl: a second implementation of SPEC.md.

check.py vectors FILE...   each file's verdict must be what its header expects
check.py lines             each line of standard input must be a valid tracer
check.py datagram          standard input must be one valid datagram
"""
import base64
import hmac
import ipaddress
import json
import re
import sys

import nacl.bindings
import nacl.exceptions
import nacl.signing

LABEL = b"overflowd endorsement 1\n"


class Invalid(Exception):
    pass


def need(ok, why):
    if not ok:
        raise Invalid(why)


def no_twins(pairs):
    need(len(dict(pairs)) == len(pairs), "a member comes twice")
    return dict(pairs)


def parse(text):
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=no_twins)
    except ValueError as e:
        raise Invalid(e) from e
    need(isinstance(value, dict), "no object")
    return value


def unbase64(text):
    need(isinstance(text, str), "no base64")
    try:
        raw = base64.b64decode(text)
    except ValueError as e:
        raise Invalid(e) from e
    need(base64.b64encode(raw).decode() == text, "base64 is not canonical")
    return raw


def unhex(text):
    need(isinstance(text, str) and re.fullmatch("[0-9a-f]{64}", text), "key")
    return bytes.fromhex(text)


def verify(key, signature, message):
    try:
        nacl.signing.VerifyKey(key).verify(message, signature)
    except (nacl.exceptions.BadSignatureError, ValueError) as e:
        raise Invalid(e) from e


def check_message(key, signature, message):
    verify(key, signature, message)
    m = parse(message)
    need(m.get("v", 1) == 1, "version")
    data = m.get("flowdata", {}).get("data", {})
    try:
        ends = [ipaddress.ip_address(data[n]) for n in ("saddr", "daddr")]
    except (KeyError, ValueError) as e:
        raise Invalid("address") from e
    need(ends[0].version == ends[1].version, "families")
    need(m.get("metadata", {}).get("time", 0) > 0, "time")
    if "sampling" in m:
        need(0 < m["sampling"]["rate"] <= 1, "rate")
    if "succeeds" in m:
        s = m["succeeds"]
        old = unhex(s["key"])
        verify(old, unbase64(s["signature"]), LABEL + old + key + s["since"].to_bytes(8, "big"))
    return m


def check_datagram(b):
    need(len(b) <= 1232, "too large")
    need(b[:8] == b"OVERFLW1" and len(b) >= 106, "form")
    check_message(b[8:40], b[40:104], b[104:])


def extract(salt, suite, label, key):
    """LabeledExtract of RFC 9180, section 4."""
    return hmac.digest(salt, b"HPKE-v1" + suite + label + key, "sha256")


def expand(key, suite, label, info, size):
    """LabeledExpand, for no more than one block of SHA-256."""
    return hmac.digest(key, size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info + b"\1", "sha256")[:size]


def check_sealed(b, secret):
    need(len(b) <= 1232, "too large")
    need(b[:8] == b"OVERFLWS" and len(b) >= 56, "form")
    exchange, text = b[8:40], b[40:]
    # DHKEM(X25519, HKDF-SHA256), section 4.1
    kem, suite = b"KEM\0\x20", b"HPKE\0\x20\0\1\0\3"
    try:
        shared = nacl.bindings.crypto_scalarmult(secret, exchange)
    except RuntimeError as e:
        raise Invalid(e) from e
    public = nacl.bindings.crypto_scalarmult_base(secret)
    shared = expand(extract(b"", kem, b"eae_prk", shared), kem, b"shared_secret", exchange + public, 32)
    # The key schedule in base mode, section 5.1
    context = b"\0" + extract(b"", suite, b"psk_id_hash", b"") + extract(b"", suite, b"info_hash", b"overflowd sealed 1")
    key = extract(shared, suite, b"secret", b"")
    nonce = expand(key, suite, b"base_nonce", context, 12)
    key = expand(key, suite, b"key", context, 32)
    try:
        datagram = nacl.bindings.crypto_aead_chacha20poly1305_ietf_decrypt(text, b"", nonce, key)
    except nacl.exceptions.CryptoError as e:
        raise Invalid(e) from e
    check_datagram(datagram)


def check_line(line):
    need(len(line) <= 16384, "too large")
    if line.startswith(b"{'"):
        line = line.replace(b"'", b'"')
    outside = parse(line)
    need(isinstance(outside.get("signature"), dict), "no signature")
    signature = outside.pop("signature")
    need(set(signature) == {"key", "signature"}, "signature")
    key, raw = unhex(signature["key"]), unbase64(signature["signature"])
    need(outside == check_message(key, raw[:64], raw[64:]), "outside differs")


def check_vector(path):
    with open(path, "rb") as f:
        head, payload = f.read().split(b"\n\n", 1)
    header = dict(l.split(": ", 1) for l in head.decode().splitlines())
    try:
        if header["form"] == "datagram":
            check_datagram(bytes.fromhex(payload.decode()))
        elif header["form"] == "sealed":
            check_sealed(bytes.fromhex(payload.decode()), bytes.fromhex(header["secret"]))
        else:
            check_line(payload.rstrip(b"\n"))
        verdict = "valid"
    except Invalid:
        verdict = "invalid"
    if verdict != header["expect"]:
        sys.exit(f"{path}: {verdict}, expected {header['expect']}")


def main():
    count = 0
    if sys.argv[1:2] == ["vectors"]:
        for count, path in enumerate(sys.argv[2:], 1):
            check_vector(path)
    elif sys.argv[1:] == ["lines"]:
        for count, line in enumerate(sys.stdin.buffer, 1):
            check_line(line.rstrip(b"\n"))
    elif sys.argv[1:] == ["datagram"]:
        check_datagram(sys.stdin.buffer.read())
        count = 1
    else:
        sys.exit(__doc__)
    print(count)


main()

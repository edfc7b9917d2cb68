#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Holds the XARF reports on standard input, one behind the other, to the schemas."""
import json
import os
import sys
import warnings

warnings.simplefilter("ignore")  # newer versions want another resolver than Debian's has
from jsonschema import Draft202012Validator, FormatChecker, RefResolver

here = os.path.dirname(os.path.abspath(__file__))
core, ddos = (json.load(open(os.path.join(here, name))) for name in ("xarf-core.json", "connection-ddos.json"))
resolver = RefResolver(ddos["$id"], ddos, store={core["$id"]: core, ddos["$id"]: ddos})
validator = Draft202012Validator(ddos, resolver=resolver, format_checker=FormatChecker())
text, at = sys.stdin.read().strip(), 0
decoder = json.JSONDecoder()
while at < len(text):
    report, at = decoder.raw_decode(text, at)
    while at < len(text) and text[at].isspace():
        at += 1
    wrong = [e.message for e in validator.iter_errors(report)]
    print("\n".join(wrong) if wrong else "valid")

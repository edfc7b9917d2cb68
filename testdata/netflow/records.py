#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Writes what tshark's dissector reads of a capture of NetFlow v9 or IPFIX.

usage: records.py NAME.pcap

writes beside the capture, one line each:
  NAME.tshark.tsv     flow records, in the order of the file
  NAME.options.tsv    records of options templates
  NAME.templates.tsv  templates, as often as they were sent

A cell is empty where a record has no such field. Numbers are decimal. Where a
record has 21 and 22 (milliseconds of the exporter's uptime), these are in
start_uptime and end_uptime, and start and end are computed from them: in v9
from uptime and unix_secs of the header, in IPFIX from the last
systemInitTimeMilliseconds that came for the domain. start and end are
milliseconds since 1970 with as many decimals as the exporter gave, and come from
no other field than tshark's start and end. "other" has what no column is for.
"""
import datetime
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

COLUMNS = {  # of a flow record: the names tshark has for it
    "srcaddr": "srcaddr srcaddrv6", "dstaddr": "dstaddr dstaddrv6", "srcport": "srcport", "dstport": "dstport",
    "protocol": "protocol", "tos": "tos", "tcpflags": "tcpflags tcpflags16",
    "packets": "packets packets64", "octets": "octets octets64",
    "start_uptime": "timestart", "end_uptime": "timeend", "start": "abstimestart", "end": "abstimeend",
    "reverse_packets": "", "reverse_octets": "", "reverse_tos": "", "reverse_tcpflags": "",
    "icmp_type": "icmp_type icmp_ipv4_type icmp_ipv6_type", "icmp_code": "icmp_code icmp_ipv4_code icmp_ipv6_code",
    "reverse_icmp_type": "", "reverse_icmp_code": "",
    "ingress": "inputint", "egress": "outputint", "direction": "direction", "biflow_direction": "biflow_direction",
    "end_reason": "flow_end_reason", "ip_version": "ip_version",
    "vlan": "vlanid dot1q_vlan_id", "post_vlan": "post_vlanid post_vlan_id", "min_ttl": "ttl_minimum", "max_ttl": "ttl_maximum",
    "srcmask": "srcmask srcmaskv6", "dstmask": "dstmask dstmaskv6", "srcas": "srcas", "dstas": "dstas",
    "nexthop": "nexthop nexthopv6 bgpnexthop bgpnexthopv6", "srcmac": "srcmac", "dstmac": "dstmac post_dstmac",
    "sampler_id": "sampler_id selector_id", "sampling_interval": "sampling_interval", "sampling_algorithm": "sampling_algorithm",
    "post_nat_srcaddr": "post_natsource_ipv4_address post_natsource_ipv6_address",
    "post_nat_dstaddr": "post_natdestination_ipv4_address post_natdestination_ipv6_address",
    "post_nat_srcport": "post_naptsource_transport_port", "post_nat_dstport": "post_naptdestination_transport_port",
}
COLUMN = {name: column for column, names in COLUMNS.items() for name in names.split()}
HEADER = ["frame", "version", "uptime", "unix_secs", "sequence", "domain"]
BORING = re.compile(r"flowset_id|flowset_length|template_frame|padding|timedelta|tcpflags\d*\..*|string_len.*|"
                    r".*_total_.*|drop_.*|mul.*|.*_squared|(in|e)gress_.*cast_.*")  # and counts of no use here


def unix_milliseconds(show):
    """Unix milliseconds of "Nov 25, 2026 00:03:17.889000000 UTC"."""
    text, fraction = re.fullmatch(r"(.*?)\.(\d+) UTC", show).groups()
    at = datetime.datetime.strptime(text, "%b %d, %Y %H:%M:%S").replace(tzinfo=datetime.timezone.utc)
    nanoseconds = int(at.timestamp()) * 10**9 + int(fraction.ljust(9, "0"))
    text = f"{nanoseconds // 10**6}.{nanoseconds % 10**6:06}"
    return text.rstrip("0").removesuffix(".")


def value(field):
    show = field.get("show")
    if field.get("name") == "cflow.data_link_frame_section":
        return re.sub("(00)+$", "", field.get("value"))
    if show.endswith(" UTC"):
        return unix_milliseconds(show)
    if re.fullmatch(r"0x[0-9a-f]+", show):
        return str(int(show, 16))
    return show.replace("\t", " ")


def leaves(record):
    """Yields (name, value, of the reverse direction) of each field."""
    for field in record.iter("field"):
        prefix, _, name = (field.get("name") or "").partition("cflow.")
        if prefix or not name:
            continue
        if name.startswith("abstime") and int(field.get("size")) > 8:
            # No length of a time: tshark reads something of it, here is all.
            yield name + "_bytes", field.get("value"), False
        elif not BORING.fullmatch(name):
            reverse = "(Reverse" in (field.get("showname") or "")
            if name == "icmp_type_code_ipv4":
                yield "icmp_ipv4_type", str(int(value(field)) >> 8), reverse
                yield "icmp_ipv4_code", str(int(value(field)) & 255), reverse
            else:
                yield name, value(field), reverse


def first(tree, name):
    for field in tree.iter("field"):
        if field.get("name") == name:
            return field
    return None


def templates(flowset):
    """Yields the templates in a set: (id, fields of a scope, all fields)."""
    for template in flowset:
        if not (template.get("show") or "").startswith(("Template (", "Options Template (")):
            continue
        fields, scopes = [], 0
        for field in template.iter("field"):
            kind = length = pen = None
            for part in field:
                name = part.get("name") or ""
                if name in ("cflow.template_field_type", "cflow.template_ipfix_field_type", "cflow.scope_field_type",
                            "cflow.template_ipfix_field_type_enterprise"):
                    kind = int(part.get("show"), 0)
                    scopes += name == "cflow.scope_field_type"
                elif name in ("cflow.template_field_length", "cflow.scope_field_length"):
                    length = part.get("show")
                elif name == "cflow.template_ipfix_field_pen":
                    pen = part.get("show")
            if kind is not None:
                fields.append(f"{pen}/{kind}:{length}" if pen else f"{kind}:{length}")
        count = first(template, "cflow.template_ipfix_scope_field_count")
        if count is not None:
            scopes = int(count.get("show"))
        yield first(template, "cflow.template_id").get("show"), scopes, fields


def uncounted(capture):
    """Returns the capture with the count of every v9 header at its highest.

    tshark takes it for a number of sets and stops there; exporters put the
    number of flow records there, or that of all records.
    """
    b = bytearray(open(capture, "rb").read())
    at = 24
    while at < len(b):
        payload = at + 16 + 14 + (40 if b[at + 16 + 12:at + 16 + 14] == b"\x86\xdd" else 20) + 8
        if b[payload:payload + 2] == b"\0\x09":
            b[payload + 2:payload + 4] = b"\xff\xff"
        at += 16 + int.from_bytes(b[at + 8:at + 12], "little")
    return b


def main(capture):
    pdml = subprocess.run(["tshark", "-n", "-r", "-", "-d", "udp.port==2055,cflow", "-Y", "cflow", "-T", "pdml"],
                          env={"TZ": "UTC", "PATH": "/usr/bin:/bin"}, input=uncounted(capture), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    name = capture.removesuffix(".pcap")
    flows, options, sent = ([HEADER + ["template"] + columns] for columns in
                            (list(COLUMNS) + ["other"], ["scope", "fields"], ["kind", "fields"]))
    scopes, init = {}, {}
    for packet in ElementTree.fromstring(pdml.stdout):
        frame = first(packet, "num").get("show")
        for proto in packet.iter("proto"):
            if proto.get("name") != "cflow":
                continue
            head = {n: first(proto, "cflow." + n) for n in
                    ("version", "sysuptime", "unix_secs", "exporttime", "sequence", "source_id", "od_id")}
            number = {n: int(f.get("value"), 16) for n, f in head.items() if f is not None}
            domain = number.get("source_id", number.get("od_id"))
            seconds = number.get("unix_secs", number.get("exporttime"))
            uptime = number.get("sysuptime", "")
            start = [frame, number["version"], uptime, seconds, number["sequence"], domain]
            for flowset in proto:
                if not re.match(r"(Flow)?Set ", flowset.get("show") or ""):
                    continue
                for template, count, fields in templates(flowset):
                    scopes[domain, template] = count
                    kind = f"options, {count} of scope" if count else "data"
                    sent.append(start + [template, kind, " ".join(fields)])
                identifier = first(flowset, "cflow.flowset_id").get("show")
                for record in flowset:
                    if not (record.get("show") or "").startswith("Flow "):
                        continue
                    count = scopes.get((domain, identifier), 0)
                    if count:
                        pairs = [(n, v) for n, v, _ in leaves(record)]
                        for n, v in pairs:
                            if n == "sys_init_time":
                                init[domain] = int(v)
                        text = [f"{n}={v}" for n, v in pairs]
                        options.append(start + [identifier, "; ".join(text[:count]), "; ".join(text[count:])])
                        continue
                    cells, other = dict.fromkeys(COLUMNS, ""), []
                    for n, v, reverse in leaves(record):
                        column = COLUMN.get(n)
                        # Of the two parts of the reverse type and code tshark marks only the second.
                        if column and "reverse_" + column in cells and (reverse or cells[column] and column == "icmp_type"):
                            column = "reverse_" + column
                        elif reverse:
                            column = None
                        if column in ("start_uptime", "end_uptime"):
                            v = v.partition(".")[0] + v.partition(".")[2][:3]
                            v = str(int(v))
                            base = seconds * 1000 - uptime if uptime != "" else init.get(domain)
                            if base is not None:
                                cells[column.removesuffix("_uptime")] = str(base + int(v))
                        if column and cells[column] == "":
                            cells[column] = v
                        else:
                            other.append(f"{n}{'[reverse]' if reverse else ''}={v}")
                    flows.append(start + [identifier] + list(cells.values()) + ["; ".join(other)])
    for suffix, rows in ("tshark", flows), ("options", options), ("templates", sent):
        if suffix == "options" and len(rows) == 1:
            continue
        with open(f"{name}.{suffix}.tsv", "w", encoding="utf-8") as f:
            f.writelines("\t".join(map(str, row)) + "\n" for row in rows)


main(sys.argv[1])

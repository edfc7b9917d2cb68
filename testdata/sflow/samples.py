#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Writes what tshark's dissector reads of the flow samples in a capture of sFlow v5.

usage: samples.py NAME.pcap > NAME.tshark.tsv

One line a sample, in the order of the file; counter samples are left out, and
samples without a record. A cell is empty where a sample has no such field.
Numbers are decimal. srcaddr to fragment_offset are of the outermost IP header in
the header that was sampled. ip_length is the length in that header: in IPv6 that
of what follows it; fragment_offset is in units of 8 bytes. vlan is that of a tag in the sampled header, switch_vlan the
incoming VLAN of the extended switch data. records has the format of each flow record.
"""
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

HEADER = {"agent": "sflow_245.agent sflow_245.agent.addr.v6 sflow_245.agent.v6", "sub_agent": "sflow_245.sub_agent_id",
          "datagram_sequence": "sflow_245.sequence_number", "uptime": "sflow_245.sysuptime"}
SAMPLE = {
    "source_class": "sflow.flow_sample.source_id_class sflow.flow_sample.source_id_type",
    "source_index": "sflow.flow_sample.index sflow.flow_sample.source_id_index",
    "sequence": "sflow.flow_sample.sequence_number", "rate": "sflow.flow_sample.sampling_rate",
    "pool": "sflow.flow_sample.sample_pool", "drops": "sflow.flow_sample.dropped_packets",
    "input": "sflow.flow_sample.input_interface sflow.flow_sample.input_interface_value",
    "output": "sflow.flow_sample.output_interface sflow.flow_sample.output_interface_value",
    "header_protocol": "sflow_245.header_protocol", "frame_length": "sflow_245.header.frame_length",
    "stripped": "sflow_245.header.payload_stripped", "header_length": "sflow_245.header.sampled_header_length",
    "srcaddr": "ip.src ipv6.src", "dstaddr": "ip.dst ipv6.dst", "srcport": "tcp.srcport udp.srcport", "dstport": "tcp.dstport udp.dstport",
    "ip_protocol": "ip.proto", "tos": "ip.dsfield ipv6.tclass", "ttl": "ip.ttl ipv6.hlim", "tcp_flags": "tcp.flags",
    "icmp_type": "icmp.type icmpv6.type", "icmp_code": "icmp.code icmpv6.code",
    "ip_length": "ip.len ipv6.plen", "fragment_offset": "ip.frag_offset ipv6.fraghdr.offset",
    "vlan": "vlan.id", "switch_vlan": "sflow_245.vlan.in",
}


def value(field):
    show = field.get("show")
    return str(int(show, 16)) if re.fullmatch(r"0x[0-9a-f]+", show) else show


def outermost(tree):
    """Yields the fields of a sample without those of a packet in an ICMP error."""
    icmp = False
    for child in tree:
        if child.tag == "proto":
            if icmp:
                return
            icmp = child.get("name") in ("icmp", "icmpv6")
            yield from (f for f in outermost(child) if not icmp or f.get("name").startswith("icmp"))
        else:
            yield child
            yield from outermost(child)


def pick(tree, names):
    """The first of the fields so named, as the outermost header comes first."""
    for field in outermost(tree):
        if field.get("name") in names.split():
            return value(field)
    return ""


def main(capture):
    pdml = subprocess.run(["tshark", "-n", "-r", capture, "-d", "udp.port==6343,sflow", "-Y", "sflow", "-T", "pdml",
                           "-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE", "-o", "tcp.relative_sequence_numbers:FALSE"],
                          env={"TZ": "UTC", "PATH": "/usr/bin:/bin"}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    print("frame", *HEADER, *SAMPLE, "records", sep="\t")
    for packet in ElementTree.fromstring(pdml.stdout):
        frame = next(f for f in packet.iter("field") if f.get("name") == "num").get("show")
        for proto in packet.findall("proto[@name='sflow']"):
            head = [pick(proto, names) for names in HEADER.values()]
            for sample in proto:
                if not re.match("(Expanded f|F)low sample", sample.get("show") or ""):
                    continue
                cells = {column: pick(sample, names) for column, names in SAMPLE.items()}
                if not cells["ip_protocol"]:  # IPv6: that behind the extension headers
                    chain = [value(f) for f in outermost(sample) if f.get("name") in
                             ("ipv6.nxt", "ipv6.fraghdr.nxt", "ipv6.hopopts.nxt", "ipv6.dstopts.nxt", "ipv6.routing.nxt")]
                    cells["ip_protocol"] = chain[-1] if chain else ""
                formats = [value(f) for f in sample.iter("field") if f.get("name") == "sflow_245.flow_record_format"]
                if not formats:
                    continue
                print(frame, *head, *cells.values(), " ".join(formats), sep="\t")


main(sys.argv[1])

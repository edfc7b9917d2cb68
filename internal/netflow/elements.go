// SPDX-License-Identifier: BSD-3-Clause

package netflow

import "github.com/overflowd/overflowd/internal/flow"

// slot is where the value of a field of a data record goes.
type slot uint8

const (
	noSlot slot = iota
	// Addresses of 16 bytes.
	src6
	dst6
	translatedSrc6
	translatedDst6
	// Numbers of up to 8 bytes, and IPv4 addresses as such.
	src4
	dst4
	translatedSrc4
	translatedDst4
	srcPort
	dstPort
	protocol
	ipVersion
	tos
	tcpFlags
	icmp
	icmpType
	icmpCode
	packets
	octets
	postPackets // behind the exporter
	postOctets
	start
	end
	duration
	bootTime
	minTTL
	maxTTL
	ingress
	egress
	vlan
	srcAS
	dstAS
	dropped
	forwarding
	direction
	translatedSrcPort
	translatedDstPort
	// The other direction of a biflow.
	backPackets
	backOctets
	backTOS
	backTCPFlags
	backStart
	backEnd
	backMinTTL
	backMaxTTL
	backICMP
	// A packet instead of a flow. The first is where it begins, and not a number.
	section
	sectionSize
	// Sampling.
	selectorID
	spacedInterval
	spacedSpace
	sampleSize
	samplePopulation
	probability
	interval
	samplingInterval
	slots
)

// numbers is the first slot that is no address of 16 bytes.
const numbers = src4

// A slotSet has a bit for each slot.
type slotSet uint64

// One more slot than a set has bits does not compile.
var _ [64 - slots]struct{}

func (s slotSet) has(x slot) bool { return s&(1<<x) != 0 }

func (s slotSet) hasAll(of ...slot) bool {
	for _, x := range of {
		if !s.has(x) {
			return false
		}
	}
	return true
}

// unit of a field, where a slot takes several.
type unit uint8

const (
	plain       unit = iota
	seconds          // since the Unix epoch
	millis           // since the Unix epoch
	ntp              // the 64 bits of RFC 5905, section 6: RFC 7011, sections 6.1.9 and 6.1.10
	uptime           // milliseconds since the exporter started
	deltaMicros      // microseconds before the export: RFC 5102, section 5.9.9
	micros           // of a duration
	layer3           // of a packet: it begins with the IP header
	timeval          // pmacct's: seconds and microseconds since the Unix epoch, 8 bytes each
	dscp             // the upper 6 bits of the TOS
	float            // IEEE 754
)

// An element says what an information element is to us. Of several that go to
// the same slot, that of the lowest rank is read.
type element struct {
	slot slot
	rank uint8
	unit unit
}

// elementOf looks a field type up: the numbers that NetFlow v9 (RFC 3954,
// section 8) and IPFIX (IANA's "IPFIX Information Elements") share.
func elementOf(id uint16) element {
	switch id {
	case 1: // octetDeltaCount
		return element{slot: octets}
	case 85: // octetTotalCount
		return element{slot: octets, rank: 1}
	case 231: // initiatorOctets
		return element{slot: octets, rank: 2}
	case 23: // postOctetDeltaCount: behind the exporter, but of the same direction
		return element{slot: postOctets}
	case 171: // postOctetTotalCount
		return element{slot: postOctets, rank: 1}
	case 2: // packetDeltaCount
		return element{slot: packets}
	case 86: // packetTotalCount
		return element{slot: packets, rank: 1}
	case 298: // initiatorPackets
		return element{slot: packets, rank: 2}
	case 24: // postPacketDeltaCount
		return element{slot: postPackets}
	case 172: // postPacketTotalCount
		return element{slot: postPackets, rank: 1}
	case 232: // responderOctets
		return element{slot: backOctets, rank: 2}
	case 299: // responderPackets
		return element{slot: backPackets, rank: 2}
	case 133: // droppedPacketDeltaCount
		return element{slot: dropped}
	case 135: // droppedPacketTotalCount
		return element{slot: dropped, rank: 1}
	case 89:
		return element{slot: forwarding}
	case 239: // biflowDirection
		return element{slot: direction}

	case 8:
		return element{slot: src4}
	case 12:
		return element{slot: dst4}
	case 27:
		return element{slot: src6}
	case 28:
		return element{slot: dst6}
	case 60:
		return element{slot: ipVersion}
	case 4:
		return element{slot: protocol}
	case 5: // ipClassOfService
		return element{slot: tos}
	case 195: // ipDiffServCodePoint
		return element{slot: tos, rank: 1, unit: dscp}
	case 6: // tcpControlBits, of 1 or 2 bytes
		return element{slot: tcpFlags}
	case 7:
		return element{slot: srcPort}
	case 11:
		return element{slot: dstPort}
	case 180, 182: // udpSourcePort, tcpSourcePort
		return element{slot: srcPort, rank: 1}
	case 181, 183:
		return element{slot: dstPort, rank: 1}
	case 32, 139: // icmpTypeCodeIPv4, icmpTypeCodeIPv6
		return element{slot: icmp}
	case 176, 178: // icmpTypeIPv4, icmpTypeIPv6
		return element{slot: icmpType}
	case 177, 179:
		return element{slot: icmpCode}
	case 52: // minimumTTL
		return element{slot: minTTL}
	case 53:
		return element{slot: maxTTL}
	case 192: // ipTTL
		return element{slot: minTTL, rank: 1}

	case 10: // ingressInterface
		return element{slot: ingress}
	case 252: // ingressPhysicalInterface
		return element{slot: ingress, rank: 1}
	case 14:
		return element{slot: egress}
	case 253:
		return element{slot: egress, rank: 1}
	case 58: // vlanId
		return element{slot: vlan}
	case 243: // dot1qVlanId
		return element{slot: vlan, rank: 1}
	case 16:
		return element{slot: srcAS}
	case 17:
		return element{slot: dstAS}

	case 225, 40001: // postNATSourceIPv4Address, and what Cisco's ASA had before it
		return element{slot: translatedSrc4}
	case 226, 40002:
		return element{slot: translatedDst4}
	case 281:
		return element{slot: translatedSrc6}
	case 282:
		return element{slot: translatedDst6}
	case 227, 40003:
		return element{slot: translatedSrcPort}
	case 228, 40004:
		return element{slot: translatedDstPort}

	case 152: // flowStartMilliseconds
		return element{slot: start, unit: millis}
	case 154, 156: // flowStartMicroseconds, flowStartNanoseconds
		return element{slot: start, rank: 1, unit: ntp}
	case 150:
		return element{slot: start, rank: 2, unit: seconds}
	case 22: // flowStartSysUpTime
		return element{slot: start, rank: 3, unit: uptime}
	case 158: // flowStartDeltaMicroseconds
		return element{slot: start, rank: 4, unit: deltaMicros}
	case 153:
		return element{slot: end, unit: millis}
	case 155, 157:
		return element{slot: end, rank: 1, unit: ntp}
	case 151:
		return element{slot: end, rank: 2, unit: seconds}
	case 21:
		return element{slot: end, rank: 3, unit: uptime}
	case 159:
		return element{slot: end, rank: 4, unit: deltaMicros}
	case 323: // observationTimeMilliseconds, of a single packet or an event
		return element{slot: end, rank: 5, unit: millis}
	case 324, 325:
		return element{slot: end, rank: 6, unit: ntp}
	case 322:
		return element{slot: end, rank: 7, unit: seconds}
	case 161: // flowDurationMilliseconds
		return element{slot: duration, unit: millis}
	case 162:
		return element{slot: duration, rank: 1, unit: micros}
	case 160: // systemInitTimeMilliseconds
		return element{slot: bootTime}

	case 315: // dataLinkFrameSection
		return element{slot: section}
	case 313: // ipHeaderPacketSection
		return element{slot: section, rank: 1, unit: layer3}
	case 410: // sectionExportedOctets
		return element{slot: sectionSize}

	case 48, 302: // FLOW_SAMPLER_ID, selectorId
		return element{slot: selectorID}
	case 305: // samplingPacketInterval
		return element{slot: spacedInterval}
	case 306: // samplingPacketSpace
		return element{slot: spacedSpace}
	case 309:
		return element{slot: sampleSize}
	case 310:
		return element{slot: samplePopulation}
	case 311:
		return element{slot: probability, unit: float}
	case 50: // FLOW_SAMPLER_RANDOM_INTERVAL
		return element{slot: interval}
	case 34: // SAMPLING_INTERVAL
		return element{slot: samplingInterval}
		// What says how packets are chosen, samplingAlgorithm (35), FLOW_SAMPLER_MODE (49) and selectorAlgorithm (304),
		// does not change how many are.
	}
	return element{}
}

// reversePEN marks the information elements of the other direction of a biflow
// (RFC 5103, section 6.1).
const reversePEN = 29305

// reverseOf looks up an element of the other direction.
func reverseOf(id uint16) element {
	e := elementOf(id)
	switch e.slot {
	case packets:
		e.slot = backPackets
	case octets:
		e.slot = backOctets
	case postPackets:
		e.slot, e.rank = backPackets, 3+e.rank
	case postOctets:
		e.slot, e.rank = backOctets, 3+e.rank
	case tos:
		e.slot = backTOS
	case tcpFlags:
		e.slot = backTCPFlags
	case start:
		e.slot = backStart
	case end:
		e.slot = backEnd
	case minTTL:
		e.slot = backMinTTL
	case maxTTL:
		e.slot = backMaxTTL
	case icmp:
		e.slot = backICMP
	default:
		return element{}
	}
	return e
}

// fits tells whether a field of so many bytes can hold the element. Integers
// come in reduced sizes (RFC 7011, section 6.2).
func (e element) fits(length int) bool {
	switch {
	case e.slot == noSlot || length == 0:
		return false
	case e.slot == section:
		return true
	case e.unit == ntp:
		return length == 8
	case e.unit == timeval:
		return length == 16
	case e.unit == float:
		return length == 4 || length == 8
	}
	switch e.slot {
	case src4, dst4, translatedSrc4, translatedDst4:
		return length == 4
	case src6, dst6, translatedSrc6, translatedDst6:
		return length == 16
	}
	return length <= 8
}

// isLong tells whether the values of a slot have up to 8 bytes. Of others the
// lower 4 are read.
func isLong(s slot) bool {
	switch s {
	case packets, octets, postPackets, postOctets, dropped, start, end, duration, bootTime, backPackets, backOctets, backStart, backEnd:
		return true
	}
	return s >= spacedInterval
}

// knownBy says which fields of a record a slot alone makes known, whatever its
// value.
var knownBy = [slots]flow.Field{
	tos: flow.HasTOS, tcpFlags: flow.HasTCPFlags, packets: flow.HasPackets, octets: flow.HasBytes,
	postPackets: flow.HasPackets, postOctets: flow.HasBytes,
	minTTL:  flow.HasTTL,
	ingress: flow.HasIngress, egress: flow.HasEgress, vlan: flow.HasVLAN, srcAS: flow.HasAS, dstAS: flow.HasAS,
	dropped: flow.HasDropped, forwarding: flow.HasForwardingStatus,
	backPackets: flow.HasPackets, backOctets: flow.HasBytes, backTOS: flow.HasTOS, backTCPFlags: flow.HasTCPFlags,
	backMinTTL: flow.HasTTL,
}

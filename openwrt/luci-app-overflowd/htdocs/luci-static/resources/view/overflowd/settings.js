// SPDX-License-Identifier: BSD-3-Clause
'use strict';
'require form';
'require uci';
'require validation';
'require view';
'require tools.widgets as widgets';

// number reads a decimal number as the program does; NaN is none.
function number(text) {
	if (text == '')
		return NaN;

	for (let i = 0; i < text.length; i++)
		if ('0123456789.eE+-'.indexOf(text.charAt(i)) < 0)
			return NaN;

	return Number(text);
}

// chance reads a rate, as 0.000001 or 1/1000000.
function chance(text) {
	const parts = text.split('/');

	if (parts.length > 2)
		return NaN;

	return number(parts[0]) / (parts.length == 2 ? number(parts[1]) : 1);
}

// value returns what the form shows, or the default, of an option elsewhere in it.
function value(map, option, section_id, otherwise) {
	const found = map.lookupOption(option, section_id);

	return (found ? found[0].formvalue(section_id) : null) || otherwise;
}

// again looks whether another option is valid now.
function again(map, option, section_id) {
	const found = map.lookupOption(option, section_id);

	if (found)
		found[0].triggerValidation(section_id);
}

function isEmail(text) {
	const at = text.indexOf('@');

	if (at < 1 || at == text.length - 1 || at != text.lastIndexOf('@') || text.indexOf('..') >= 0)
		return false;

	for (let i = 0; i < text.length; i++)
		if (' <>()[],;:"'.indexOf(text.charAt(i)) >= 0)
			return false;

	return true;
}

function isURL(text) {
	if (text.indexOf(' ') >= 0)
		return false;

	return [ 'https://', 'http://', 'mailto:', 'tel:' ].some(function(scheme) {
		return text.startsWith(scheme) && text.length > scheme.length;
	});
}

function isASN(text) {
	if (text.substring(0, 2).toUpperCase() == 'AS')
		text = text.substring(2);

	for (let i = 0; i < text.length; i++)
		if ('0123456789'.indexOf(text.charAt(i)) < 0)
			return false;

	return Number(text) >= 1 && Number(text) <= 4294967295;
}

function isDigits(text) {
	return text.length > 0 && text.split('').every(function(c) { return '0123456789'.indexOf(c) >= 0; });
}

// isPrefix: an address, or a prefix as 192.0.2.0/24.
function isPrefix(text) {
	const parts = text.split('/');
	const most = validation.parseIPv4(parts[0]) ? 32 : validation.parseIPv6(parts[0]) ? 128 : -1;

	return most > 0 && (parts.length == 1 || parts.length == 2 && isDigits(parts[1]) && Number(parts[1]) <= most);
}

// isInterface: as 7:wan, or 3:lan=198.51.100.0/24.
function isInterface(text) {
	const at = text.indexOf(':');
	const index = text.substring(0, at);
	const role = text.substring(at + 1, at + 4);
	const rest = text.substring(at + 4);

	return isDigits(index) && Number(index) <= 4294967295 && (role == 'wan' || role == 'lan') &&
		(rest == '' || role == 'lan' && rest.charAt(0) == '=' && rest.substring(1).split(',').every(isPrefix));
}

// isSealKey: as 192.0.2.1=de9edb7d..., of 64 digits.
function isSealKey(text) {
	const at = text.indexOf('=');
	const key = text.substring(at + 1);

	return isPrefix(text.substring(0, at)) && key.length == 64 &&
		key.split('').every(function(c) { return '0123456789abcdef'.indexOf(c) >= 0; });
}

// isFile: its name has a folder, and no spaces.
function isFile(text) {
	return text.charAt(0) == '/' && text.lastIndexOf('/') > 0 && [ ' ', '\t' ].every(function(space) { return text.indexOf(space) < 0; });
}

const contact = [ 'email', 'identity', 'url', 'role', 'asn' ];

// What a tracer has room for: the bytes of the contact as JSON.
const room = 233;

function fits(map, section_id) {
	const all = {};

	contact.forEach(function(option) {
		const text = value(map, option, section_id, '');

		if (text)
			all[option] = text;
	});

	return unescape(encodeURIComponent(JSON.stringify(all))).length <= room;
}

return view.extend({
	load: function() {
		return uci.load('overflowd').then(function() {
			[ [ 'general', 'overflowd' ], [ 'contact', 'contact' ] ].forEach(function(section) {
				if (!uci.get('overflowd', section[0]))
					uci.add('overflowd', section[1], section[0]);
			});
		});
	},

	render: function() {
		const m = new form.Map('overflowd', _('Overflowd'),
			_('For about one packet in a million, Overflowd tells the source and the destination of its flow that it passed here, signed, and whom to call. Victims of floods learn so which networks carry them. It needs an enabled interface or exporter and, to send, one line of contact.'));

		this.general(m);
		this.contact(m);
		this.interfaces(m);
		this.exporters(m);

		return m.render();
	},

	general: function(m) {
		const s = m.section(form.NamedSection, 'general', 'overflowd', _('General'));
		let o;

		s.tab('general', _('Basics'));
		s.tab('suspicion', _('Suspicion'));
		s.tab('receiving', _('Receiving'));
		s.tab('privacy', _('Privacy'));
		s.tab('capture', _('Capture'));
		s.tab('export', _('Flow export'));
		s.tab('memory', _('Memory'));

		o = s.taboption('general', form.Flag, 'enabled', _('Run'),
			_('Nothing else here has an effect before. On a small router it takes 5 to 10 MB of memory, most where it captures in a flood. Only the signing key is written to flash, once, unless tracers are received.'));
		o.datatype = 'bool';
		o.rmempty = false;
		o.validate = function(section_id, enabled) {
			if (this.formvalue(section_id) != '1' || !L.toArray(value(m, 'send', section_id)).length)
				return true;

			if (contact.some(function(option) { return value(m, option, 'contact'); }))
				return true;

			return _('Sending needs a contact: fill in one line of it below.');
		};

		o = s.taboption('general', form.MultiValue, 'send', _('Send by'),
			_('How the two ends of a selected flow are told. A tracer is one datagram of at most 1,232 bytes that anybody on its way can read unless it is sealed; all of them together stay below 1 % of the traffic. By HTTPS and HTTP each end is asked once, and left alone for a day if it does not take it: that costs some 4 kB each, and some 4 MB of memory; not in overflowd-mini. Without a choice nothing leaves this router.'));
		o.datatype = 'list(string)';
		o.value('udp', _('UDP, port 65535'));
		o.value('https', _('HTTPS'));
		o.value('http', _('HTTP'));
		o.placeholder = _('nothing is sent');
		o.onchange = function(ev, section_id) {
			[ 'enabled', 'rate', 'seal', 'https_trust' ].forEach(function(option) {
				again(m, option, section_id);
			});
		};

		o = s.taboption('general', form.Value, 'rate', _('Rate'),
			_('The chance of one packet to be selected, as 1/1000000 or 0.000001. A busy line of 10,000 packets a second makes a tracer in 100 seconds at 1/1000000. Each one costs about 10 ms of an old processor and 1 to 2 kB of upload, and tells two strangers of one flow. At most 1/1000 if something is sent.'));
		o.datatype = 'string';
		o.placeholder = '1/1000000';
		o.value('1/10000000', _('1/10000000 (rare)'));
		o.value('1/1000000', _('1/1000000 (usual)'));
		o.value('1/100000', _('1/100000 (often)'));
		o.validate = function(section_id, text) {
			if (text == null || text == '')
				return true;

			const rate = chance(text);

			if (!(rate > 0 && rate <= 1))
				return _('Expecting: a chance above 0 and up to 1, as 1/1000000 or 0.000001');

			if (rate > 0.001 && L.toArray(value(m, 'send', section_id)).length)
				return _('At most 1/1000 if something is sent, so that nobody can aim tracers at somebody.');

			return true;
		};
		o.onchange = function(ev, section_id) {
			again(m, 'thin', section_id);
		};

		o = s.taboption('general', form.Value, 'contacts', _('File of contacts'),
			_('Tells who answers for parts of the network, a line each: 198.51.100.0/24; email=abuse@customer.example; role=abuse. All else is of the contact below. Read at the start. Not in overflowd-mini.'));
		o.datatype = 'string';
		o.placeholder = _('none');
		o.validate = function(section_id, text) {
			return !text || isFile(text) || _('Expecting: the name of a file in a folder, without spaces');
		};

		o = s.taboption('suspicion', form.Value, 'boost', _('Boost'),
			_('Flows that look like an attack have so many times the chance to be selected, and their tracers say why. With something sent the chance is never above 1/1000. It costs about a fifth more processor time for each packet, and half more in a flood; "off" suspects nothing.'));
		o.datatype = 'or("off", and(uinteger, range(1, 1000000)))';
		o.placeholder = '100';
		o.value('off', _('off (suspect nothing)'));
		o.value('10');
		o.value('100');
		o.value('1000');
		o.onchange = function(ev, section_id) {
			again(m, 'suspects', section_id);
		};

		o = s.taboption('suspicion', form.Value, 'flood', _('Packets a second of a flood'),
			_('Flows to an address that gets more than that are suspected. Set it above what your line carries on a busy day; 0 is never.'));
		o.datatype = 'and(uinteger, range(0, 2147483647))';
		o.placeholder = '100000';

		o = s.taboption('suspicion', form.Value, 'suspects', _('File of suspects'),
			_('Flows with an end in the prefixes that this file lists, one a line, are suspected. It is read again when it changes.'));
		o.datatype = 'string';
		o.placeholder = _('none');
		o.validate = function(section_id, text) {
			if (text && !isFile(text))
				return _('Expecting: the name of a file in a folder, without spaces');

			if (text && value(m, 'boost', section_id) == 'off')
				return _('Says nothing while nothing is suspected: set the boost.');

			return true;
		};

		o = s.taboption('suspicion', form.Value, 'max_suspects', _('Most prefixes'),
			_('A longer list is not taken. Each takes 8 bytes of memory, one of IPv6 takes 32.'));
		o.datatype = 'and(uinteger, range(1, 10000000))';
		o.placeholder = '65536';

		o = s.taboption('receiving', form.Flag, 'receive', _('Take the tracers of others'),
			_('What other networks tell about flows of this router is in the log and on the status page, and somebody who sends in our name is noticed. It opens UDP port 65535 to all, in the firewall, too; a fixed share of the processor checks signatures, and what is known of senders is written to flash at most twice a day. Not in overflowd-mini.'));
		o.datatype = 'bool';

		o = s.taboption('receiving', form.DynamicList, 'receive_to', _('Further addresses'),
			_('That are ours, besides those of this router, as the prefix of hosts with public addresses. Tracers to others are dropped.'));
		o.datatype = 'or(cidr, ipaddr("nomask"))';
		o.placeholder = '2001:db8::/48';
		o.depends('receive', '1');

		o = s.taboption('privacy', form.Flag, 'log_tracers', _('Log tracers'),
			_('Writes each tracer to the system log, too. The log then tells who talks to whom, to all who read it. It lies in memory, not in flash, unless you have set a log file.'));
		o.datatype = 'bool';

		o = s.taboption('privacy', form.ListValue, 'seal', _('Seal tracers'),
			_('Encrypts a tracer so that only its recipient can read it. Keys come with receipts, by HTTPS, or from the list below; those that recipients told are kept in flash, 5 kB at the most, written at most once a day. It costs about 15 ms of an old processor for each. Not in overflowd-mini.'));
		o.datatype = 'or("never", "prefer", "require")';
		o.value('prefer', _('if a key is known (usual)'));
		o.value('require', _('always, or it is not told'));
		o.value('never', _('never'));
		o.optional = true;
		o.placeholder = _('if a key is known (usual)');
		o.validate = function(section_id, seal) {
			const sent = L.toArray(value(m, 'send', section_id));
			const keys = L.toArray(value(m, 'seal_key', section_id));

			if (!sent.length && (seal || keys.length))
				return _('Nothing is sent, and so nothing sealed: choose how to send, or leave this and the keys out.');

			if (seal == 'never' && keys.length)
				return _('Then the keys below say nothing: take them out.');

			if (seal == 'require' && !keys.length && (sent.indexOf('https') < 0 || value(m, 'https_trust', section_id) == 'any'))
				return _('Nobody would be told: keys come with answers to tracers that can be read, by HTTPS with certificates that are checked, or from the list below.');

			return true;
		};

		o = s.taboption('privacy', form.DynamicList, 'seal_key', _('Keys of recipients'),
			_('An address or prefix, = and the key that "overflow-receiver key" shows there.'));
		o.datatype = 'string';
		o.placeholder = '192.0.2.1=de9edb7d...';
		o.validate = function(section_id, text) {
			return !text || isSealKey(text) || _('Expecting: as 192.0.2.1= and 64 hexadecimal digits, in lower case');
		};
		o.onchange = function(ev, section_id) {
			again(m, 'seal', section_id);
		};

		o = s.taboption('privacy', form.ListValue, 'https_trust', _('Certificates of HTTPS'),
			_('With certificates that are not checked, who is in between can read what is not sealed. To check them, the package ca-bundle is needed.'));
		o.datatype = 'or("strict", "any")';
		o.value('strict', _('checked (usual)'));
		o.value('any', _('not checked'));
		o.optional = true;
		o.placeholder = _('checked (usual)');
		o.validate = function(section_id, trust) {
			return trust != 'any' || L.toArray(value(m, 'send', section_id)).indexOf('https') >= 0 || _('Says nothing while nothing is sent by HTTPS.');
		};
		o.onchange = function(ev, section_id) {
			again(m, 'seal', section_id);
		};

		o = s.taboption('privacy', form.DynamicList, 'never', _('Never to be told'),
			_('Addresses that get no tracers, as public ones by which equipment is managed. Private ones never do.'));
		o.datatype = 'or(cidr, ipaddr("nomask"))';
		o.placeholder = '198.51.100.0/24';

		o = s.taboption('privacy', form.DynamicList, 'private', _('Private networks to tell'),
			_('Special-purpose addresses, as 10.0.0.0/8, that tracers may name and be sent to all the same, in a network where all want to hear of it. Others of these never leave the router. Usually there is none.'));
		o.datatype = 'or(cidr, ipaddr("nomask"))';
		o.placeholder = '10.0.0.0/8';

		o = s.taboption('privacy', form.Flag, 'nat', _('Look up address translation'),
			_('Asks connection tracking which public address stands for a private one, so that flows seen before their translation can be told. Without it they are dropped. It is on by itself with counted connections and with an interface on the LAN side. It costs one capability more, CAP_NET_ADMIN, and a look-up for each selected packet. Not in overflowd-mini.'));
		o.datatype = 'bool';

		o = s.taboption('capture', form.Value, 'thin', _('Look at one packet in'),
			_('The kernel drops the others, at random, before they cost more; the rate stays what it is. With all packets, capturing takes about a twelfth of the processor time that forwarding them takes on a small router. Automatic: as few as keep the load low.'));
		o.datatype = 'or("auto", and(uinteger, range(1, 1000000)))';
		o.placeholder = '1';
		o.value('1', _('1 (all packets)'));
		o.value('auto', _('auto (automatic)'));
		o.value('10');
		o.value('100');
		o.validate = function(section_id, text) {
			const rate = chance(value(m, 'rate', section_id, '1/1000000'));

			if (text == 'auto' || !(rate > 0) || !(Number(text) > Math.floor(1 / rate + 1e-6)))
				return true;

			return _('Leaves fewer packets than the rate selects.');
		};

		o = s.taboption('capture', form.Flag, 'conntrack', _('Count connections'),
			_('Reads the counters of connection tracking instead of packets, or beside them. It sees what flow offload hides from a capture, and needs net.netfilter.nf_conntrack_acct=1. It costs processor time for each connection that is open, and CAP_NET_ADMIN. Not in overflowd-mini.'));
		o.datatype = 'bool';

		o = s.taboption('export', form.Value, 'listen', _('Listen on'),
			_('Where the datagrams of the exporters below are received. Another address than a loopback one opens the port to the network, only for the exporters that are named; the firewall must let them through, too.'));
		o.datatype = 'ipaddr("nomask")';
		o.placeholder = '127.0.0.1';

		o = s.taboption('export', form.Value, 'udpport', _('UDP port'),
			_('The port is open only if an exporter is enabled.'));
		o.datatype = 'and(port, range(1, 65534))';
		o.placeholder = '7777';

		o = s.taboption('export', form.Value, 'max_exporters', _('Exporters remembered'),
			_('So many exporters (observation domains) are remembered, 5 kB of memory each. A further one takes the place of the one that was silent longest.'));
		o.datatype = 'and(uinteger, range(1, 100000))';
		o.placeholder = '32';

		o = s.taboption('memory', form.Value, 'flows', _('Flows remembered'),
			_('So many flows are remembered, 77 bytes of memory each: 630 kB at 8192. With less, tracers say less of long flows; which packets are selected stays the same.'));
		o.datatype = 'and(uinteger, range(1, 10000000))';
		o.placeholder = '8192';

		o = s.taboption('memory', form.Value, 'memlimit', _('Memory aim (MiB)'),
			_('The memory that Go aims at. Less costs processor time, and far too little costs all of it. Add 1 for each 10,000 flows above 8192.'));
		o.datatype = 'and(uinteger, range(6, 65536))';
		o.placeholder = '12';

		o = s.taboption('memory', form.Value, 'gc', _('Memory growth (%)'),
			_('How much Go lets the memory grow before it collects, in percent of what is in use. More costs memory, less costs processor time.'));
		o.datatype = 'and(uinteger, range(10, 1000))';
		o.placeholder = '50';
	},

	contact: function(m) {
		const s = m.section(form.NamedSection, 'contact', 'contact', _('Contact'),
			_('Whom the recipients of tracers may ask. One line, at least, is needed to send. It is public: each tracer tells it to strangers, so do not name a person who does not want that.'));
		const checks = {
			email: [ isEmail, _('Expecting: an address, as abuse@example.net') ],
			identity: [ function(text) { return text == text.trim(); }, _('Expecting: a name without spaces around it') ],
			url: [ isURL, _('Expecting: a URL that begins with https://, http://, mailto: or tel:') ],
			role: [ function() { return true; } ],
			asn: [ isASN, _('Expecting: a number from 1 to 4294967295') ]
		};
		let o;

		o = s.option(form.Value, 'email', _('E-mail'),
			_('Whom to write to. Better a mailbox of its own: it will be found by senders of spam.'));
		o.datatype = 'maxlength(254)';
		o.placeholder = 'abuse@example.net';

		o = s.option(form.Value, 'identity', _('Name'),
			_('The name of your network. All lines together have room for about 190 letters.'));
		o.datatype = 'string';
		o.placeholder = 'Example Net';

		o = s.option(form.Value, 'url', _('URL'),
			_('Where to read more: http, https, mailto or tel.'));
		o.datatype = 'string';
		o.placeholder = 'https://example.net/abuse';

		o = s.option(form.ListValue, 'role', _('Role'),
			_('What this contact is for.'));
		o.datatype = 'or("abuse", "noc", "tech")';
		o.value('abuse', _('reports of abuse'));
		o.value('noc', _('running the network (NOC)'));
		o.value('tech', _('technical questions'));
		o.optional = true;
		o.placeholder = _('unspecified');

		o = s.option(form.Value, 'asn', _('AS number'),
			_('If you have one.'));
		o.datatype = 'string';
		o.placeholder = '64496';

		s.children.forEach(function(o) {
			o.validate = function(section_id, text) {
				if (text == null || text == '')
					return true;

				if (!checks[this.option][0](text))
					return checks[this.option][1];

				return fits(m, section_id) || _('The contact is too long for a tracer: shorten it.');
			};
			o.onchange = function(ev, section_id) {
				again(m, 'enabled', 'general');
				contact.forEach(function(option) {
					if (option != o.option)
						again(m, option, section_id);
				});
			};
		});
	},

	interfaces: function(m) {
		const s = m.section(form.GridSection, 'interface', _('Interfaces'),
			_('Where packets are captured. Watch one side only, best the one towards the Internet: what passes two captured interfaces is counted at each. The contents of packets are never read.'));
		let o;

		s.anonymous = true;
		s.addremove = true;
		s.nodescriptions = true;
		s.modaltitle = _('Interface');
		s.addbtntitle = _('Add interface');

		o = s.option(form.Flag, 'enabled', _('Enabled'),
			_('Capture here. It costs processor time for each packet.'));
		o.datatype = 'bool';
		o.default = '1';
		o.rmempty = false;
		o.editable = true;

		o = s.option(widgets.NetworkSelect, 'network', _('Networks'),
			_('Captured on whenever they are up. Two that share a device are one, as wan and wan6.'));
		o.datatype = 'list(uciname)';
		o.multiple = true;
		o.optional = true;
		o.nocreate = true;

		o = s.option(widgets.DeviceSelect, 'device', _('Devices'),
			_('Captured on as well, by the name that ip link shows.'));
		o.datatype = 'list(maxlength(15))';
		o.multiple = true;
		o.optional = true;
		o.noaliases = true;

		o = s.option(form.ListValue, 'role', _('Towards'),
			_('What is on the other side. On the LAN side private addresses are told by their translation, which costs a look-up for each selected packet, and CAP_NET_ADMIN; it is not in overflowd-mini. Source addresses that are not yours are known there.'));
		o.datatype = 'or("wan", "lan")';
		o.value('wan', _('the Internet (wan)'));
		o.value('lan', _('our hosts (lan)'));
		o.optional = true;
		o.placeholder = _('unspecified');
	},

	exporters: function(m) {
		const s = m.section(form.GridSection, 'exporter', _('Exporters'),
			_('Who sends flow export (NetFlow v1, v5, v7 and v9, IPFIX, sFlow v5) to Overflowd: softflowd on this router, or other routers. Set softflowd to the WAN interface, version 9 or 10, IPv6, and maxlife=60.'));
		let o;

		s.anonymous = true;
		s.addremove = true;
		s.nodescriptions = true;
		s.modaltitle = _('Exporter');
		s.addbtntitle = _('Add exporter');

		o = s.option(form.Flag, 'enabled', _('Enabled'),
			_('Listen for it. It costs one open UDP port.'));
		o.datatype = 'bool';
		o.default = '1';
		o.rmempty = false;
		o.editable = true;

		o = s.option(form.Value, 'prefix', _('Address or prefix'),
			_('Who exports. Nobody else is heard; datagrams are not signed, so name no more than needed: whoever can send from there can make flows up.'));
		o.datatype = 'or(cidr, ipaddr("nomask"))';
		o.placeholder = '127.0.0.0/8';
		o.rmempty = false;

		o = s.option(form.Value, 'sampling_interval', _('Looks at one packet in'),
			_('For an exporter that does not tell. softflowd does so in its default settings in OpenWrt: 100.'));
		o.datatype = 'and(uinteger, range(1, 4294967295))';
		o.placeholder = '1';

		o = s.option(form.DynamicList, 'ifindex', _('Its interfaces'),
			_('Where they lead, by their numbers there, so that tracers tell whether a source is spoofed: 7:wan, or 3:lan=198.51.100.0/24 with the prefixes of the hosts there. Not in overflowd-mini.'));
		o.datatype = 'string';
		o.placeholder = '7:wan';
		o.modalonly = true;
		o.validate = function(section_id, text) {
			return !text || isInterface(text) || _('Expecting: as 7:wan or 3:lan=198.51.100.0/24,2001:db8::/48');
		};
	}
});

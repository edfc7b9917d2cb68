// SPDX-License-Identifier: BSD-3-Clause
'use strict';
'require dom';
'require poll';
'require rpc';
'require uci';
'require ui';
'require view';

const callStatus = rpc.declare({
	object: 'luci.overflowd',
	method: 'status'
});

const callHistory = rpc.declare({
	object: 'luci.overflowd',
	method: 'history'
});

// Why something that was selected is not sent, by the names of the program.
// Colours are readable on white and on black.
const reasons = [
	[ 'clock', '#d9532c', _('clock not set') ],
	[ 'unreachable', '#8f7a00', _('an end is private') ],
	[ 'own', '#7d8790', _('our own address') ],
	[ 'never', '#5b6b2f', _('never to be told') ],
	[ 'crowded', '#c2569b', _('too many at once') ],
	[ 'failed', '#e0393e', _('could not be sent') ],
	[ 'tracer', '#8a6fd1', _('flow of tracers') ],
	[ 'export', '#a5673f', _('flow export') ],
	[ 'same', '#4f9186', _('source is destination') ]
];

// Why flows are suspected, by the names of the program.
const suspicions = [
	[ 'spoofed', _('the source is forged') ],
	[ 'special', _('the source is an address of no network') ],
	[ 'syn', _('a flood of openings that nobody completes') ],
	[ 'scan', _('one source that tries many ports or hosts') ],
	[ 'reflection', _('large answers that nobody asked for') ],
	[ 'backscatter', _('answers to packets that were never sent') ],
	[ 'rate', _('more packets a second than the set limit') ],
	[ 'listed', _('in the list of suspects') ]
];

const sentColour = '#1c8f4d';
const printedColour = '#2f80cf';

const style = [
	'.overflowd-cards{display:flex;flex-wrap:wrap;gap:.5em 2em;margin:.5em 0 1em}',
	'.overflowd-cards>div{min-width:7em}',
	'.overflowd-cards strong{display:block;font-size:1.4em;line-height:1.4}',
	'.overflowd-chart{width:100%;min-height:180px}',
	'.overflowd-chart svg{display:block;overflow:visible}',
	'.overflowd-legend{display:flex;flex-wrap:wrap;gap:.2em 1.5em;margin:.3em 0 1.5em}',
	'.overflowd-legend i{display:inline-block;width:.9em;height:.9em;margin-right:.4em;vertical-align:-.1em;border-radius:2px}',
	'.overflowd-key{display:flex;flex-wrap:wrap;gap:.5em 1em;align-items:center}',
	'.overflowd-key code{overflow-wrap:anywhere;background:none;border:0;color:inherit;padding:0}',
	'.overflowd-map .td{overflow-wrap:anywhere}',
	'.overflowd-whole{white-space:nowrap}',
	'.overflowd-alarm{color:#e0393e;font-weight:bold}'
].join('');

function language() {
	return document.documentElement.lang || undefined;
}

// count writes a number with its thousands apart.
function count(n) {
	if (typeof(n) != 'number' || !isFinite(n))
		return '-';

	try {
		return Math.round(n).toLocaleString(language());
	}
	catch (e) {
		return Math.round(n).toLocaleString();
	}
}

// short writes a number of an axis, as 1.5 k.
function short(n) {
	const units = [ '', ' k', ' M', ' G', ' T' ];
	let i = 0;

	while (n >= 1000 && i < units.length - 1) {
		n /= 1000;
		i++;
	}

	return String(Math.round(n * 100) / 100) + units[i];
}

function bytes(n) {
	return (typeof(n) == 'number' && isFinite(n)) ? '%1024.1mB'.format(n) : '-';
}

// span writes a time of so many seconds roughly.
function span(s) {
	s = Math.max(Math.round(s), 0);

	if (s < 120)
		return N_(s, '%d second', '%d seconds').format(s);

	if (s < 7200)
		return N_(Math.round(s / 60), '%d minute', '%d minutes').format(Math.round(s / 60));

	if (s < 172800)
		return N_(Math.round(s / 3600), '%d hour', '%d hours').format(Math.round(s / 3600));

	return N_(Math.round(s / 86400), '%d day', '%d days').format(Math.round(s / 86400));
}

function twoDigits(n) {
	return (n < 10 ? '0' : '') + n;
}

function clockTime(t) {
	const d = new Date(t * 1000);

	return twoDigits(d.getHours()) + ':' + twoDigits(d.getMinutes());
}

function dateTime(t) {
	const d = new Date(t * 1000);

	return '%d-%s-%s %s:%s'.format(d.getFullYear(), twoDigits(d.getMonth() + 1), twoDigits(d.getDate()), clockTime(t), twoDigits(d.getSeconds()));
}

function total(series) {
	return (series || []).reduce(function(a, b) { return a + b; }, 0);
}

function protocolName(n) {
	switch (n) {
	case 1: return 'ICMP';
	case 2: return 'IGMP';
	case 6: return 'TCP';
	case 17: return 'UDP';
	case 47: return 'GRE';
	case 50: return 'ESP';
	case 58: return 'ICMPv6';
	case 132: return 'SCTP';
	}

	return (n == null) ? '-' : String(n);
}

function endpoint(address, port, protocol) {
	if (!address)
		return '-';

	const short = address.indexOf(':') < 0;

	// The ports of ICMP are its type and code.
	if (port != null && protocol != 1 && protocol != 58)
		address = (short ? '%s:%d' : '[%s]:%d').format(address, port);

	return short ? E('span', { 'class': 'overflowd-whole' }, [ address ]) : address;
}

// trust writes how far a key is trusted.
function trust(level) {
	switch (level) {
	case 'new': return _('new');
	case 'consistent': return _('consistent');
	case 'corroborated': return _('corroborated');
	case 'pinned': return _('pinned');
	}

	return level || '-';
}

// told puts those who were told of the same in one row; each tracer is one.
function told(tracers) {
	const rows = [];

	tracers.forEach(function(t) {
		const same = rows.find(function(r) {
			return [ 'protocol', 'saddr', 'sport', 'daddr', 'dport', 'pcount', 'bcount' ].every(function(k) { return r[k] == t[k]; });
		});

		if (same && t.to)
			same.to.unshift(t.to);
		else
			rows.push(Object.assign({}, t, { to: t.to ? [ t.to ] : [] }));
	});

	return rows;
}

function svg(name, attributes, children) {
	const node = document.createElementNS('http://www.w3.org/2000/svg', name);

	for (let a in attributes)
		node.setAttribute(a, attributes[a]);

	(children || []).forEach(function(child) {
		node.appendChild(typeof(child) == 'string' ? document.createTextNode(child) : child);
	});

	return node;
}

// ceiling returns the top of an axis that ends at n, and the step of its lines.
function ceiling(n, whole) {
	let step = Math.pow(10, Math.floor(Math.log(Math.max(n, 1e-6)) / Math.LN10));

	if (n / step <= 2)
		step /= 2;
	else if (n / step > 5)
		step *= 2;

	if (whole)
		step = Math.max(Math.round(step), 1);

	return { top: Math.max(Math.ceil(n / step - 1e-9), 1) * step, step: step };
}

// merge adds neighbours up, n at a time, so that the last group is whole.
function merge(series, n) {
	const merged = [];

	for (let end = series.length; end > 0; end -= n)
		merged.unshift(total(series.slice(Math.max(end - n, 0), end)));

	return merged;
}

// chart draws bars of series on each other over time. options: label, end of the last
// interval, now, interval and what of the last one has passed in seconds, unit, whole
// for counts, rate for what is divided by time.
function chart(node, series, options) {
	const width = Math.max(node.clientWidth || 0, 240), height = 180;
	const left = 48, right = 8, top = 22, bottom = 22;
	const inner = width - left - right, deep = height - top - bottom;
	const length = series[0].values.length;
	const group = [ 1, 2, 3, 6, 12 ].find(function(n) { return inner / Math.ceil(length / n) >= 6; }) || 12;
	const seconds = group * options.interval;
	const bars = series.map(function(s) { return merge(s.values, group); });
	const n = bars[0].length, step = inner / n;
	// The last bar is of less time.
	const scale = function(i) {
		return !options.rate ? 1 : 1 / (i < n - 1 ? seconds : seconds - options.interval + options.passed);
	};
	let most = 0;

	for (let i = 0; i < n; i++)
		most = Math.max(most, bars.reduce(function(sum, b) { return sum + b[i]; }, 0) * scale(i));

	const axis = ceiling(most, options.whole);
	const y = function(v) { return top + deep * (1 - v / axis.top); };
	const x = function(t) { return left + inner * (1 - (options.end - t) / (n * seconds)); };
	const root = svg('svg', { width: width, height: height, viewBox: '0 0 %d %d'.format(width, height), role: 'img', 'aria-label': options.label });
	const text = function(x, y, anchor, words) {
		root.appendChild(svg('text', { x: x, y: y, 'text-anchor': anchor, 'font-size': 11, fill: 'currentColor', 'fill-opacity': .8 }, [ words ]));
	};

	text(0, 11, 'start', options.unit.format(span(seconds)));

	for (let v = 0; v <= axis.top * 1.0001; v += axis.step) {
		root.appendChild(svg('line', { x1: left, x2: width - right, y1: y(v), y2: y(v), stroke: 'currentColor', 'stroke-opacity': v ? .15 : .5 }));
		text(left - 6, y(v) + 4, 'end', short(v));
	}

	// Round times of the day, as many as there is room for.
	const minutes = [ 10, 20, 30, 60, 120, 180, 360, 720, 1440 ].find(function(m) { return inner * m * 60 / (n * seconds) >= 55; }) || 1440;
	const first = new Date((options.end - n * seconds) * 1000);

	first.setMinutes(0, 0, 0);

	for (let d = first; d.getTime() / 1000 <= options.end; d = new Date(d.getTime() + Math.min(minutes, 60) * 60000)) {
		const at = x(d.getTime() / 1000);

		if ((d.getHours() * 60 + d.getMinutes()) % minutes || at < left)
			continue;

		root.appendChild(svg('line', { x1: at, x2: at, y1: top + deep, y2: top + deep + 4, stroke: 'currentColor', 'stroke-opacity': .5 }));

		if (at > left + 10 && at < width - right - 14)
			text(at, height - 5, 'middle', clockTime(d.getTime() / 1000));
	}

	for (let i = 0; i < n; i++) {
		const until = options.end - (n - 1 - i) * seconds;
		const words = [ dateTime(until - seconds).substring(0, 16) + ' - ' + clockTime(Math.min(until, options.now)) ];
		const g = svg('g', {});
		let base = 0;

		series.forEach(function(s, j) {
			const v = bars[j][i] * scale(i);

			if (!v)
				return;

			words.push('%s: %s'.format(s.name, options.rate ? short(v) : count(v)));
			g.appendChild(svg('rect', { x: left + i * step, width: Math.max(step - 1, 1), y: y(base + v), height: Math.max(y(base) - y(base + v), .5), fill: s.colour }));
			base += v;
		});

		if (words.length == 1)
			continue;

		g.insertBefore(svg('title', {}, [ words.join('\n') ]), g.firstChild);
		root.appendChild(g);
	}

	dom.content(node, root);
}

function legend(series) {
	return series.map(function(s) {
		return E('span', {}, [ E('i', { 'style': 'background:' + s.colour }), '%s: %s'.format(s.name, count(total(s.values))) ]);
	});
}

// copy puts text into the clipboard. Pages over plain HTTP have no
// navigator.clipboard: then what is shown is selected and copied.
function copy(node) {
	if (navigator.clipboard && window.isSecureContext)
		return navigator.clipboard.writeText(node.textContent);

	const range = document.createRange();
	const selection = window.getSelection();

	range.selectNodeContents(node);
	selection.removeAllRanges();
	selection.addRange(range);

	return document.execCommand('copy') ? Promise.resolve() : Promise.reject();
}

function table(heads, rows) {
	return E('table', { 'class': 'table' }, [
		E('tr', { 'class': 'tr table-titles' }, heads.map(function(head) {
			return E('th', { 'class': 'th' }, [ head ]);
		}))
	].concat(rows.map(function(row, i) {
		return E('tr', { 'class': 'tr cbi-rowstyle-%d'.format(1 + i % 2) }, row.map(function(cell, j) {
			return E('td', { 'class': 'td', 'data-title': heads[j] }, [ cell ]);
		}));
	})));
}

function card(label, value) {
	return E('div', {}, [ label, E('strong', {}, [ value ]) ]);
}

// oneIn writes a chance as one packet in so many.
function oneIn(rate) {
	rate = Number(rate);

	return rate > 0 ? _('one packet in %s').format(count(1 / rate)) : '-';
}

return view.extend({
	load: function() {
		return Promise.all([
			this.ask(callStatus),
			this.ask(callHistory),
			uci.load('overflowd')
		]);
	},

	// ask never fails: what is wrong is the reason why nothing is known.
	ask: function(call) {
		return call().then(function(answer) {
			return (answer && typeof(answer) == 'object') ? answer : { running: false };
		}).catch(function(e) {
			return { running: false, reason: e.message || String(e) };
		});
	},

	render: function(data) {
		const nodes = this.nodes = {};

		[ 'state', 'warnings', 'cards', 'packets', 'packetsLegend', 'tracers', 'tracersLegend', 'found', 'others', 'recent', 'interfaces', 'exporters', 'key', 'charts', 'running' ].forEach(function(name) {
			nodes[name] = E('div');
		});

		nodes.packets.className = nodes.tracers.className = 'overflowd-chart';
		nodes.packetsLegend.className = nodes.tracersLegend.className = 'overflowd-legend';
		nodes.cards.className = 'overflowd-cards';
		nodes.keyText = E('code');
		nodes.keyButton = E('button', { 'class': 'btn cbi-button', 'click': ui.createHandlerFn(this, 'handleCopy') }, [ _('Copy') ]);

		dom.content(nodes.charts, [
			E('h3', {}, [ _('Packets seen') ]),
			nodes.packets, nodes.packetsLegend,
			E('h3', {}, [ _('Tracers') ]),
			nodes.tracers, nodes.tracersLegend
		]);

		dom.content(nodes.running, [
			nodes.cards,
			nodes.charts,
			nodes.found,
			E('h3', {}, [ _('Last tracers') ]), nodes.recent,
			nodes.others,
			nodes.interfaces,
			nodes.exporters,
			E('h3', {}, [ _('Public key') ]), nodes.key
		]);

		this.status = data[0];
		this.history = data[1];
		this.update();

		poll.add(L.bind(function() {
			return this.ask(callStatus).then(L.bind(function(answer) {
				// In ujail each one is process 1: only its age tells it from the one before.
				const restarted = answer.running != this.status.running || answer.uptime < this.status.uptime;

				this.status = answer;
				this.update();

				return restarted ? this.askHistory() : null;
			}, this));
		}, this), 5);

		poll.add(L.bind(this.askHistory, this), 60);

		window.addEventListener('resize', L.bind(this.draw, this));
		// The charts have a width as soon as the page has been laid out.
		window.requestAnimationFrame(L.bind(this.draw, this));

		return E('div', { 'class': 'cbi-map overflowd-map' }, [
			E('style', {}, [ style ]),
			E('h2', {}, [ _('Overflowd') ]),
			nodes.state,
			nodes.warnings,
			E('div', { 'class': 'cbi-section' }, [ nodes.running ])
		]);
	},

	askHistory: function() {
		return this.ask(callHistory).then(L.bind(function(answer) {
			this.history = answer;
			this.draw();
			this.warn();
		}, this));
	},

	handleCopy: function() {
		const button = this.nodes.keyButton;
		const say = function(words) {
			dom.content(button, [ words ]);
			window.setTimeout(function() { dom.content(button, [ _('Copy') ]); }, 2000);
		};

		return copy(this.nodes.keyText).then(function() {
			say(_('Copied'));
		}, function() {
			say(_('Press Ctrl+C'));
		});
	},

	// shows puts content into a node if it is another than before, so that what
	// somebody selects on the page stays.
	shows: function(name, content) {
		const now = E('div', {}, content).innerHTML;

		if (this.nodes[name].shown == now)
			return;

		this.nodes[name].shown = now;
		dom.content(this.nodes[name], content);
	},

	update: function() {
		const s = this.status;

		this.nodes.running.style.display = s.running ? '' : 'none';
		this.updateState();
		this.warn();

		if (!s.running)
			return;

		this.updateCards();
		this.updateKey();
		this.updateFound();
		this.updateRecent();
		this.updateOthers();
		this.updateInterfaces();
		this.updateExporters();
	},

	updateState: function() {
		const s = this.status;
		const settings = E('a', { 'href': L.url('admin/services/overflowd/settings') }, [ _('Settings') ]);

		if (s.running)
			return this.shows('state', [ E('p', {}, [
				E('strong', {}, [ _('Running') ]), ' ',
				_('for %s, version %s. It selects %s.').format(span(s.uptime), s.version, oneIn(s.rate)), ' ', settings
			]) ]);

		if (uci.get('overflowd', 'general', 'enabled') != '1')
			return this.shows('state', [ E('p', {}, [
				E('strong', {}, [ _('Disabled') ]), '. ',
				_('Name a contact and let it run under:'), ' ', settings
			]) ]);

		this.shows('state', [ E('div', { 'class': 'alert-message warning' }, [
			E('p', {}, [ E('strong', {}, [ _('Stopped') ]), ', ', _('though it is enabled: %s.').format(s.reason || _('the reason is not known')) ]),
			E('p', {}, [
				_('It waits for its networks to be up, or a value in the settings is wrong. The system log tells.'), ' ',
				E('a', { 'href': L.url('admin/status/logs') }, [ _('System log') ]), ', ', settings
			])
		]) ]);
	},

	packets: function() {
		const s = this.status;

		return [ s.captured, s.received, s.tracked ].reduce(function(n, c) { return n + (c ? c.packets || 0 : 0); }, 0);
	},

	updateCards: function() {
		const s = this.status, t = s.tracers || {};
		const held = total(Object.values(t.held_back || {}));
		const volume = [ s.captured, s.received, s.tracked ].reduce(function(n, c) { return n + (c ? c.bytes || 0 : 0); }, 0);
		const cards = [
			card(_('Packets seen'), count(this.packets())),
			card(_('Traffic seen'), bytes(volume)),
			card(_('Flows selected'), count(s.selected ? s.selected.records : 0))
		];

		if (t.sent != null)
			cards.push(
				card(_('Tracers sent'), '%s (%s)'.format(count(t.sent), bytes(t.sent_bytes))),
				card(_('Held back'), count(held)),
				card(_('Waiting'), count(t.waiting)));
		else
			cards.push(card(_('Tracers printed'), count(t.printed)));

		if (s.captured && s.captured.thin > 1)
			cards.push(card(_('Captured now'), _('1 in %s').format(count(s.captured.thin))));

		if (s.tracked)
			cards.push(card(_('Connections'), count(s.tracked.connections)));

		this.shows('cards', cards);
	},

	updateKey: function() {
		const key = this.status.key;

		if (this.nodes.keyText.textContent != (key || ''))
			dom.content(this.nodes.keyText, [ key || '' ]);

		if (this.nodes.key.shown == !!key)
			return;

		this.nodes.key.shown = !!key;
		dom.content(this.nodes.key, key ? [
			E('div', { 'class': 'overflowd-key' }, [ this.nodes.keyText, this.nodes.keyButton ]),
			E('p', {}, [ _('All tracers of this router are signed with it. Publish it, as beside your contact, and others know which ones are yours.') ])
		] : [ E('p', {}, [ E('em', {}, [ _('There is none yet: the first tracer makes it.') ]) ]) ]);
	},

	// expectation says how long the next tracer may take.
	expectation: function() {
		const s = this.status, rate = Number(s.rate);
		const speed = s.uptime > 0 ? this.packets() / s.uptime : 0;

		if (!(rate > 0))
			return '';

		if (speed * rate <= 0)
			return _('About %s makes a tracer. No packet has been seen yet.').format(oneIn(rate));

		return _('About %s makes a tracer: at the %s packets a second since the start, that is one in about %s.').format(oneIn(rate), short(speed < 10 ? speed : Math.round(speed)), span(1 / (speed * rate)));
	},

	updateRecent: function() {
		const s = this.status, recent = told(s.recent || []);

		if (!recent.length)
			return this.shows('recent', [ E('p', {}, [ E('em', {}, [ _('There is none yet.'), ' ', this.expectation() ]) ]) ]);

		this.shows('recent', [ table([ _('Time'), _('Protocol'), _('Source'), _('Destination'), _('Packets'), _('Bytes'), _('Told') ], recent.slice(0, 16).map(function(r) {
			return [
				dateTime(r.time),
				protocolName(r.protocol),
				endpoint(r.saddr, r.sport, r.protocol),
				endpoint(r.daddr, r.dport, r.protocol),
				count(r.pcount),
				bytes(r.bcount),
				r.to.join(', ') || E('em', {}, [ _('printed only') ])
			];
		})) ]);
	},

	// updateFound shows what was found out about the flows that were selected.
	updateFound: function() {
		const s = this.status, verdicts = s.spoofed || {}, reasons = s.suspicion || {};
		const known = suspicions.map(function(r) { return r[0]; });
		const rows = suspicions.concat(Object.keys(reasons).filter(function(r) { return known.indexOf(r) < 0; }).map(function(r) {
			return [ r, '-' ];
		})).filter(function(r) {
			return reasons[r[0]] > 0;
		}).map(function(r) {
			return [ r[0], r[1], count(reasons[r[0]]) ];
		});

		if (!s.spoofed)
			return this.shows('found', []);

		this.shows('found', [
			E('h3', {}, [ _('Sources of the selected flows') ]),
			E('div', { 'class': 'overflowd-cards' }, [
				card(_('Forged'), count(verdicts.yes)),
				card(_('Genuine'), count(verdicts.no)),
				card(_('Not known'), count(verdicts.unknown))
			].concat(s.suspects != null ? [ card(_('Suspects listed'), count(s.suspects)) ] : [])),
			E('h3', {}, [ _('Suspicion') ]),
			rows.length
				? table([ _('Reason'), _('It looks like'), _('Flows') ], rows)
				: E('p', {}, [ E('em', {}, [ _('Nothing that was selected looked like an attack.') ]) ])
		]);
	},

	// updateOthers shows what others told us. They are strangers: all of it is text.
	updateOthers: function() {
		const r = this.status.receiving;

		if (!r)
			return this.shows('others', []);

		const refused = Object.keys(r.results || {}).reduce(function(n, name) {
			return n + (name == 'taken' ? 0 : r.results[name]);
		}, 0);
		const list = r.recent || [];

		this.shows('others', [
			E('h3', {}, [ _('Told by others') ]),
			E('div', { 'class': 'overflowd-cards' }, [
				card(_('Tracers taken'), count((r.results || {}).taken)),
				card(_('Refused'), count(refused)),
				card(_('Of flows seen here'), count(r.confirmed)),
				card(_('Sent in our name'), count(r.spoofed)),
				card(_('Keys known'), count(r.keys_with_standing + r.keys_new))
			]),
			list.length ? table([ _('Time'), _('Protocol'), _('Source'), _('Destination'), _('Packets (about)'), _('Told by'), _('Trust'), _('Hops'), _('It says'), _('We know') ], list.map(function(t) {
				return [
					dateTime(t.time),
					protocolName(t.protocol),
					endpoint(t.saddr, t.sport, t.protocol),
					endpoint(t.daddr, t.dport, t.protocol),
					t.packets ? short(Number(t.packets.toPrecision(2))) : '-',
					'%s (%s)'.format(t.by || _('nameless'), t.key),
					trust(t.trust),
					count(t.hops),
					t.spoofed == 'yes' ? _('forged source') : t.spoofed == 'no' ? _('genuine source') : '-',
					t.witness == 'not_ours' ? E('span', { 'class': 'overflowd-alarm' }, [ _('not sent by us') ])
						: t.witness == 'seen' ? _('seen here') : t.stale ? _('too late to count') : '-'
				];
			})) : E('p', {}, [ E('em', {}, [ _('Nobody has told us anything yet.') ]) ])
		]);
	},

	updateInterfaces: function() {
		const list = this.status.interfaces;

		if (!list)
			return this.shows('interfaces', []);

		this.shows('interfaces', [ E('h3', {}, [ _('Interfaces') ]), table([ _('Interface'), _('Towards'), _('State'), _('Packets'), _('Bytes'), _('Overrun') ], list.map(function(x) {
			return [ x.name, x.role || '-', x.failure || _('captured'), count(x.packets), bytes(x.bytes), count(x.overrun) ];
		})) ]);
	},

	updateExporters: function() {
		const s = this.status, list = s.exporters;

		if (!list)
			return this.shows('exporters', []);

		if (!list.length)
			return this.shows('exporters', [ E('h3', {}, [ _('Exporters') ]), E('p', {}, [ E('em', {}, [ _('None was heard on %s yet.').format(s.listen) ]) ]) ]);

		this.shows('exporters', [ E('h3', {}, [ _('Exporters') ]), table([ _('Address'), _('Protocol'), _('Looks at'), _('Heard'), _('Flows'), _('Packets'), _('Bytes'), _('Dropped') ], list.map(function(x) {
			return [
				x.address,
				x.protocol ? '%s v%d'.format(x.protocol, x.version) : '-',
				x.sampling_interval ? _('1 in %s').format(count(x.sampling_interval)) : '-',
				x.last ? _('%s ago').format(span(s.time - x.last)) : '-',
				count(x.records), count(x.packets), bytes(x.bytes),
				count(total(Object.values(x.dropped || {})))
			];
		})) ]);
	},

	// lately says whether something was held back in the last hour.
	lately: function(reason) {
		const held = this.history.held_back, counted = (this.status.tracers || {}).held_back;

		if (held)
			return total((held[reason] || []).slice(-12)) > 0;

		return !!counted && counted[reason] > 0;
	},

	warn: function() {
		const s = this.status, warnings = [];
		const t = s.tracers || {};
		const add = function(words) {
			warnings.push(E('div', { 'class': 'alert-message warning' }, [ E('p', {}, [ words ]) ]));
		};

		if (!s.running)
			return this.shows('warnings', []);

		const last = (s.receiving || {}).last_spoofed;

		// An alarm of yesterday is a number below.
		if (last && s.time - last.time < 86400)
			warnings.push(E('div', { 'class': 'alert-message error' }, [
				E('h4', {}, [ _('Somebody sends in our name') ]),
				E('p', {}, [
					N_(s.receiving.spoofed, 'One tracer tells of a flow from an address of ours that did not leave here.', '%d tracers tell of flows from addresses of ours that did not leave here.').format(s.receiving.spoofed), ' ',
					_('The last one, %s ago, was from %s to %s, as %s says.').format(span(s.time - last.time), last.source, last.destination, last.told_by)
				]),
				E('p', {}, [ _('Complaints about them may reach you. Who told it carries such packets, and can follow them further.') ])
			]));

		if (this.lately('clock'))
			add(_('Tracers were held back in the last hour because the clock is not set. Nothing is sent before it is: see to it that the router reaches a time server (NTP).'));

		(s.interfaces || []).forEach(function(x) {
			if (x.failure)
				add(_('The interface %s is not captured: %s.').format(x.name, x.failure));
		});

		if (s.captured && !s.captured.packets && s.uptime >= 60)
			add(_('Nothing was captured in %s. Is it the right interface? With flow offload in the firewall, packets pass by a capture: turn it off there, or count connections instead.').format(span(s.uptime)));

		if (s.captured && s.captured.overrun > s.captured.packets / 100)
			add(_('More than one packet in a hundred was lost, as reading did not keep up: look at fewer packets (auto).'));

		if (s.tracked && s.tracked.failure)
			add(_('Connections are not counted: %s.').format(s.tracked.failure));
		else if (s.tracked && s.tracked.uncounted > 0)
			add(_('Some connections have no counters. Set net.netfilter.nf_conntrack_acct=1.'));

		if (s.selected && s.selected.unsigned > 0 && !s.key)
			add(_('Tracers cannot be signed: is there room in flash, and can /etc/overflowd be written?'));

		if (t.sent === 0 && t.held_back && t.held_back.unreachable >= 4)
			add(_('All that was selected has a private address at an end. Capture towards the Internet, or look up address translation.'));

		this.shows('warnings', warnings);
	},

	draw: function() {
		const h = this.history, nodes = this.nodes;

		if (!h || h.running === false || !Array.isArray(h.packets) || !h.packets.length) {
			nodes.charts.style.display = 'none';
			return;
		}

		nodes.charts.style.display = '';

		// An hour, at least: a single bar as wide as the page says nothing of time.
		const before = new Array(Math.max(Math.ceil(3600 / h.interval) - h.packets.length, 0)).fill(0);
		const zeros = before.concat(h.packets.map(function() { return 0; }));
		const shaped = function(values) {
			return (Array.isArray(values) && values.length == h.packets.length) ? before.concat(values) : zeros;
		};
		const held = h.held_back || {};
		const known = reasons.map(function(r) { return r[0]; });
		const seen = [ { name: _('Packets'), colour: printedColour, values: shaped(h.packets) } ];
		const made = (this.status.tracers || {}).sent != null || h.sent
			? [ { name: _('sent'), colour: sentColour, values: shaped(h.sent) } ]
			: [ { name: _('printed'), colour: printedColour, values: shaped(h.printed) } ];

		reasons.concat(Object.keys(held).filter(function(r) { return known.indexOf(r) < 0; }).map(function(r) {
			return [ r, '#7d8790', r ];
		})).forEach(function(r) {
			const values = shaped(held[r[0]]);

			if (total(values))
				made.push({ name: _('held back: %s').format(r[2]), colour: r[1], values: values });
		});

		const passed = Math.max((h.end - this.status.time + this.status.uptime) % h.interval, 1);
		const options = { end: h.end - passed + h.interval, now: h.end, interval: h.interval, passed: passed };

		chart(nodes.packets, seen, Object.assign({ label: _('Packets seen over time'), unit: _('packets a second, over %s each'), rate: true }, options));
		dom.content(nodes.packetsLegend, legend(seen).concat(h.bytes ? [ E('span', {}, [ _('Traffic: %s').format(bytes(total(h.bytes))) ]) ] : []));

		if (made.some(function(s) { return total(s.values) > 0; })) {
			chart(nodes.tracers, made, Object.assign({ label: _('Tracers over time'), unit: _('tracers in %s each'), whole: true }, options));
			dom.content(nodes.tracersLegend, legend(made));
			nodes.tracers.style.minHeight = '';
		}
		else {
			nodes.tracers.style.minHeight = '0';
			dom.content(nodes.tracers, E('p', {}, [ E('em', {}, [ _('None was made in the time that is shown.'), ' ', this.expectation() ]) ]));
			dom.content(nodes.tracersLegend, []);
		}
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});

// SPDX-License-Identifier: BSD-3-Clause
'use strict';

import { connect, poll, MSG_NOSIGNAL, POLLIN } from 'socket';

// Where the program answers, if it runs.
const path = '/var/run/overflowd/status.sock';

// rpcd does nothing else meanwhile: an answer takes a few milliseconds, and one
// that takes longer than this, in milliseconds, is given up.
const patience = 1500;

// The most bytes that are read. A day's history is about 30 kB.
const limit = 262144;

function now() {
	const t = clock(true);

	return t[0] * 1000 + t[1] / 1000000;
}

// ask sends a word of five bytes and returns the object that comes back, or a
// text that says why there is none.
function ask(word) {
	const end = now() + patience;
	const sock = connect({ path }, null, null, patience);
	let text = '';

	if (!sock)
		return 'nobody answers at ' + path;

	if (sock.send(word, MSG_NOSIGNAL) != length(word)) {
		sock.close();
		return 'the question was not taken';
	}

	while (true) {
		const left = int(end - now());
		const ready = (left > 0) ? poll(left, [ sock, POLLIN ]) : null;

		if (!length(ready) || !ready[0][1]) {
			sock.close();
			return 'no answer in time';
		}

		const part = sock.recv(16384);

		if (part == null || length(text) + length(part) > limit) {
			sock.close();
			return (part == null) ? 'the answer broke off' : 'the answer is too long';
		}

		if (!length(part))
			break;

		text += part;
	}

	sock.close();

	try {
		const answer = json(text);

		return (type(answer) == 'object') ? answer : 'the answer is no object';
	}
	catch (e) {
		return 'the answer is no JSON';
	}
}

// rational makes text of a number that ubus would round to six decimals.
function rational(object, member) {
	if (type(object?.[member]) == 'double')
		object[member] = sprintf('%.12g', object[member]);
}

function reply(word) {
	const answer = ask(word);

	if (type(answer) != 'object')
		return { running: false, reason: answer };

	rational(answer, 'rate');
	answer.running = true;

	return answer;
}

return {
	'luci.overflowd': {
		status: { call: () => reply('json\n') },
		history: { call: () => reply('hist\n') }
	}
};

// SPDX-License-Identifier: BSD-3-Clause
'use strict';

// The list is asked for every 3 seconds, the rest every 15. What strangers wrote
// gets in as text, or as HTML that the server has escaped.
(() => {
	const body = document.querySelector('#live tbody');
	const state = document.getElementById('state');
	const most = 50;
	let last = Number(body.rows.length ? body.rows[0].dataset.number : 0);

	function cell(row, text, kind) {
		const td = row.insertCell();
		td.textContent = text;
		if (kind)
			td.className = kind;
		return td;
	}

	function add(t) {
		const row = body.insertRow(0);
		row.dataset.number = t.number;
		if (t.stale)
			row.className = 'stale';
		cell(row, t.time);
		cell(row, t.hops, 'n');
		cell(row, t.from);
		cell(row, t.name);
		const a = document.createElement('a');
		a.className = 'key';
		a.href = '/key/' + encodeURIComponent(t.key);
		a.textContent = t.key.slice(0, 16);
		row.insertCell().append(a);
		cell(row, t.trust, t.trust === 'new' ? 'new' : 'standing');
		cell(row, t.flow);
		cell(row, t.packets, 'n');
		cell(row, t.spoofed);
	}

	async function ask(url) {
		const answer = await fetch(url, { cache: 'no-store' });
		if (!answer.ok)
			throw new Error(answer.statusText);
		return answer;
	}

	async function live() {
		try {
			const list = await (await ask('/live.json?after=' + last)).json();
			for (const t of list.reverse()) {
				add(t);
				last = Math.max(last, t.number);
			}
			while (body.rows.length > most)
				body.deleteRow(-1);
			state.textContent = '';
		} catch {
			state.textContent = 'The server does not answer.';
		}
		setTimeout(live, 3000);
	}

	async function overview() {
		try {
			const open = document.querySelector('#overview details')?.open;
			document.getElementById('overview').innerHTML = await (await ask('/overview')).text();
			if (open)
				document.querySelector('#overview details')?.setAttribute('open', '');
		} catch { /* live says so */ }
		setTimeout(overview, 15000);
	}

	setTimeout(live, 1000);
	setTimeout(overview, 15000);
})();

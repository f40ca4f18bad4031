// The audit log: who did what, when and why. One row is one act, on however many targets.

import { h, put, count, many, when, id as idLink, table, failure } from './dom.js';
import { get } from './ask.js';

export const title = 'Audit';

export function show(main, _args, current) {
	const fields = [['who', 'Who'], ['action', 'Action'], ['service', 'Service'], ['what', 'Target']].map(([name, label]) => h('label', null, label, h('input', { name, autocomplete: 'off', spellcheck: 'false' })));
	const out = h('div');
	const form = h('form.filters', { onsubmit: (event) => { event.preventDefault(); look(); } }, fields, h('button.primary', { type: 'submit' }, 'Search'));
	put(main, h('h1', null, 'Audit'), h('section', null, form), out);

	async function look() {
		const asked = new URLSearchParams([...new FormData(form)].filter(([, value]) => value.trim()));
		try {
			const found = await get(`/api/audit?${asked}`);
			if (current()) draw(out, found);
		} catch (error) {
			if (current()) put(out, failure(error, look));
		}
	}
	look();
	return null;
}

function draw(out, { acts, total, looked }) {
	const target = (what) => (/^[0-9a-f-]{36}$/.test(what) ? idLink(what) : h('span.mono', null, what));
	const targets = (act) => (act.count === 1 ? target(act.what[0]) : h('details', null, h('summary', null, many(act.count, 'target')),
		h('ul', null, act.what.map((what) => h('li', null, target(what))), act.count > act.what.length && h('li', null, `and ${count(act.count - act.what.length)} more`))));
	const rows = acts.map((act) => [when(act.at), act.who, h('b', null, act.action), act.service, targets(act), act.why]);
	put(out,
		h('p.summary', null, acts.length < total ? `The last ${count(acts.length)} of ${many(total, 'act')}` : many(total, 'act'), `, among the last ${count(looked)} entries.`),
		table('Audit', [['When'], ['Who'], ['Action'], ['Service'], ['Target'], ['Reason']], rows, 'No actions. Redrives, edits, discards, reveals and actions on wakes are recorded here.'));
}

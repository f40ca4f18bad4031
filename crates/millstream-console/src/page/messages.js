// A stream of events page by page, the newest first.

import { h, put, count, when, id as idLink, copyable, failure } from './dom.js';
import { get, curl } from './ask.js';
import { recordOf } from './trace.js';

export const title = 'Messages';

const AGAIN = 2000;

export function show(main, [chosen], current) {
	const field = (label, name, more) => h('label', null, label, h('input', { name, autocomplete: 'off', spellcheck: 'false', ...more }));
	const stream = h('select', { name: 'stream' });
	const subject = field('Subject', 'subject', { placeholder: 'orders.created.*' });
	const having = field('Header or field', 'having', { placeholder: '/status=CONFIRMED' });
	const until = field('Before', 'until', { type: 'datetime-local', step: 1 });
	const follow = h('input', { type: 'checkbox', name: 'follow', onchange: () => look() });
	const out = h('div', { role: 'region', 'aria-label': 'Messages' });
	const said = h('p.summary', { role: 'status' });
	let timer = null;
	let over = false;
	const value = (label) => label.querySelector('input').value.trim();

	const path = (before) => {
		const at = value(until);
		const asked = { stream: stream.value, subject: value(subject), having: value(having), until: at && new Date(at).toISOString(), before };
		return `/api/messages?${new URLSearchParams(Object.entries(asked).filter(([, value]) => value))}`;
	};
	const line = (event) => {
		const more = h('tr', { hidden: true }, h('td', { colspan: 5 }));
		const open = h('button.small', { 'aria-expanded': 'false', onclick: () => {
			if (more.hidden) put(more.firstChild, recordOf({ ...event, handled: [] }));
			more.hidden = !more.hidden;
			open.setAttribute('aria-expanded', String(!more.hidden));
		} }, `#${count(event.sequence)}`);
		return [h('tr', null,
			h('td', { 'data-label': 'Message' }, open),
			h('td', { 'data-label': 'Stored' }, when(event.at, { exact: true })),
			h('td.mono', { 'data-label': 'Type' }, event.type || event.subject),
			h('td', { 'data-label': 'Key' }, idLink(event.key, { short: true })),
			h('td', { 'data-label': 'Source' }, event.source || '–')), more];
	};

	async function look() {
		clearTimeout(timer);
		const asked = path();
		try {
			const page = await get(asked);
			// An answer to an earlier question is of no use any more.
			if (over || !current() || asked !== path()) return;
			draw(page);
		} catch (error) {
			if (!over && current()) { put(said); put(out, failure(error, look)); }
		}
		if (follow.checked && !over) timer = setTimeout(look, AGAIN);
	}

	function draw(page) {
		// What is being read stays as it is.
		if (out.querySelector('[aria-expanded=true]') && follow.checked) return;
		const body = h('tbody', null, page.messages.map(line));
		let older = page.older;
		const tell = () => {
			put(said, page.last < page.first ? `${stream.value} is empty.` : `${stream.value} holds #${count(page.first)} to #${count(page.last)}. Personal fields are masked.`);
			more.hidden = !older;
			more.textContent = older ? `Older than #${count(older)}` : 'No older ones';
		};
		const more = h('button', { onclick: async () => {
			more.disabled = true;
			try {
				const next = await get(path(older));
				older = next.older;
				body.append(...next.messages.flatMap(line));
				tell();
			} catch (error) { put(said, error.message); }
			more.disabled = false;
		} });
		tell();
		put(out,
			page.messages.length
				? h('section', null, h('table', { 'aria-label': 'Messages' }, h('thead', null, h('tr', null, ['Message', 'Stored', 'Type', 'Key', 'Source'].map((name) => h('th', { scope: 'col' }, name)))), body))
				: h('p.empty', null, page.older ? 'None among the last 10,000. Older ones have not been looked through yet.' : 'No such message.'),
			h('div.buttons', null, more), copyable('As an HTTP request', curl(path())));
	}

	const form = h('form.filters', { onsubmit: (event) => { event.preventDefault(); look(); } },
		h('label', null, 'Stream', stream), subject, having, until, h('button.primary', { type: 'submit' }, 'Search'), h('label.check', null, follow, 'Follow'));
	put(main, h('h1', null, 'Messages'), h('section', null, form), said, out);
	get('/api/system').then(({ status }) => {
		if (over || !current()) return;
		const names = (status?.streams || []).filter((one) => one.partitions).map((one) => one.name);
		put(stream, names.map((name) => h('option', { value: name, selected: name === chosen }, name)));
		if (names.length) look();
		else put(out, h('p.empty', null, 'No streams of events. A service declares its own when it starts.'));
	}, (error) => { if (!over && current()) put(out, failure(error, () => show(main, [chosen], current))); });
	stream.addEventListener('change', () => look());
	return () => { over = true; clearTimeout(timer); };
}

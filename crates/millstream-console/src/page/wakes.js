// Pending wakes: what services will do later, and what they should have done already.

import { h, put, count, many, when, id as idLink, table, section, failure } from './dom.js';
import { get, post, now, confirm } from './ask.js';

export const title = 'Wakes';

const AGAIN = 3000;

export function show(main, [service, kind], current) {
	let timer = null;
	let over = false;
	const find = h('input', { name: 'document', type: 'search', autocomplete: 'off', spellcheck: 'false', placeholder: 'Document id' });
	const out = h('div');
	const look = async () => {
		clearTimeout(timer);
		const asked = new URLSearchParams(Object.entries({ service, kind, document: find.value.trim() }).filter(([, value]) => value));
		try {
			const found = await get(`/api/wakes?${asked}`);
			// An open dialog is not redrawn under the user's hands.
			if (!over && current() && !document.querySelector('dialog[open]')) draw(out, found);
		} catch (error) {
			if (!over && current()) put(out, failure(error, look));
		}
		if (!over) timer = setTimeout(look, AGAIN);
	};
	const path = service && h('nav.crumbs', { 'aria-label': 'Where you are' }, h('a', { href: '#/wakes' }, 'Wakes'), h('span', null, service), kind && h('span', null, kind));
	put(main, path, h('h1', null, 'Wakes'), h('section', null, h('form.filters', { onsubmit: (event) => { event.preventDefault(); look(); } }, h('label', null, 'Of a document', find), h('button.primary', { type: 'submit' }, 'Search'))), out);
	look();
	return () => { over = true; clearTimeout(timer); };
}

function draw(out, { sums, wakes, total, more, silent }) {
	// The focus is kept across the redraw.
	const marked = out.contains(document.activeElement) ? document.activeElement.dataset.mark : null;
	const part = encodeURIComponent;
	const kinds = sums.map((sum) => ({ kind: sum.overdue ? 'odd' : '', cells: [
		h('b', null, sum.service), h('a', { href: `#/wakes/${part(sum.service)}/${part(sum.kind)}` }, sum.kind),
		`${count(sum.count)}${more.includes(sum.service) ? ' or more' : ''}`, sum.overdue ? count(sum.overdue) : '', when(sum.earliest),
	] }));
	const rows = wakes.map((wake) => ({ kind: new Date(wake.at) < Date.now() ? 'odd' : '', cells: [
		h('b', null, wake.service), wake.kind, idLink(wake.document, { short: true }), when(wake.at), when(wake.opened), count(wake.attempt),
		now.allowActions ? wakeButtons(wake) : '',
	] }));
	put(out,
		silent.length > 0 && h('p.note', null, `No answer from ${silent.join(', ')}: their wakes are not shown.`),
		section('By kind', h('span.dim', null, 'deadlines and effects that are still to come'), table('Kinds', [['Service'], ['What'], ['Pending', 'number'], ['Overdue', 'number'], ['Earliest']], kinds, 'No pending wakes.')),
		rows.length > 0 && section('The earliest', h('span.dim', null, wakes.length < total ? `${count(wakes.length)} of ${many(total, 'wake')}` : ''),
			table('Wakes', [['Service'], ['What'], ['About'], ['Due'], ['Set'], ['Attempts', 'number'], ['', 'acts']], rows, '')));
	if (marked) out.querySelector(`[data-mark="${CSS.escape(marked)}"]`)?.focus();
}

function wakeButtons(wake) {
	const name = `${wake.service}: ${wake.kind} of ${wake.document}`;
	const act = (act, by) => post('/api/wakes', { wake, act, ...by }).then(() => undefined);
	const button = (label, open) => h('button.small', { 'aria-label': `${label} ${name}`, 'data-mark': `${label} ${wake.service} ${wake.collection} ${wake.document}`, onclick: open }, label);
	const local = (at) => new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
	return h('div.buttons', null,
		button('Reschedule', ()  => {
			const at = h('input', { type: 'datetime-local', name: 'to', step: 1, required: true, 'data-first': true, value: local(new Date(wake.at)) });
			confirm({ title: 'Reschedule a wake', about: name, extra: h('label', null, 'Due at, in your time zone', at), button: 'Reschedule', act: (by) => act({ action: 'move', to: new Date(at.value).toISOString() }, by) });
		}),
		button('Run now', () => confirm({ title: 'Run a wake now', about: `${name}: due now.`, button: 'Run now', act: (by) => act({ action: 'fire' }, by) })),
		wake.cancellable && button('Cancel', () => confirm({ title: 'Cancel a wake', about: `${name}: it will not run.`, button: 'Cancel the wake', danger: true, act: (by) => act({ action: 'cancel' }, by) })));
}

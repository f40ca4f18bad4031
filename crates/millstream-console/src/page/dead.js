// Dead letters: one row per cause, then its messages, then a single message.

import { h, put, count, many, when, id as idLink, table, copyable, row, pretty, failure } from './dom.js';
import { get, post, now, cli, curl, confirm, askReveal, actOnMany } from './ask.js';
import { headersOf } from './trace.js';

export const title = 'Dead letters';

const PAGE = 100;
const NONE = '-';
const part = encodeURIComponent;
const ID = /^[0-9a-f]{8}-[0-9a-f-]{27}$/i;
const STATES = { dead: 'dead', redriving: 'redriving', resolved: 'resolved', edited: 'edited', discarded: 'discarded' };
const state = (letter) => h(`span.state.${letter.state}`, null, STATES[letter.state] || letter.state);

export function show(main, [service, what], current) {
	const failed = (error) => {
		if (current()) put(main, crumbs(service, what), h('h1', null, 'Dead letters'), failure(error, () => show(main, [service, what], current)));
	};
	const all = main.dataset.all === '1';
	const page = what && ID.test(what) ? record(main, service, what, current) : what ? letters(main, service, what === NONE ? '' : what, all, current) : groups(main, service, all, current);
	page.catch(failed);
	return null;
}

function crumbs(service, what, fingerprint) {
	if (!service) return null;
	return h('nav.crumbs', { 'aria-label': 'Where you are' }, h('a', { href: '#/dead' }, 'Dead letters'), h('a', { href: `#/dead/${part(service)}` }, service),
		fingerprint && h('a.mono', { href: `#/dead/${part(service)}/${part(fingerprint)}` }, fingerprint), what && h('span.mono', null, what));
}

/** Whether those that were dealt with are shown, too. */
function toggle(main, args, current) {
	const box = h('input', { type: 'checkbox', name: 'all', checked: main.dataset.all === '1', onchange: () => { main.dataset.all = box.checked ? '1' : ''; show(main, args, current); } });
	return h('label.check', null, box, 'Include resolved, edited and discarded');
}

function actions(filter, number, what) {
	if (!now.allowActions || !number) return null;
	return h('div.buttons', null,
		h('button.primary', { onclick: () => actOnMany('redrive', filter, what) }, 'Redrive…'),
		h('button', { onclick: () => actOnMany('discard', filter, what) }, 'Discard…'));
}

async function groups(main, service, all, current) {
	const query = new URLSearchParams({ ...(service && { service }), all });
	const { groups, count: number, redriving } = await get(`/api/dead?${query}`);
	if (!current()) return;
	const rows = groups.map((group) => [
		count(group.count),
		h('a', { href: `#/dead/${part(group.service)}/${part(group.fingerprint || NONE)}` }, h('b', null, group.service), ' ', h('span.mono', null, group.event)),
		h('span.reason', null, group.reason),
		h('span.clip', { title: group.error }, group.error),
		when(group.first),
		when(group.last),
		group.redriving ? count(group.redriving) : '',
	]);
	const what = service ? `all of ${service}` : 'all dead letters';
	put(main, crumbs(service),
		h('div.head', null, h('h1', null, service ? `Dead letters of ${service}` : 'Dead letters'), actions(service ? { service } : {}, number, what)),
		h('p.summary', null, number ? [many(number, 'message'), ' of ', many(groups.length, 'cause'), redriving > 0 && `, ${count(redriving)} redriving`] : '', toggle(main, [service], current)),
		table('Causes', [['Count', 'number'], ['What'], ['Reason'], ['Error'], ['First failed'], ['Last failed'], ['Redriving', 'number']], rows,
			'No dead letters. A message that a service cannot handle, even after retries, is kept here with its error until someone redrives, edits or discards it.'));
}

async function letters(main, service, fingerprint, all, current) {
	const query = (offset) => `/api/dead/list?${new URLSearchParams({ service, fingerprint, all, offset, limit: PAGE })}`;
	const { letters: first, total } = await get(query(0));
	if (!current()) return;
	const body = h('tbody');
	const line = (letter) => h('tr', null,
		h('td', { 'data-label': 'Message' }, h('a.mono', { href: `#/dead/${part(letter.service)}/${letter.id}` }, letter.id)),
		h('td', { 'data-label': 'About' }, letter.key ? idLink(letter.key, { short: true }) : '–'),
		h('td', { 'data-label': 'State' }, state(letter)),
		h('td.number', { 'data-label': 'Attempts' }, count(letter.attempts)),
		h('td.number', { 'data-label': 'Redrives' }, count(letter.redrives)),
		h('td', { 'data-label': 'Last failed' }, when(letter.lastFailure)),
		h('td', { 'data-label': 'By' }, letter.who ? [letter.who, letter.why && h('small', null, letter.why)] : ''));
	const more = h('button', { onclick: async () => {
		more.disabled = true;
		const { letters: next } = await get(query(body.children.length)).catch(() => ({ letters: [] }));
		const at = body.children.length;
		body.append(...next.map(line));
		body.children[at]?.querySelector('a').focus();
		said();
	} });
	const said = () => {
		more.disabled = false;
		more.hidden = body.children.length >= total;
		more.textContent = `Show more (${count(total - body.children.length)} left)`;
	};
	body.append(...first.map(line));
	said();
	const one = first[0];
	const filter = { service, fingerprint };
	put(main, crumbs(service, fingerprint),
		h('div.head', null, h('h1', null, one ? [service, ' parked ', h('span.mono', null, one.event)] : 'Dead letters'), actions(filter, total, `${many(total, 'message')} of ${service}`)),
		h('p.summary', null, many(total, 'message'), toggle(main, [service, fingerprint], current)),
		one && h('pre.error', { tabindex: 0, 'aria-label': 'Latest error' }, `${one.reason}: ${one.error}`),
		total ? [h('table', { 'aria-label': 'Messages' }, h('thead', null, h('tr', null, ['Message', 'About', 'State', 'Attempts', 'Redrives', 'Last failed', 'By'].map((name) => h('th', { scope: 'col', class: ['Attempts', 'Redrives'].includes(name) && 'number' }, name)))), body), h('div.buttons', null, more),
			copyable('As an HTTP request', curl(query(0))), copyable('Redrive on the command line', cli.redrive(filter))]
			: h('p.empty', null, 'No dead letter with this cause is left: all were redriven, edited or discarded.'));
}

async function record(main, service, id, current) {
	const { letter, headers, payload, masked, audit, trouble } = await get(`/api/dead/${part(service)}/${part(id)}`);
	if (!current()) return;
	const open = letter.state === 'dead' || letter.state === 'redriving';
	const body = h('pre', { tabindex: 0, 'aria-label': 'Body' }, pretty(payload));
	let known = masked ? null : payload;

	const reveal = (then) => askReveal(letter.personal, { service, id }, (text) => {
		known = text;
		body.textContent = pretty(known);
		revealed.hidden = true;
		if (then) setTimeout(then);
	});
	const edit = () => {
		if (known === null) { reveal(edit); return; }
		const text = h('textarea.mono', { name: 'payload', rows: 14, spellcheck: 'false', required: true, 'data-first': true, value: pretty(known), oninput: () => {
			let wrong = '';
			try { JSON.parse(text.value); } catch (error) { wrong = error.message; }
			text.setCustomValidity(wrong && 'This is not JSON');
			put(said, wrong);
		} });
		const said = h('span.wrong', { role: 'status' });
		confirm({
			title: 'Edit and redrive',
			about: `Sends an edited copy to ${service} under a new id, caused by this message. The original is kept.`,
			extra: h('label', null, 'Body', text, said),
			button: 'Send the edited copy',
			wide: true,
			act: async (by) => {
				const { id: fresh, difference } = await post('/api/dead/edit', { service, id, payload: text.value, ...by });
				const shown = (value) => (value === null ? 'nothing' : JSON.stringify(value));
				return [h('p', null, 'Sent as ', idLink(fresh), '.'), h('ul.difference', null, difference.map(([where, old, changed]) => h('li.mono', null, h('b', null, where || '/'), ' ', h('del', null, shown(old)), ' ', h('ins', null, shown(changed)))))];
			},
		});
	};
	const revealed = h('button.small', { onclick: () => reveal() }, 'Reveal');
	revealed.hidden = !masked || !now.allowActions;
	const one = { service, id };
	put(main, crumbs(service, id, letter.fingerprint),
		h('div.head', null, h('h1', null, service, ' parked ', h('span.mono', null, letter.event)),
			now.allowActions && open && h('div.buttons', null,
				h('button.primary', { onclick: () => actOnMany('redrive', one, 'this message') }, 'Redrive…'),
				!letter.cut && h('button', { onclick: edit }, 'Edit and redrive…'),
				h('button', { onclick: () => actOnMany('discard', one, 'this message') }, 'Discard…'))),
		h('p.summary', null, state(letter), ' ', letter.state !== 'dead' && letter.who && `by ${letter.who}: ${letter.why || ''}`),
		h('pre.error', { tabindex: 0, 'aria-label': 'Error' }, `${letter.reason}: ${letter.error}`),
		letter.cut && h('p.note', null, `The body was too large for a dead letter (${count(letter.cut)} bytes) and is truncated. Read the original from ${letter.stream} #${letter.sequence}.`),
		h('div.split', null,
			h('div', null,
				h('div.title', null, h('h2', null, 'Body'), masked && h('span.dim', null, 'personal fields are masked'), revealed), body,
				headersOf(headers)),
			h('aside.record', { 'aria-label': 'Details' },
				h('dl', null,
					row('Id', idLink(letter.id)), row('About', idLink(letter.key)), row('Caused by', idLink(letter.causation)), row('Correlation', idLink(letter.correlation)),
					row('Source', h('span.mono', null, `${letter.stream} #${letter.sequence}`)), row('Subject', h('span.mono', null, letter.subject)),
					row('First failed', when(letter.firstFailure)), row('Last failed', when(letter.lastFailure)),
					row('Attempts', count(letter.attempts)), row('Redrives', count(letter.redrives)), row('Record', h('span.mono', null, letter.record))),
				h('h2', null, 'Audit'),
				trouble ? h('p.wrong', null, trouble) : audit.length ? h('ol.audit', null, audit.map((entry) => h('li', null, h('b', null, entry.action), ' by ', entry.who, ' ', when(entry.at), h('q', null, entry.why)))) : h('p.empty', null, 'No actions yet.'),
				copyable('As an HTTP request', curl(`/api/dead/${part(service)}/${part(id)}`)), copyable('On the command line', cli.show(service, id)), copyable('As a test of the service', cli.test(letter.id)))));
}

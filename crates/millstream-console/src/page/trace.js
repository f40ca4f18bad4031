// The trace of a key, an event or a correlation id: everything that it caused.

import { h, put, many, span, when, id as idLink, copyable, row, pretty, count, keysOf, failure } from './dom.js';
import { get, now, told, cli, curl, askReveal } from './ask.js';

export const title = 'Trace';

const MARK = { done: '✓', parked: '✗', open: '↻', waiting: '…', expired: '–', silent: '?' };
const SAID = { done: 'handled', parked: 'dead-lettered', open: 'retrying', waiting: 'not handled yet', expired: 'no longer in the journal', silent: 'the service does not answer' };
const KIND = { done: 'ok', parked: 'bad', open: 'warn', waiting: 'open', expired: 'dim', silent: 'warn' };

export function show(main, [id], current) {
	if (!id) return ask(main);
	put(main, h('h1', null, 'Trace ', h('span.mono', null, id)), h('p.dim', null, 'Loading…'));
	load(main, id, current);
	return null;
}

function ask(main) {
	const list = h('ol.keys');
	const draw = () => keysOf(list, now.recent, 'No events since this tab was opened.');
	const field = h('input', { type: 'search', name: 'id', required: true, autocomplete: 'off', spellcheck: 'false', placeholder: '0190a5c2-…' });
	put(main,
		h('h1', null, 'Trace'),
		h('p', null, 'Shows everything that a key, an event or a request caused. Events are read from the streams, outcomes from the services; no trace store is needed.'),
		h('form.ask', { onsubmit: (event) => { event.preventDefault(); location.hash = `#/trace/${encodeURIComponent(field.value.trim())}`; } },
			h('label', null, 'A key, an event’s id or a correlation id', field), h('button.primary', { type: 'submit' }, 'Trace')),
		h('h2', null, 'Recent keys'), list);
	draw();
	// The list does not change while the user chooses from it.
	const first = () => { if (!list.querySelector('a')) draw(); };
	told.addEventListener('events', first);
	return () => told.removeEventListener('events', first);
}

async function load(main, id, current, was) {
	let trace, failed;
	try {
		trace = await get(`/api/trace/${encodeURIComponent(id)}`);
	} catch (error) {
		failed = error;
	}
	if (!current()) return;
	const seen = JSON.stringify(trace);
	const held = main.querySelector('.record:focus-within');
	if (failed) put(main, h('h1', null, 'Trace ', h('span.mono', null, id)), failure(failed, () => load(main, id, current)));
	else if (!held && seen !== was) draw(main, id, trace);
	// A trace in progress is polled; one that may not have started is looked up once more.
	const { events = [], wakes = [] } = trace || {};
	const goes = failed ? was === undefined : wakes.length || events.some((event) => Date.now() - Date.parse(event.at) < 5000 || event.handled.some(({ state }) => state === 'open' || state === 'waiting'));
	if (goes) setTimeout(() => current() && load(main, id, current, held ? was : seen || ''), wakes.length ? 3000 : 1000);
}

function draw(main, id, trace) {
	const chosen = main.querySelector('.fall[aria-pressed]')?.dataset.sequence;
	const focused = main.querySelector('.fall:focus');
	const { events, dead, wakes, gaps } = trace;
	const time = (text) => (text ? Date.parse(text) : NaN);
	const begin = Math.min(...events.map((event) => time(event.at)).filter(Number.isFinite));
	const ends = events.flatMap((event) => [time(event.at), ...event.handled.map((one) => time(one.at))]).filter(Number.isFinite);
	const total = Math.max(1, Math.max(...ends) - begin);
	const percent = (at) => `${Math.max(0, Math.min(100, (100 * (at - begin)) / total))}%`;
	const record = h('aside.record', { 'aria-label': 'Record', tabindex: -1 });
	const rows = events.map((event) => {
		const at = time(event.at);
		const last = Math.max(at, ...event.handled.map((one) => time(one.at)).filter(Number.isFinite));
		const worst = ['parked', 'open', 'waiting', 'silent'].find((state) => event.handled.some((one) => one.state === state));
		const button = h('button.fall', { style: { '--depth': String(Math.min(event.depth, 8)) }, onclick: () => pick(event, button, true) },
			h('span.name', null, h('b.mono', null, (event.type || event.subject).replace(/\.v1$/, '')), h('small', null, event.source || 'unknown', handledBy(event))),
			h('span.track', { mute: true },
				h(`i.length.${worst ? KIND[worst] : 'ok'}`, { style: { left: percent(at), width: `${(100 * (last - at)) / total}%` } }),
				event.handled.filter((one) => one.at).map((one) => h(`i.tick.${KIND[one.state] || 'dim'}`, { style: { left: percent(time(one.at)) }, title: `${one.service}: ${SAID[one.state] || one.state}` }))),
			h('span.off.mono', null, `+${span(at - begin)}`));
		button.dataset.sequence = `${event.stream}:${event.sequence}`;
		return h('li', null, button);
	});

	function pick(event, button, byHand) {
		for (const other of main.querySelectorAll('.fall[aria-pressed]')) other.removeAttribute('aria-pressed');
		button.setAttribute('aria-pressed', 'true');
		put(record, recordOf(event, () => event));
		// If the record is below the list, scroll to it.
		if (byHand && getComputedStyle(record).position === 'static') { record.focus(); record.scrollIntoView({ block: 'start' }); }
	}

	put(main,
		h('h1', null, 'Trace ', h('span.mono', null, id)),
		h('p.summary', null, many(events.length, 'event'), ' in ', h('b', null, span(total)), ', started ', when(events[0]?.at)),
		gaps.length > 0 && h('ul.notes.warn', { 'aria-label': 'Missing' }, gaps.map((gap) => h('li', null, gap))),
		dead.length > 0 && h('ul.notes.bad', { 'aria-label': 'Dead letters' }, dead.map((letter) => h('li', null,
			h('a', { href: `#/dead/${encodeURIComponent(letter.service)}/${letter.id}` }, `${letter.service} parked ${letter.event}`), ` (${letter.state}): `, letter.error))),
		wakes.length > 0 && h('ul.notes', { 'aria-label': 'Pending wakes' }, wakes.map((wake) => h('li', null,
			h('b', null, `${wake.service}: ${wake.kind}`), ' is due ', when(wake.at), wake.attempt > 0 && `, ${many(wake.attempt, 'attempt')}`, ' ', h('a', { href: '#/system' }, 'Show')))),
		events.length ? h('div.split', null,
			h('div', null,
				h('div.axis', { mute: true }, h('span'), h('span.track', null, [0, 0.25, 0.5, 0.75, 1].map((part) => h('i', { style: { left: `${100 * part}%` } }, span(part * total)))), h('span')),
				h('ol.falls', { 'aria-label': 'Events in causal order' }, rows)),
			record) : h('p.empty', null, 'No event of this trace is left in the streams; everything else that is known is shown above.'));

	const first = rows.map((row) => row.firstChild).find((button) => button.dataset.sequence === chosen) || rows[0]?.firstChild;
	if (first) pick(events[rows.findIndex((row) => row.firstChild === first)], first, false);
	if (focused) first?.focus();
}

function handledBy(event) {
	return event.handled.map((one) => [' ', h(`span.by.${KIND[one.state] || 'dim'}`, { title: [SAID[one.state] || one.state, one.error].filter(Boolean).join(': ') },
		h('i', { mute: true }, MARK[one.state] || '?'), one.service, one.attempts > 0 && ` ×${count(one.attempts + (one.state === 'done' ? 1 : 0))}`, h('span.quiet', null, ` ${SAID[one.state] || one.state}`))]);
}

export function recordOf(event) {
	const json = typeof event.payload === 'string' ? event.payload : JSON.stringify(event.payload);
	const body = h('pre', { tabindex: 0, 'aria-label': 'Body' }, pretty(json));
	const personal = event.personal.length > 0;
	const reveal = personal && now.allowActions && h('button.small', { onclick: () => askReveal(event.personal, { stream: event.stream, sequence: event.sequence }, (payload) => {
		body.textContent = pretty(payload);
		reveal.remove();
	}) }, 'Reveal');
	return [
		h('h2.mono', null, event.type || event.subject),
		h('dl', null,
			row('Emitted', [event.source || 'unknown', ', ', when(event.at, { exact: true })]),
			row('Key', idLink(event.key)), row('Id', idLink(event.id)), row('Caused by', idLink(event.causation)), row('Correlation', idLink(event.correlation)),
			row('Stream', h('span.mono', null, `${event.stream} #${event.sequence}`))),
		event.handled.length > 0 && h('ul.handled', { 'aria-label': 'Outcomes' }, event.handled.map((one) => h('li', null,
			h(`i.${KIND[one.state] || 'dim'}`, { mute: true }, MARK[one.state] || '?'), h('b', null, one.service), ` ${SAID[one.state] || one.state}`,
			one.at && [' ', when(one.at, { exact: true })], one.attempts > 0 && `, ${many(one.attempts, 'failed attempt')}`, one.redrives > 0 && `, redriven ${many(one.redrives, 'time')}`,
			one.error && h('pre.error', { tabindex: 0 }, one.error)))),
		h('div.title', null, h('h3', null, 'Body'), personal && h('span.dim', null, 'personal fields are masked'), reveal),
		body,
		headersOf(event.headers),
		copyable('As an HTTP request', curl(`/api/trace/${encodeURIComponent(event.key || event.id || event.correlation)}`)),
		copyable('On the command line', cli.trace(event.key || event.id || event.correlation)),
	];
}

export function headersOf(headers) {
	return h('details', null, h('summary', null, many(headers.length, 'header')), h('dl.mono', null, headers.map(([name, value]) => row(name, value))));
}

// Instances, consumers and streams.

import { h, put, count, bytes, span, when, table, section } from './dom.js';
import { get } from './ask.js';

export const title = 'System';

const AGAIN = 3000;

export function show(main, _args, current) {
	put(main, h('h1', null, 'System'), h('p.dim', null, 'Loading…'));
	let timer = null;
	let over = false;
	const look = async () => {
		try {
			const system = await get('/api/system');
			// An open dialog is not redrawn under the user's hands.
			if (!over && current() && !document.querySelector('dialog[open]')) draw(main, system);
		} catch (error) {
			if (!over && current()) put(main, h('h1', null, 'System'), h('p.wrong', { role: 'alert' }, error.message), h('p.dim', null, 'Retrying.'));
		}
		if (!over) timer = setTimeout(look, AGAIN);
	};
	look();
	return () => { over = true; clearTimeout(timer); };
}

function draw(main, { status, troubles }) {
	const up = (health) => health?.status === 'UP';
	const waiting = (health) => (Array.isArray(health?.waitingFor) ? health.waitingFor : []);
	const of = (totals, name) => count(totals?.[name] ?? 0);
	const took = (totals) => {
		const messages = (totals?.handled || 0) + (totals?.duplicate || 0) + (totals?.retried || 0) + (totals?.deadLettered || 0);
		return messages ? span(totals.processingNanos / messages / 1e6) : '–';
	};
	const instances = (status?.instances || []).map((one) => ({ kind: up(one.health) ? '' : 'odd', cells: [
		h('b', null, one.service),
		h('span.mono', { title: one.instance }, one.instance.slice(-8)),
		h('span', { title: `revision ${one.revision}` }, one.version),
		when(one.started),
		up(one.health) ? h('span.ok', null, 'ready') : h('span.warn', null, waiting(one.health).join('; ') || 'not ready'),
		of(one.totals, 'handled'), of(one.totals, 'commands'), of(one.totals, 'duplicate'), of(one.totals, 'retried'), of(one.totals, 'deadLettered'), of(one.totals, 'errors'), took(one.totals),
		one.health?.commandsAccepted === undefined ? '' : count(one.health.commandsAccepted),
	] }));
	const consumers = (status?.consumers || []).map((one) => ({ kind: one.oldestAgeSeconds > 10 ? 'odd' : '', cells: [
		h('b', null, one.name), h('span.mono', null, one.stream), h('span.clip.mono', { title: one.events.join('\n') }, one.events.join(', ')),
		count(one.pending), count(one.ackPending), count(one.redelivered), count(one.waiting), one.oldestAgeSeconds > 0 ? span(one.oldestAgeSeconds * 1000) : '–',
	] }));
	const streams = (status?.streams || []).map((one) => [
		h('b.mono', null, one.partitions ? h('a', { href: `#/messages/${encodeURIComponent(one.name)}` }, one.name) : one.name), h('span.mono', null, one.subjects.join(', ')), count(one.messages),
		[bytes(one.bytes), one.maxBytes && h('meter', { min: 0, max: one.maxBytes, value: one.bytes, high: one.maxBytes * 0.8, optimum: 0, title: `of ${bytes(one.maxBytes)}` })],
		one.maxBytes ? bytes(one.maxBytes) : 'no limit', count(one.firstSequence), count(one.lastSequence), one.partitions ?? '', one.release || '',
	]);
	put(main,
		h('h1', null, 'System'),
		troubles.map((text) => h('p.wrong', { role: 'alert' }, text)),
		section('Instances', h('span.dim', null, 'totals since each was started'), table('Instances', [['Service'], ['Instance'], ['Release'], ['Started'], ['Health'], ['Handled', 'number'], ['Commands', 'number'], ['Duplicates', 'number'], ['Retried', 'number'], ['Dead', 'number'], ['Errors', 'number'], ['Time per message', 'number'], ['Accepts', 'number']], instances, 'No instances. A service appears here once it is started.')),
		section('Consumers', null, table('Consumers', [['Consumer'], ['Stream'], ['Events'], ['Pending', 'number'], ['Unacked', 'number'], ['Redelivered', 'number'], ['Pulls', 'number'], ['Oldest', 'number']], consumers, 'No consumers. A service creates its own when it starts.')),
		section('Streams', null, table('Streams', [['Stream'], ['Subjects'], ['Messages', 'number'], ['Size', 'number'], ['Limit', 'number'], ['First', 'number'], ['Last', 'number'], ['Partitions', 'number'], ['Release']], streams, 'No streams. A service declares its own when it starts.')));
}

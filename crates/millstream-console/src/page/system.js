// Instances, consumers, streams, pending wakes and the audit log.

import { h, put, count, bytes, span, when, id as idLink, table, section } from './dom.js';
import { get, post, now, confirm } from './ask.js';

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

function draw(main, { status, wakes, silent, audit, troubles }) {
	// The focus is kept across the redraw.
	const marked = main.contains(document.activeElement) ? document.activeElement.dataset.mark : null;
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
		h('b.mono', null, one.name), h('span.mono', null, one.subjects.join(', ')), count(one.messages),
		[bytes(one.bytes), one.maxBytes && h('meter', { min: 0, max: one.maxBytes, value: one.bytes, high: one.maxBytes * 0.8, optimum: 0, title: `of ${bytes(one.maxBytes)}` })],
		one.maxBytes ? bytes(one.maxBytes) : 'no limit', count(one.firstSequence), count(one.lastSequence), one.partitions ?? '', one.release || '',
	]);
	const later = wakes.map((wake) => [
		h('b', null, wake.service), wake.kind, idLink(wake.document, { short: true }), when(wake.at), when(wake.opened), count(wake.attempt),
		now.allowActions ? wakeButtons(wake) : '',
	]);
	const audited = audit.map((entry) => [
		when(entry.at), entry.who, h('b', null, entry.action), entry.service, h('span.mono.clip', { title: entry.what }, entry.what), entry.why,
	]);
	put(main,
		h('h1', null, 'System'),
		troubles.map((text) => h('p.wrong', { role: 'alert' }, text)),
		section('Instances', h('span.dim', null, 'totals since each was started'), table('Instances', [['Service'], ['Instance'], ['Release'], ['Started'], ['Health'], ['Handled', 'number'], ['Commands', 'number'], ['Duplicates', 'number'], ['Retried', 'number'], ['Dead', 'number'], ['Errors', 'number'], ['Time per message', 'number'], ['Accepts', 'number']], instances, 'No instances. A service appears here once it is started.')),
		section('Consumers', null, table('Consumers', [['Consumer'], ['Stream'], ['Events'], ['Pending', 'number'], ['Unacked', 'number'], ['Redelivered', 'number'], ['Pulls', 'number'], ['Oldest', 'number']], consumers, 'No consumers. A service creates its own when it starts.')),
		section('Streams', null, table('Streams', [['Stream'], ['Subjects'], ['Messages', 'number'], ['Size', 'number'], ['Limit', 'number'], ['First', 'number'], ['Last', 'number'], ['Partitions', 'number'], ['Release']], streams, 'No streams. A service declares its own when it starts.')),
		section('Wakes', h('span.dim', null, 'pending deadlines and effects'),
			silent.length > 0 && h('p.note', null, `No answer from ${silent.join(', ')}: their wakes are not shown.`),
			table('Wakes', [['Service'], ['What'], ['About'], ['Due'], ['Set'], ['Attempts', 'number'], ['', 'acts']], later, 'No pending wakes.')),
		section('Audit', h('span.dim', null, 'who did what, when and why'), table('Audit', [['When'], ['Who'], ['Action'], ['Service'], ['Target'], ['Reason']], audited, 'No actions yet. Redrives, edits, discards, reveals and actions on wakes are recorded here.')));
	if (marked) main.querySelector(`[data-mark="${CSS.escape(marked)}"]`)?.focus();
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

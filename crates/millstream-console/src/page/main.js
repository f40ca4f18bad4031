// Selects the page, and keeps the one connection for live updates.

import { $, h, put, count, many } from './dom.js';
import { now, told, tell } from './ask.js';
import * as live from './live.js';
import * as trace from './trace.js';
import * as dead from './dead.js';
import * as wakes from './wakes.js';
import * as messages from './messages.js';
import * as audit from './audit.js';
import * as system from './system.js';

const pages = { live, trace, dead, wakes, messages, audit, system };
const main = $('main');
let leave = null;
let shown = '';

async function show(moved) {
	const [name = '', ...args] = location.hash.replace(/^#\/?/, '').split('/').map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
	const page = pages[name || 'live'];
	if (!page) { location.hash = '#/'; return; }
	if (leave) leave();
	leave = null;
	shown = location.hash;
	for (const link of document.querySelectorAll('nav a')) {
		if (link.dataset.page === (name || 'live')) link.setAttribute('aria-current', 'page');
		else link.removeAttribute('aria-current');
	}
	document.title = `${page.title} · Millstream`;
	if (moved) { scrollTo(0, 0); main.focus({ preventScroll: true }); }
	const here = shown;
	const current = () => shown === here && main.dataset.at === here;
	main.dataset.at = here;
	leave = page.show(main, args, current);
}

addEventListener('hashchange', () => {
	// The skip link is not a page.
	if (location.hash === '#main') { main.focus(); history.replaceState(null, '', shown || '#/'); return; }
	show(true);
});

$('find').addEventListener('submit', (event) => {
	event.preventDefault();
	const id = $('find-id').value.trim();
	if (id) location.hash = `#/trace/${encodeURIComponent(id)}`;
});

addEventListener('keydown', (event) => {
	if (event.key === '/' && !event.ctrlKey && !event.metaKey && !event.target.closest('input, textarea, dialog')) {
		event.preventDefault();
		$('find-id').focus();
	}
});

// The connection. The browser reconnects by itself after a break, but not after an error response, and it does not
// notice a connection that has gone silent: both are handled here.
const SILENCE = 15_000;
let source = null;
let heard = 0;
let version = null;

function linked(online, text) {
	const back = online && !now.online && version !== null;
	now.online = online;
	const link = $('link');
	link.className = `link ${online ? 'on' : 'off'}`;
	const said = link.querySelector('span');
	if (said.textContent !== text) said.textContent = text;
	return back;
}

function connect() {
	if (source) source.close();
	heard = performance.now();
	source = new EventSource('/api/live');
	const on = (name, take) => source.addEventListener(name, (event) => {
		heard = performance.now();
		if (name !== 'trouble' && name !== 'verdict') $('trouble').hidden = true;
		take(JSON.parse(event.data));
	});
	on('hello', (hello) => {
		// A page from another release reloads itself.
		if (version !== null && version !== hello.version) { location.reload(); return; }
		const back = linked(true, 'live') || hello.allowActions !== now.allowActions;
		version = hello.version;
		now.allowActions = hello.allowActions;
		now.demo = hello.demo;
		now.runbook = hello.runbook;
		now.offset = Date.parse(hello.now) - Date.now();
		$('read-only').hidden = hello.allowActions;
		$('read-only').textContent = hello.readOnly ? `Read-only: ${hello.readOnly}.` : '';
		tell('hello');
		if (back) { tell('back'); if (!document.querySelector('dialog[open]')) show(false); }
	});
	on('events', (batch) => {
		now.counts = batch.counts;
		now.rate = batch.rate;
		for (const event of batch.events) now.recent.push(event);
		if (now.recent.length > 2000) now.recent.splice(0, now.recent.length - 2000);
		tell('events', batch);
	});
	on('lanes', (lanes) => {
		now.lanes = lanes;
		const dead = lanes.reduce((sum, lane) => sum + lane.dead, 0);
		$('dead-count').hidden = dead === 0;
		$('dead-count').textContent = count(dead);
		$('dead-count').setAttribute('aria-label', many(dead, 'dead letter'));
		tell('lanes');
	});
	on('verdict', (verdict) => {
		now.verdict = verdict;
		now.judged = performance.now();
		tell('verdict');
	});
	on('letters', (letters) => tell('letters', letters));
	on('invariants', (all) => {
		now.invariants = all.map((one) => ({ ...one, since: performance.now() - one.ageMillis }));
		tell('invariants');
	});
	on('skipped', ({ events }) => tell('skipped', events));
	on('trouble', ({ error }) => {
		$('trouble').hidden = false;
		put($('trouble'), h('b', null, 'No live updates: '), error);
	});
	source.onerror = () => {
		linked(false, 'reconnecting…');
		if (source.readyState === EventSource.CLOSED) setTimeout(() => { if (source.readyState === EventSource.CLOSED) connect(); }, 1000);
	};
}

setInterval(() => {
	if (!document.hidden && performance.now() - heard > SILENCE) { linked(false, 'reconnecting…'); connect(); }
}, 1000);

// A hidden tab disconnects, which also keeps the browser's few connections free.
const look = () => {
	if (document.hidden) { source?.close(); linked(false, 'paused'); } else connect();
};
document.addEventListener('visibilitychange', look);

told.addEventListener('acted', () => { if (!location.hash.match(/^#?\/?$/)) show(false); });
show(false);
look();

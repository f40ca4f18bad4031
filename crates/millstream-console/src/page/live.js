// The live view: events as they are emitted and handled.

import { h, put, count, many, span, keysOf } from './dom.js';
import { now, told, post } from './ask.js';
import { Score } from './score.js';

export const title = 'Live';

/** An invariant counts as unknown when its next report is overdue by this long. */
const STALE = 30_000;
/** A verdict that no poll has confirmed for this long no longer counts. */
const OUTDATED = 15_000;
const MARKS = { unknown: '?', holds: '✓', broken: '✗' };
const SAID = { unknown: 'unknown', holds: 'holds', broken: 'broken' };

export function show(main) {
	const verdict = h('div.verdict', null, h('p', { mute: true }), h('p.quiet', { role: 'status' }), h('div'));
	const strip = h('div.strip', { 'aria-label': 'Invariants', role: 'group' });
	const demo = h('div.demo');
	const skipped = h('p.note', { hidden: true, role: 'status' });
	const score = new Score();
	const keys = h('ol.keys');
	const types = h('div');
	const rate = h('span.dim', null, '');
	put(main,
		h('h1.quiet', null, 'Live'),
		verdict, strip, demo, skipped,
		h('section.score-section', null, h('div.title', null, h('h2', null, 'Live events'), rate, score.legend), score.element),
		h('div.halves', null,
			h('section', null, h('div.title', null, h('h2', null, 'Recent keys')), keys),
			h('section', null, h('div.title', null, h('h2', null, 'Events by type'), h('span.dim', null, 'since the first tab was opened')), types)));

	const offs = [];
	const on = (name, take) => {
		const listener = (event) => take(event.detail);
		told.addEventListener(name, listener);
		offs.push(() => told.removeEventListener(name, listener));
	};

	let missed = 0;
	on('skipped', (events) => {
		missed += events;
		skipped.hidden = false;
		skipped.textContent = `This tab was too slow: ${many(missed, 'event')} not shown. All were counted.`;
	});
	on('hello', () => demo.firstChild || drawDemo(demo));
	on('invariants', () => drawStrip(strip));
	on('verdict', () => drawVerdict(verdict));
	on('lanes', () => { score.lanes(now.lanes); });
	on('events', (batch) => {
		score.add(batch.events);
		drawKeys(keys);
		drawTypes(types);
		rate.textContent = batch.rate > 0 ? `${count(batch.rate)} per second${batch.rate > 50 ? ', showing a sample' : ''}` : '';
	});
	on('letters', (letters) => score.dead(letters));

	score.lanes(now.lanes);
	score.add(now.recent);
	drawDemo(demo);
	drawStrip(strip);
	drawVerdict(verdict);
	drawKeys(keys);
	drawTypes(types);
	const tick = setInterval(() => { drawStrip(strip); drawVerdict(verdict); drawKeys(keys); }, 2000);
	return () => {
		clearInterval(tick);
		score.stop();
		offs.forEach((off) => off());
	};
}

/** Whether all is well, in the sentence that the command line says too; an old one no longer counts. */
function drawVerdict(box) {
	const [said, spoken, list] = box.children;
	const given = performance.now() - now.judged < OUTDATED && now.verdict;
	const { state, sentence, causes } = given || { state: 'unknown', sentence: 'It is not known whether all is well: the console has not said so for a while.', causes: [] };
	box.className = `verdict ${state}`;
	put(said, h('i', null, { well: '✓', unknown: '?', wrong: '✗' }[state]), ' ', sentence, ...(causes.length === 1 && now.runbook ? [' ', runbookOf(causes[0])] : []));
	// Ages change with each poll: only another verdict is read out.
	const kinds = JSON.stringify([state, causes.map(({ kind }) => kind)]);
	if (box.dataset.was !== kinds) { box.dataset.was = kinds; spoken.textContent = sentence; }
	if (list.contains(document.activeElement)) return;
	const open = list.querySelector('details')?.open;
	put(list, causes.length > 1 && h('details', { open }, h('summary', null, `All ${count(causes.length)} problems`),
		h('ul', null, causes.map((cause) => h('li', null, `${cause.sentence} `, runbookOf(cause))))));
}

const runbookOf = ({ runbook }) => (now.runbook ? h('a', { href: `/runbook#${runbook.toLowerCase()}` }, runbook) : h('span.dim', null, runbook));

function drawStrip(strip) {
	const all = now.invariants.flatMap(({ source, since, nextWithin, invariants }) => invariants.map(({ name, holds, detail }) => {
		const age = performance.now() - since;
		const state = age > STALE + 1000 * nextWithin ? 'unknown' : holds ? 'holds' : 'broken';
		return { name, detail, source, state, age, holds };
	}));
	const key = JSON.stringify(all.map(({ name, state, detail, age }) => [name, state, state === 'holds' ? '' : detail, state === 'unknown' && Math.round(age / 10_000)]));
	// Unchanged text is not read out again by screen readers.
	if (strip.dataset.was === key) return;
	strip.dataset.was = key;
	if (!all.length) {
		put(strip, h('p.dim', null, 'No invariants reported. A checker publishes them to ', h('code', null, 'millstream.invariants'), '.'));
		return;
	}
	const of = (wanted) => all.filter(({ state }) => state === wanted);
	const chip = ({ name, detail, source, state }) => h(`li.chip.${state}`, { title: source },
		h('i', { mute: true }, MARKS[state]), h('span', null, name, h('span.quiet', null, `: ${SAID[state]}`)), detail && h('small', null, detail));
	const broken = of('broken');
	const unknown = of('unknown');
	const said = broken.length ? `${count(broken.length)} of ${many(all.length, 'invariant')} broken` : unknown.length ? `${many(unknown.length, 'invariant')} not reported for ${span(Math.max(...unknown.map(({ age }) => age)))}; at that time ${unknown.every(({ holds }) => holds) ? 'all held' : 'not all held'}` : `All ${many(all.length, 'invariant')} hold`;
	const state = broken.length ? 'broken' : unknown.length ? 'unknown' : 'holds';
	const open = strip.querySelector('details')?.open;
	put(strip, h('details', { class: state, open },
		h('summary', null, h('b', { role: 'status' }, h('i', { mute: true }, MARKS[state]), ` ${said}`), h('span.cells', { mute: true }, all.map((one) => h(`i.${one.state}`, { title: one.name })))),
		h('ul', null, all.map(chip))), broken.length > 0 && h('ul', null, broken.map(chip)));
}

function drawDemo(demo) {
	if (!now.allowActions || !now.demo.length) { put(demo); return; }
	put(demo, now.demo.map(({ label, hint }, index) => {
		const small = h('small', { role: 'status' }, hint);
		const button = h('button', { onclick: async () => {
			button.disabled = true;
			try {
				const { status, made, answer } = await post(`/api/demo/${index}`, {});
				const good = status < 400;
				put(small, good ? 'Done. ' : `HTTP ${status}: ${answer.slice(0, 200)}`, good && made && h('a', { href: `#/trace/${encodeURIComponent(made)}` }, 'Follow it'));
				small.classList.toggle('wrong', !good);
				if (good && !made) setTimeout(() => put(small, hint), 6000);
			} catch (error) {
				put(small, error.message);
				small.classList.add('wrong');
			}
			button.disabled = false;
		} }, label);
		return h('div', null, button, small);
	}));
}

const drawKeys = (keys) => keysOf(keys, now.recent, 'No events yet. Events appear here as services emit them.');

function drawTypes(types) {
	const all = Object.entries(now.counts).sort(([, one], [, other]) => other - one);
	if (!all.length) { put(types, h('p.empty', null, 'None yet.')); return; }
	const most = all[0][1];
	put(types, h('ul.bars', null, all.map(([type, number]) => h('li', null,
		h('span.mono', null, type), h('b', null, count(number)),
		h('i', { mute: true, style: { width: `${(100 * number) / most}%` } })))));
}

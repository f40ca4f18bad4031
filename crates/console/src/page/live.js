// What passes now.

import { h, put, count, many, when, id } from './dom.js';
import { now, told, post } from './ask.js';
import { Score } from './score.js';

export const title = 'Live';

/** An invariant that nobody has confirmed for so long is not known to hold. */
const STALE = 30_000;
const KEYS = 12;

export function show(main) {
  const strip = h('div.strip', { 'aria-label': 'Invariants', role: 'status' });
  const demo = h('div.demo');
  const skipped = h('p.note', { hidden: true, role: 'status' });
  const score = new Score();
  const keys = h('ol.keys');
  const types = h('div');
  const rate = h('span.dim', null, '');
  put(main,
    h('h1.quiet', null, 'Live'),
    strip, demo, skipped,
    h('section.score-section', null, h('div.title', null, h('h2', null, 'What passes now'), rate, score.legend), score.element),
    h('div.halves', null,
      h('section', null, h('div.title', null, h('h2', null, 'Recent keys')), keys),
      h('section', null, h('div.title', null, h('h2', null, 'Events by type'), h('span.dim', null, 'since this console was first watched')), types)));

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
    skipped.textContent = `This tab was too slow: ${many(missed, 'event')} passed without being shown. All were counted.`;
  });
  on('hello', () => drawDemo(demo));
  on('invariants', () => drawStrip(strip));
  on('lanes', () => { score.lanes(now.lanes); });
  on('events', (batch) => {
    score.add(batch.events);
    drawKeys(keys);
    drawTypes(types);
    rate.textContent = batch.rate > 0 ? `${count(batch.rate)} a second${batch.rate > 50 ? ', a sample is drawn' : ''}` : '';
  });
  on('letters', (letters) => score.dead(letters));

  score.lanes(now.lanes);
  score.add(now.recent);
  drawDemo(demo);
  drawStrip(strip);
  drawKeys(keys);
  drawTypes(types);
  // Ages go on without news.
  const tick = setInterval(() => { drawStrip(strip); drawKeys(keys); }, 2000);
  return () => {
    clearInterval(tick);
    score.stop();
    offs.forEach((off) => off());
  };
}

function drawStrip(strip) {
  const chips = now.invariants.flatMap(({ source, since, invariants }) => {
    const age = performance.now() - since;
    return invariants.map(({ name, holds, detail }) => {
      const state = age > STALE ? 'unknown' : holds ? 'holds' : 'broken';
      const mark = { unknown: '?', holds: '✓', broken: '✗' }[state];
      const said = { unknown: 'not known', holds: 'holds', broken: 'broken' }[state];
      return h(`span.chip.${state}`, { title: `${said}: ${detail || name} (${source})` },
        h('i', { 'aria-hidden': 'true' }, mark), h('span', null, name), h('span.quiet', null, `: ${said}`),
        state === 'broken' && detail && h('small', null, detail));
    });
  });
  const before = strip.dataset.was;
  const after = chips.map((chip) => chip.className + chip.textContent).join('|') || 'none';
  // What has not changed is not read out again.
  if (before === after) return;
  strip.dataset.was = after;
  put(strip, chips.length ? chips : h('span.dim', null, 'Nobody tells which invariants hold. Who checks them publishes to ', h('code', null, 'millstream.invariants'), '.'));
}

function drawDemo(demo) {
  if (!now.allowActions || !now.demo.length) { put(demo); return; }
  put(demo, now.demo.map(({ label, hint }, index) => {
    const small = h('small', { role: 'status' }, hint);
    const button = h('button', { type: 'button', onclick: async () => {
      button.disabled = true;
      try {
        const { status, made, answer } = await post(`/api/demo/${index}`, {});
        const good = status < 400;
        put(small, good ? 'Done. ' : `Answered ${status}: ${answer.slice(0, 200)}`, good && made && h('a', { href: `#/trace/${encodeURIComponent(made)}` }, 'Follow it'));
        small.classList.toggle('wrong', !good);
      } catch (error) {
        put(small, error.message);
        small.classList.add('wrong');
      }
      button.disabled = false;
    } }, label);
    return h('div', null, button, small);
  }));
}

function drawKeys(keys) {
  const seen = new Map();
  for (let at = now.recent.length - 1; at >= 0 && seen.size < KEYS; at -= 1) {
    const event = now.recent[at];
    const key = event.key || event.correlation || event.id;
    if (key && !seen.has(key)) seen.set(key, event);
  }
  if (!seen.size) { put(keys, h('li.empty', null, 'Nothing has passed yet. What services emit is seen here as it comes.')); return; }
  const focused = keys.contains(document.activeElement) ? document.activeElement.getAttribute('href') : null;
  put(keys, [...seen].map(([key, event]) => h('li', null, id(key, { short: true }), h('span.mono', null, event.type.replace(/\.v1$/, '')), h('span.dim', null, when(event.at)))));
  if (focused) [...keys.querySelectorAll('a')].find((link) => link.getAttribute('href') === focused)?.focus();
}

function drawTypes(types) {
  const all = Object.entries(now.counts).sort(([, one], [, other]) => other - one);
  if (!all.length) { put(types, h('p.empty', null, 'None yet.')); return; }
  const most = all[0][1];
  put(types, h('ul.bars', null, all.map(([type, number]) => h('li', null,
    h('span.mono', null, type), h('b', null, count(number)),
    h('i', { 'aria-hidden': 'true', style: { width: `${(100 * number) / most}%` } })))));
}

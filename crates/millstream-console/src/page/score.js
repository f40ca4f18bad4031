// Events on lanes: one lane per service, time runs to the left. A dot is an event at the service that emitted it; a ring is the
// same event at a service that reads it, coloured by its outcome. Lines lead from cause to effect.

import { h, count, put } from './dom.js';
import { now } from './ask.js';

const WINDOW = 16_000;
/** What comes is shown so much later, so that a batch does not jump in at the edge. */
const LATER = 900;
const HOP = 260;
const still = matchMedia('(prefers-reduced-motion: reduce)');
const dark = matchMedia('(prefers-color-scheme: dark)');

const DONE = 0, OPEN = 1, RETRIED = 2, DEAD = 3;

export class Score {
	constructor() {
		this.dots = new Map();
		this.order = [];
		this.marks = new Map();
		this.services = [];
		this.emitted = new Map();
		this.rows = new Map();
		this.hover = null;
		this.canvas = h('canvas', { mute: true });
		this.tip = h('div.tip', { hidden: true });
		this.list = h('ol.lanes', { 'aria-label': 'Services' });
		this.element = h('div.score', null, this.list, this.canvas, this.tip);
		this.legend = h('ul.legend', { mute: true }, [['dot', 'emitted'], ['open', 'waiting'], ['ok', 'handled'], ['warn', 'retried'], ['bad', 'dead-lettered']].map(([kind, text]) => h(`li.${kind}`, null, text)));
		this.canvas.addEventListener('pointermove', (event) => this.point(event));
		this.canvas.addEventListener('pointerleave', () => { this.hover = null; this.tip.hidden = true; });
		this.canvas.addEventListener('click', () => {
			const event = this.hover;
			if (event) location.hash = `#/trace/${encodeURIComponent(event.key || event.correlation || event.id)}`;
		});
		this.colours = () => {
			const style = getComputedStyle(document.documentElement);
			const of = (name) => style.getPropertyValue(name).trim();
			this.colour = { ink: of('--ink'), line: of('--thread'), accent: of('--accent'), back: of('--panel'), of: [of('--ok'), of('--dim'), of('--warn'), of('--bad')] };
		};
		this.colours();
		dark.addEventListener('change', this.colours);
		this.fit = new ResizeObserver(() => this.measure());
		this.fit.observe(this.element);
		let last = 0;
		const draw = (time) => {
			this.frame = requestAnimationFrame(draw);
			// Thirty frames per second are enough, or one with reduced motion.
			if (time - last < (still.matches ? 1000 : 32)) return;
			last = time;
			this.draw();
		};
		this.frame = requestAnimationFrame(draw);
	}

	stop() {
		cancelAnimationFrame(this.frame);
		this.fit.disconnect();
		dark.removeEventListener('change', this.colours);
	}

	/** The lanes as they are now: who emits stands above who only reads. */
	lanes(lanes) {
		const sorted = [...lanes].sort((one, other) => (other.emitted !== null) - (one.emitted !== null) || one.service.localeCompare(other.service));
		const names = sorted.map((lane) => lane.service).join();
		if (names !== this.services.join()) {
			this.services = sorted.map((lane) => lane.service);
			this.rows = new Map(sorted.map(({ service }) => [service, row(service)]));
			put(this.list, sorted.length ? [...this.rows.values()].map((one) => one.element) : h('li.empty', null, 'No services and no consumers found. A service appears here once it is started.'));
			this.measure();
		}
		for (const lane of sorted) this.rows.get(lane.service).fill(lane);
		this.readers = new Map();
		for (const lane of lanes) {
			for (const consumer of lane.consumers) {
				for (const type of consumer.events) {
					const key = `${consumer.stream} ${type}`;
					if (!this.readers.has(key)) this.readers.set(key, []);
					this.readers.get(key).push(lane.service);
				}
			}
		}
		// Events that arrived before their readers were known.
		for (const dot of this.dots.values()) this.connect(dot);
		for (const lane of lanes) for (const consumer of lane.consumers) this.settle(lane.service, consumer);
	}

	/** Colours what a consumer has got through. Of what lies above the first message that it has not acked only counts are known. */
	settle(service, { stream, pending, ackPending, redelivered, ackFloor }) {
		const open = [];
		for (const mark of this.marks.values()) {
			if (mark.service !== service || mark.dot.stream !== stream || mark.state !== OPEN) continue;
			if (mark.dot.sequence <= ackFloor) mark.state = DONE;
			else if (Date.now() + now.offset - mark.dot.t > 1500) open.push(mark);
		}
		// A sample does not say which event is the oldest.
		if (now.rate > 50) return;
		open.sort((one, other) => one.dot.sequence - other.dot.sequence);
		open.forEach((mark, at) => {
			if (at < redelivered) mark.state = RETRIED;
			else if (pending === 0 && ackPending <= redelivered) mark.state = DONE;
		});
	}

	add(events) {
		for (const event of events) {
			const name = `${event.stream} ${event.sequence}`;
			if (this.dots.has(name)) continue;
			const t = Date.parse(event.at);
			if (Date.now() + now.offset - t > WINDOW * 1.5) continue;
			const dot = { ...event, t, d: t, cause: null };
			this.dots.set(name, dot);
			this.order.push(name);
			this.connect(dot);
		}
	}

	/** Puts a dot where it belongs. A hop takes milliseconds: it is drawn longer, so that cause and effect are seen apart. */
	connect(dot) {
		const cause = this.marks.get(`${dot.causation} ${dot.source}`);
		if (cause) {
			dot.cause = cause;
			dot.d = Math.max(dot.t, cause.d + HOP / 2);
			// A service that emitted its effect has handled it.
			if (cause.state === OPEN) cause.state = DONE;
		}
		const type = dot.type.replace(/\.v\d+$/, '');
		for (const service of this.readers?.get(`${dot.stream} ${type}`) || []) {
			const name = `${dot.id} ${service}`;
			if (!this.marks.has(name)) this.marks.set(name, { dot, service, state: OPEN });
			this.marks.get(name).d = dot.d + HOP;
		}
	}

	dead(letters) {
		for (const letter of letters) {
			const t = Date.parse(letter.at);
			const mark = this.marks.get(`${letter.id} ${letter.service}`);
			if (mark) { mark.state = DEAD; mark.d = Math.max(mark.d, t); }
			// Its event is not among those drawn.
			else this.marks.set(`${letter.id} ${letter.service}`, { service: letter.service, d: t, state: DEAD, dot: { t, d: t, key: letter.key, id: letter.id, type: letter.event, source: null, stream: letter.stream, sequence: letter.sequence } });
		}
	}

	measure() {
		const box = this.element.getBoundingClientRect();
		const first = this.list.querySelector('.track')?.getBoundingClientRect();
		if (!first || !box.width) { this.size = null; return; }
		const ratio = devicePixelRatio || 1;
		// Lines would cross the names where these are above the lanes.
		this.size = { left: first.left - box.left, width: first.width, height: box.height, bare: first.left - box.left < 60 };
		this.canvas.width = Math.round(first.width * ratio);
		this.canvas.height = Math.round(box.height * ratio);
		for (const [name, value] of [['left', this.size.left], ['width', first.width], ['height', box.height]]) this.canvas.style.setProperty(name, `${value}px`);
		this.y = new Map([...this.rows].map(([service, { track }]) => {
			const at = track.getBoundingClientRect();
			return [service, at.top - box.top + at.height / 2];
		}));
		this.ratio = ratio;
	}

	x(t) { return this.size.width - 10 - ((this.at - t) / WINDOW) * (this.size.width - 10); }

	draw() {
		if (!this.size) return;
		this.at = Date.now() + now.offset - LATER;
		const old = this.at - WINDOW - 2000;
		while (this.order.length && (this.dots.get(this.order[0]).t < old || this.order.length > 1500)) this.dots.delete(this.order.shift());
		for (const [name, mark] of this.marks) if (mark.d < old) this.marks.delete(name);
		const { size, colour, ratio } = this;
		const pen = this.canvas.getContext('2d');
		pen.setTransform(ratio, 0, 0, ratio, 0, 0);
		pen.clearRect(0, 0, size.width, size.height);
		const picked = this.hover?.correlation;
		const fades = (dot) => (this.hover && !(picked ? dot.correlation === picked : dot === this.hover) ? 0.18 : 1);
		pen.lineWidth = 1.2;
		const thread = (from, to, dot) => {
			if (size.bare && !this.hover) return;
			pen.globalAlpha = fades(dot);
			pen.strokeStyle = this.hover && fades(dot) === 1 ? colour.accent : colour.line;
			const [x0, y0, x1, y1] = [from.x, from.y, to.x, to.y];
			const bend = Math.max(10, (x1 - x0) / 2);
			pen.beginPath();
			pen.moveTo(x0, y0);
			pen.bezierCurveTo(x0 + bend, y0, x1 - bend, y1, x1, y1);
			pen.stroke();
		};
		const place = (t, service) => ({ x: this.x(t), y: this.y.get(service) });
		for (const mark of this.marks.values()) {
			const from = place(mark.dot.d, mark.dot.source);
			const to = place(mark.d, mark.service);
			if (mark.d < this.at && from.y !== undefined && to.y !== undefined) thread(from, to, mark.dot);
		}
		for (const dot of this.dots.values()) {
			if (!dot.cause || dot.d > this.at) continue;
			const from = place(dot.cause.d, dot.cause.service);
			const to = place(dot.d, dot.source);
			if (from.y !== undefined && to.y !== undefined) thread(from, to, dot);
		}
		const disc = (t, service, radius, fill, ring, dot) => {
			const { x, y } = place(t, service);
			if (y === undefined || x < -8) return;
			pen.globalAlpha = fades(dot);
			pen.beginPath();
			pen.arc(x, y, radius, 0, 7);
			pen.fillStyle = fill;
			pen.fill();
			if (ring) { pen.lineWidth = 1.8; pen.strokeStyle = ring; pen.stroke(); }
		};
		for (const mark of this.marks.values()) {
			if (mark.d > this.at) continue;
			const own = colour.of[mark.state];
			disc(mark.d, mark.service, mark.state === DEAD ? 5 : 3.6, mark.state === OPEN ? colour.back : own, own, mark.dot);
		}
		for (const dot of this.dots.values()) if (dot.d <= this.at) disc(dot.d, dot.source, 2.8, colour.ink, null, dot);
		pen.globalAlpha = 1;
	}

	point(event) {
		if (!this.size || !this.y) return;
		const box = this.canvas.getBoundingClientRect();
		const [x, y] = [event.clientX - box.left, event.clientY - box.top];
		let best = null;
		let near = 14;
		const look = (t, service, dot, said) => {
			const distance = Math.hypot(this.x(t) - x, (this.y.get(service) ?? 1e6) - y);
			if (distance < near) { near = distance; best = { dot, said, x: this.x(t), y: this.y.get(service) }; }
		};
		for (const dot of this.dots.values()) look(dot.d, dot.source, dot, `emitted by ${dot.source}`);
		for (const mark of this.marks.values()) look(mark.d, mark.service, mark.dot, `${['handled', 'waiting', 'retried', 'dead-lettered'][mark.state]} at ${mark.service}`);
		this.hover = best && best.dot;
		this.tip.hidden = !best;
		this.canvas.classList.toggle('hit', !!best);
		if (!best) return;
		put(this.tip, h('b.mono', null, best.dot.type), h('span', null, best.said), best.dot.key && h('span.mono.dim', null, best.dot.key));
		this.tip.style.setProperty('left', `${Math.min(best.x + this.size.left + 12, this.size.left + this.size.width - 240)}px`);
		this.tip.style.setProperty('top', `${best.y + 12}px`);
	}
}

function row(service) {
	const sub = h('small');
	const track = h('div.track');
	const big = h('b');
	const unit = h('span');
	const side = h('small');
	const element = h('li', null, h('div.who', null, h('b', null, service), sub), track, h('div.figures', null, h('div', null, big, unit), side));
	const state = { before: null, at: 0, rate: 0 };
	const fill = (lane) => {
		const handled = lane.totals.handled || 0;
		const exact = lane.emitted ?? handled;
		const time = performance.now();
		if (state.before !== null && time > state.at) {
			const rate = Math.max(0, ((exact - state.before) * 1000) / (time - state.at));
			state.rate += (rate - state.rate) * 0.5;
		}
		state.before = exact;
		state.at = time;
		big.textContent = count(exact);
		unit.textContent = lane.emitted !== null ? ' emitted' : ' handled';
		const pending = lane.consumers.reduce((sum, consumer) => sum + consumer.pending + consumer.ackPending, 0);
		const rate = state.rate >= 0.05 ? `${state.rate >= 10 ? Math.round(state.rate) : state.rate.toFixed(1)}/s` : '0/s';
		put(side, rate, pending > 0 && h('span.warn', null, ` · ${count(pending)} behind`), lane.dead > 0 && [' · ', h('a.bad', { href: `#/dead/${encodeURIComponent(lane.service)}` }, `${count(lane.dead)} dead`)]);
		const down = lane.instances === 0;
		element.className = down ? 'down' : lane.waiting.length ? 'waiting' : '';
		put(sub, down ? 'no instance answers' : lane.waiting.length ? lane.waiting[0] : lane.instances === 1 ? '1 instance' : `${lane.instances} instances`);
		sub.title = lane.waiting.join('\n');
	};
	return { element, track, fill };
}

// Elements, and the formatting of numbers and times. Text is always inserted as text, never as markup.

/** An element with properties and children; a child is an element, a text, or nothing. */
export function h(tag, props, ...children) {
	const [name, ...classes] = tag.split('.');
	const element = document.createElement(name);
	if (classes.length) element.classList.add(...classes);
	if (name === 'button') element.type = 'button';
	for (const [name, value] of Object.entries(props || {})) {
		if (value === undefined || value === null || value === false) continue;
		if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
		// The page's content security policy forbids inline styles in markup; these are set by the script.
		else if (name === 'style') for (const [key, of] of Object.entries(value)) element.style.setProperty(key, of);
		else if (name === 'mute') element.setAttribute('aria-hidden', 'true');
		else if (name === 'value') element.value = value;
		else element.setAttribute(name, value === true ? '' : value);
	}
	element.append(...there(children));
	return element;
}

const there = (children) => children.flat(3).filter((child) => child !== null && child !== undefined && child !== false);
export function put(element, ...children) {
	element.replaceChildren(...there(children));
	return element;
}

export const $ = (id) => document.getElementById(id);

const whole = new Intl.NumberFormat('en');
export const count = (number) => whole.format(number);
export const many = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;

export function bytes(number) {
	const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
	let at = 0;
	while (number >= 1024 && at < units.length - 1) { number /= 1024; at += 1; }
	return `${number >= 100 || at === 0 ? Math.round(number) : number.toFixed(1)} ${units[at]}`;
}
export function span(millis) {
	const size = Math.abs(millis);
	if (size < 1) return '0 ms';
	if (size < 1000) return `${Math.round(millis)} ms`;
	if (size < 10_000) return `${(millis / 1000).toFixed(1)} s`;
	if (size < 60_000) return `${Math.round(millis / 1000)} s`;
	if (size < 3_600_000) return `${Math.round(millis / 60_000)} min`;
	if (size < 172_800_000) return `${Math.round(millis / 3_600_000)} h`;
	return `${Math.round(millis / 86_400_000)} days`;
}

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });

/** A point in time: how long ago, or when; the whole of it in the title. */
export function when(text, { exact = false } = {}) {
	if (!text) return h('span.dim', null, '–');
	const at = new Date(text);
	const off = Date.now() - at.getTime();
	const today = at.toDateString() === new Date().toDateString();
	const plain = today ? clock.format(at) : `${day.format(at)}, ${clock.format(at).slice(0, 5)}`;
	const shown = exact ? `${plain}.${String(at.getMilliseconds()).padStart(3, '0')}` : off < -500 ? `in ${span(-off)}` : off < 1500 ? 'just now' : `${span(off)} ago`;
	return h('time', { datetime: text, title: `${at.toLocaleString()} (${text})` }, shown);
}

/** An id that leads to its trace; the middle of a long one is left out where there is little room. */
export function id(text, { short = false, link = true } = {}) {
	if (!text) return h('span.dim', null, '–');
	const shown = short && text.length > 18 ? `${text.slice(0, 8)}…${text.slice(-6)}` : text;
	return link ? h('a.mono', { href: `#/trace/${encodeURIComponent(text)}`, title: text }, shown) : h('span.mono', { title: text }, shown);
}

export function table(label, columns, rows, empty) {
	if (!rows.length) return h('p.empty', null, empty);
	const head = columns.map(([name, kind]) => h('th', { scope: 'col', class: kind }, name));
	const cell = (content, at) => h('td', { 'data-label': columns[at][0], class: columns[at][1] }, content ?? '');
	const body = rows.map((row) => h('tr', { class: row.kind }, (row.cells || row).map(cell)));
	return h('table', { 'aria-label': label }, h('thead', null, h('tr', null, head)), h('tbody', null, body));
}
export function keysOf(list, events, empty) {
	const seen = new Map();
	for (let at = events.length - 1; at >= 0 && seen.size < 12; at -= 1) {
		const key = events[at].key || events[at].correlation || events[at].id;
		if (key && !seen.has(key)) seen.set(key, events[at]);
	}
	const focused = list.contains(document.activeElement) ? document.activeElement.getAttribute('href') : null;
	put(list, seen.size ? [...seen].map(([key, event]) => h('li', null, id(key, { short: true }), h('span.mono', null, event.type.replace(/\.v1$/, '')), h('span.dim', null, when(event.at)))) : h('li.empty', null, empty));
	if (focused) [...list.querySelectorAll('a')].find((link) => link.getAttribute('href') === focused)?.focus();
}
export const failure = (error, again) => [h('p.wrong', { role: 'alert' }, error.message), h('div.buttons', null, h('button', { onclick: again }, 'Try again'))];

export const row = (name, value) => [h('dt', null, name), h('dd', null, value)];

export function section(title, extra, ...content) {
	return h('section', null, h('div.title', null, h('h2', null, title), extra), ...content);
}

/** Indents JSON without reading its numbers, so that it stays what it was digit for digit; anything else is left as it is. */
export function pretty(text) {
	try { JSON.parse(text); } catch { return text; }
	let out = '';
	let depth = 0;
	const line = () => `\n${'  '.repeat(depth)}`;
	for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g)) {
		if (token === '{' || token === '[') { depth += 1; out += token + line(); }
		else if (token === '}' || token === ']') { depth -= 1; out = out.trimEnd().endsWith(token === '}' ? '{' : '[') ? out.trimEnd() + token : out + line() + token; }
		else if (token === ',') out += token + line();
		else if (token === ':') out += ': ';
		else out += token;
	}
	return out;
}
export function copyable(label, text) {
	const button = h('button.small', { 'aria-label': `Copy: ${label}`, onclick: async () => {
		try {
			await navigator.clipboard.writeText(text);
			button.textContent = 'Copied';
		} catch {
			getSelection().selectAllChildren(code);
			button.textContent = 'Selected';
		}
		setTimeout(() => { button.textContent = 'Copy'; }, 1500);
	} }, 'Copy');
	const code = h('code', null, text);
	return h('div.copy', null, h('span.dim', null, label), code, button);
}

// Requests to the console, and the dialogs that act.

import { h, put, count, many, span } from './dom.js';

/** What the console has said of itself, and what passes; filled by main.js. */
export const told = new EventTarget();
export const now = { allowActions: false, demo: [], runbook: false, lanes: [], invariants: [], counts: {}, rate: 0, recent: [], online: false, offset: 0, verdict: null, judged: 0 };

export const tell = (name, detail) => told.dispatchEvent(new CustomEvent(name, { detail }));

async function answered(response) {
	if (response.ok) return response;
	const problem = await response.json().catch(() => ({}));
	const error = new Error(problem.detail || `the console answered ${response.status}`);
	error.status = response.status;
	throw error;
}

const away = (error) => { throw error.status ? error : new Error('the console does not answer'); };

export async function get(path) {
	const response = await fetch(path).catch(away);
	return (await answered(response)).json();
}

let asking = null;
async function send(path, body, again) {
	const headers = { 'Content-Type': 'application/json', 'X-Millstream': '1' };
	const response = await fetch(path, { method: 'POST', headers, body: JSON.stringify(body) }).catch(away);
	if (response.status !== 401) return answered(response);
	if (again) throw new Error('the browser does not keep the cookie of the login');
	asking ||= askKey().finally(() => { asking = null; });
	await asking;
	return send(path, body, true);
}

export const post = async (path, body) => (await send(path, body)).json();
export async function* steps(path, body) {
	const reader = (await send(path, body)).body.pipeThrough(new TextDecoderStream()).getReader();
	let rest = '';
	for (;;) {
		const { done, value } = await reader.read();
		if (done) return;
		const lines = (rest + value).split('\n');
		rest = lines.pop();
		for (const line of lines) yield JSON.parse(line);
	}
}

// The same as a command line; the only place that knows its syntax.
const quote = (text) => (/^[\w.:@/-]+$/.test(text) ? text : `'${String(text).replaceAll("'", "'\\''")}'`);
export const cli = {
	trace: (id) => `millstream trace ${quote(id)}`,
	test: (id) => `millstream trace ${quote(id)} --as-test`,
	show: (service, id) => `millstream dead show ${quote(`${service}/${id}`)}`,
	redrive: (filter) => `millstream dead redrive ${Object.entries(filter).map(([name, value]) => `--${name} ${quote(value)}`).join(' ')} --dry-run`,
};
export const curl = (path) => `curl -s ${quote(location.origin + path)}`;
const WHO = 'millstream-who';
const remembered = () => { try { return localStorage.getItem(WHO) || ''; } catch { return ''; } };
function whoAndWhy() {
	const who = h('input', { name: 'who', required: true, maxlength: 64, autocomplete: 'name', value: remembered() });
	const why = h('input', { name: 'why', required: true, maxlength: 500, autocomplete: 'off', placeholder: 'What was fixed, or why it does not matter' });
	const fields = h('div.fields', null, h('label', null, 'Your name', who), h('label', null, 'Reason, recorded in the audit log', why));
	const read = () => {
		try { localStorage.setItem(WHO, who.value.trim()); } catch { /* it is asked again, then */ }
		return { who: who.value.trim(), why: why.value.trim() };
	};
	return { fields, read, first: remembered() ? why : who };
}

/** A dialog that closes by Escape, and gives the focus back to where it came from. */
function dialog(title, ...content) {
	const from = document.activeElement;
	const box = h('dialog', { 'aria-label': title }, h('h2', null, title), ...content);
	box.addEventListener('close', () => {
		box.remove();
		// The element that opened it may have been removed.
		(from && from.isConnected ? from : document.getElementById('main')).focus();
	});
	document.body.append(box);
	box.showModal();
	return box;
}

/** Asks for the console's key, which a cookie then stands for that no script can read. */
function askKey() {
	return new Promise((resolve, reject) => {
		const key = h('input', { name: 'key', type: 'password', required: true, autocomplete: 'current-password' });
		const out = h('div', { role: 'status' });
		const form = h('form', { onsubmit: async (event) => {
			event.preventDefault();
			try {
				await post('/api/login', { key: key.value });
				resolve();
				box.close();
			} catch (error) { put(out, failed(error)); }
		} }, h('p', null, 'Actions need the key that the console was started with (CONSOLE_KEY).'), h('div.fields', null, h('label', null, 'Key', key)), out,
		h('div.buttons', null, h('button', { type: 'button', onclick: () => box.close() }, 'Cancel'), h('button.primary', { type: 'submit' }, 'Log in')));
		const box = dialog('Log in', form);
		box.addEventListener('close', () => reject(new Error('no action without the key')));
		key.focus();
	});
}

const failed = (error) => h('p.wrong', { role: 'alert' }, `Failed: ${error.message}.`);

/** Asks for a reason, then performs one action. `extra` are more fields; `act` gets name and reason and returns the result to show. */
export function confirm({ title, about, extra, button, danger, act, wide }) {
	const asked = whoAndWhy();
	const out = h('div', { role: 'status' });
	const go = h(danger ? 'button.danger' : 'button.primary', { type: 'submit' }, button);
	const close = h('button', { onclick: () => box.close() }, 'Cancel');
	const form = h('form', { onsubmit: async (event) => {
		event.preventDefault();
		go.disabled = true;
		put(out);
		try {
			const end = await act(asked.read());
			if (end === undefined) { box.close(); return; }
			put(form, end, h('div.buttons', null, h('button.primary', { autofocus: true, onclick: () => box.close() }, 'Close')));
			form.querySelector('.primary').focus();
		} catch (error) {
			put(out, failed(error));
			go.disabled = false;
		}
	} }, about && h('p', null, about), extra, asked.fields, out, h('div.buttons', null, close, go));
	const box = dialog(title, form);
	if (wide) box.classList.add('wide');
	((extra && extra.querySelector('[data-first]')) || asked.first).focus();
}

/** Asks for the reason for revealing personal values, then passes on the body that contains them. */
export const askReveal = (personal, what, then) => confirm({
	title: 'Reveal personal fields',
	about: `Fields: ${personal.join(', ')}. Revealing them is recorded in the audit log.`,
	button: 'Reveal',
	act: async (by) => { then((await post('/api/reveal', { ...what, ...by })).payload); },
});

const OUTCOMES = { done: 'done', wouldGo: 'eligible', held: 'held back', taken: 'changed by another operator', failed: 'could not be sent' };

const DRY_ENDS = { handled: 'would be handled', duplicate: 'handled already', retried: 'would fail and be retried', waits: 'would wait for a newer release', parked: 'would be parked again', unknown: 'could not be tried' };

/** What the services' handlers have done in a dry run, in numbers and for some of the dead letters. */
function dryRuns({ dryRuns: { ends, total, fates }, counts }) {
	const change = (each) => h('li', null, `${each.created ? 'creates' : 'changes'} ${each.collection}/${each.document}: ${each.fields.join(', ')}`,
		each.wake !== undefined && (each.wake ? `, sets its wake ${each.wake}` : ', removes its wake'));
	const row = ({ id, event, dryRun }) => h('details', null,
		h('summary', null, h('code', null, id.slice(0, 13)), ` ${event}: ${DRY_ENDS[dryRun.end] || dryRun.end}`),
		h('ul', null,
			dryRun.error && h('li', null, dryRun.error),
			(dryRun.changes || []).map(change),
			dryRun.changed > (dryRun.changes || []).length && h('li', null, `and ${count(dryRun.changed - dryRun.changes.length)} more`),
			(dryRun.events || []).length > 0 && h('li', null, `publishes ${dryRun.events.join(', ')}`)));
	return total > 0 && [
		Object.keys(ends).some((end) => end !== 'unknown') && h('p', null, `The services ran their handlers over the documents as they are now, and committed nothing${total < counts.wouldGo ? `, for the first ${count(total)}` : ''}:`),
		h('ul.counts', null, Object.entries(ends).map(([name, number]) => h('li', { class: name }, h('b', null, count(number)), ` ${DRY_ENDS[name] || name}`))),
		fates.map(row),
	];
}

function outcome(report) {
	const whys = new Map();
	for (const fate of report.fates) if (fate.why) whys.set(fate.why, (whys.get(fate.why) || 0) + 1);
	return [
		h('ul.counts', null, Object.entries(report.counts).map(([name, number]) => h('li', { class: name }, h('b', null, count(number)), ` ${OUTCOMES[name] || name}`))),
		whys.size > 0 && h('ul.whys', null, [...whys].slice(0, 8).map(([why, number]) => h('li', null, `${why} (${count(number)})`))),
	];
}

/** Redrives or discards dead letters: first what would happen, then progress, then what became of them. */
export function actOnMany(kind, filter, what) {
	const path = `/api/dead/${kind}`;
	const verb = kind === 'redrive' ? 'Redrive' : 'Discard';
	const asked = whoAndWhy();
	const dry = h('div.dry', { role: 'status' }, h('p.dim', null, 'Dry run…'));
	const force = h('input', { type: 'checkbox', name: 'force', onchange: () => look() });
	const forced = h('label.check', { hidden: true }, force, 'Include those that have failed again too often');
	const canary = h('input', { type: 'checkbox', name: 'canary' });
	const stepwise = kind === 'redrive' && h('label.check', null, canary, 'Canary: 1, 2, 5, 20, …; stop at the first that fails again');
	const go = h(kind === 'redrive' ? 'button.primary' : 'button.danger', { type: 'submit', disabled: true }, verb);
	const cancel = h('button', { onclick: () => box.close() }, 'Cancel');
	let acted = false;

	async function last(body, progress) {
		for await (const step of steps(path, body)) {
			if (step.error) throw new Error(step.error);
			if (step.report) return step.report;
			if (progress) progress(step.progress);
		}
		throw new Error('the response ended early');
	}

	let looks = 0;
	async function look() {
		const turn = ++looks;
		go.disabled = true;
		put(dry, h('p.dim', null, 'Dry run…'));
		try {
			const report = await last({ filter, dryRun: true, force: force.checked }, ({ total, dealtWith }) => {
				if (turn === looks) put(dry, h('p.dim', null, `Dry run… ${count(dealtWith)} of ${count(total)}`));
			});
			// The answer to an earlier choice is of no use any more.
			if (turn !== looks) return;
			const goes = report.counts.wouldGo || 0;
			put(dry, h('p', null, 'Dry run, nothing has been changed:'), outcome(report), dryRuns(report));
			if (!Object.keys(report.counts).length) put(dry, h('p', null, 'No dead letters left to act on.'));
			forced.hidden = kind !== 'redrive' || !(force.checked || report.counts.held);
			go.textContent = `${verb} ${count(goes)}`;
			go.disabled = goes === 0;
		} catch (error) {
			if (turn === looks) put(dry, failed(error));
		}
	}

	const form = h('form', { onsubmit: async (event) => {
		event.preventDefault();
		const by = asked.read();
		acted = true;
		const bar = h('progress', { 'aria-label': 'Progress' });
		const text = h('p', null, 'Started…');
		put(form, text, bar, h('p.dim', null, 'Continues if you close this dialog.'));
		const began = performance.now();
		try {
			const report = await last({ filter, dryRun: false, force: force.checked, canary: canary.checked, ...by }, (progress) => {
				bar.max = progress.total || 1;
				bar.value = progress.dealtWith;
				text.textContent = `${count(progress.dealtWith)} of ${many(progress.total, 'dead letter')}`;
			});
			const after = kind === 'redrive' ? 'Once its service has handled a message, the record becomes resolved.' : 'The records are kept for 30 days.';
			put(form, h('p', null, `Finished in ${span(performance.now() - began)}.`), outcome(report), h('p.dim', null, after));
		} catch (error) {
			put(form, failed(error), h('p.dim', null, 'Completed actions stay in effect; run again to continue with the rest.'));
		}
		const close = h('button.primary', { onclick: () => box.close() }, 'Close');
		form.append(h('div.buttons', null, close));
		close.focus();
	} }, dry, forced, stepwise, asked.fields, h('div.buttons', null, cancel, go));
	const box = dialog(`${verb} ${what}`, form);
	box.addEventListener('close', () => { if (acted) tell('acted'); });
	asked.first.focus();
	look();
}

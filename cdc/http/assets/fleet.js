'use strict';

// Everything that comes from an instance is put in as text, never as markup.

const PATIENCE = 5000; // milliseconds until a request is given up
const PAUSE = 1000;
const TONES = { failed: 'bad', no_file: 'bad', waiting: 'warn', unregistered: 'warn' };
const ORDER = ['bad', 'warn']; // then the others, and last those that other instances have

const number = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const known = format => value => (value === null || value === undefined ? '–' : format(value));
const count = known(value => number.format(value));
const seconds = known(value => `${value < 9.95 ? value.toFixed(1) : number.format(value)} s`);
const bytes = known(value => {
  let unit = 0;
  while (value >= 1024 && unit < 5) { value /= 1024; unit += 1; }
  return `${unit && value < 99.95 ? value.toFixed(1) : number.format(value)} ${['B', 'kB', 'MB', 'GB', 'TB', 'PB'][unit]}`;
});

const element = id => document.getElementById(id);
const put = (id, text) => { element(id).textContent = text; };
const make = (name, text, kind = '') => {
  const node = document.createElement(name);
  node.textContent = text;
  if (kind) node.className = kind;
  return node;
};

function rank(unit) {
  const at = ORDER.indexOf(TONES[unit.state]);
  return at >= 0 ? at : ORDER.length + (unit.state === 'elsewhere');
}

function row(name, unit) {
  const status = unit.status || { rate: {}, lag: {}, slot: {}, totals: {} };
  const line = document.createElement('tr');
  const head = make('th', name);
  head.scope = 'row';
  if (unit.summary) head.append(make('small', unit.summary, 'why'));
  line.append(head);
  const state = make('td', unit.state.replace('_', ' '));
  if (TONES[unit.state]) state.style.color = `var(--${TONES[unit.state]})`;
  line.append(state);
  line.append(make('td', count(status.rate.events_per_second), 'wide'), make('td', seconds(status.lag.seconds)));
  line.append(make('td', bytes(status.slot.retained_bytes), 'wide'), make('td', count(status.totals.delivered), 'wide'));
  return line;
}

function show(fleet) {
  put('fleet', fleet.fleet);
  put('instance', fleet.instance);
  put('version', `Version ${fleet.version}.`);
  element('hero').dataset.tone = fleet.ready ? (fleet.problems.length ? 'warn' : 'good') : 'bad';
  const state = fleet.ready ? 'ready' : 'not ready';
  const problems = fleet.problems.length;
  const found = problems ? `, ${problems} problem${problems > 1 ? 's' : ''}` : '';
  put('state', state);
  if (element('said').textContent !== `The instance is ${state}${found}.`) put('said', `The instance is ${state}${found}.`);
  document.title = `${state}${found} · fleet ${fleet.fleet} · cdc-publisher`;
  put('summary', fleet.summary);
  element('problems').hidden = fleet.problems.length === 0;
  element('problem-list').replaceChildren(...fleet.problems.map(problem => make('li', problem)));
  const units = Object.entries(fleet.units);
  units.sort(([a, one], [b, other]) => rank(one) - rank(other) || a.localeCompare(b));
  element('units').replaceChildren(...units.map(([name, unit]) => row(name, unit)));
}

let seen = ''; // when the data that is shown came

async function look() {
  let fresh = false;
  try {
    const answer = await fetch('status', { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE) });
    show(await answer.json());
    fresh = true;
    seen = new Date().toLocaleTimeString('en-GB');
  } catch (error) {
    put('updated', 'no answer');
    put('banner', `The instance does not answer.${seen && ` The data shown is from ${seen}.`}`);
    document.title = 'no answer · cdc-publisher';
  }
  element('banner').hidden = fresh;
  element('main').classList.toggle('stale', !fresh);
  element('live').classList.toggle('on', fresh);
  if (fresh) put('updated', seen);
  setTimeout(look, PAUSE);
}

look();

// What is open, and the steps that led there. Lists, items and prompts are replaced, never changed,
// so that any step can be taken back without asking again.

export const state = { model: null, pictures: [], picture: null, made: 0, hovered: null, pinned: null, draw() {} };

export class Steps {
  past = [];
  future = [];
  now = { items: [], active: null }; // the key of the one that points refine

  go(items, active) {
    this.past.push(this.now);
    this.future = [];
    this.now = { items, active };
  }

  back() {
    return this.move(this.past, this.future);
  }

  forth() {
    return this.move(this.future, this.past);
  }

  move(from, to) {
    if (!from.length) return false;
    to.push(this.now);
    this.now = from.pop();
    return true;
  }

  // Lets the drawings of what is steps away go: each has the size of the picture that is shown.
  release(most) {
    const kept = new Set([this.now, ...near(this.past, most), ...near(this.future, most)].flatMap(drawn));
    for (const prompt of [...this.past, ...this.future, this.now].flatMap(drawn)) {
      if (!kept.has(prompt)) prompt.mask = null;
    }
  }

  // As if a prompt, which failed, had never been.
  forget(prompt) {
    const without = ({ items, active }) => {
      const left = items.flatMap((item) => {
        if (item.prompt !== prompt) return [item];
        return prompt.before ? [{ ...item, prompt: prompt.before }] : [];
      });
      return { items: left, active: left.some((item) => item.key === active) ? active : last(left) };
    };
    this.now = without(this.now);
    this.past = this.past.map(without);
    this.past = this.past.filter((step, i) => !same(step, this.past[i + 1] ?? this.now));
    this.future = this.future.map(without);
    this.future = this.future.filter((step, i) => !same(step, this.future[i + 1] ?? this.now));
  }
}

const near = (steps, most) => (most ? steps.slice(-most) : []);
const drawn = ({ items }) => items.map(answered).filter(Boolean);

export const last = (items) => items.at(-1)?.key ?? null;

function same({ items: one }, { items: other }) {
  const alike = (a, b) => a.key === b.key && a.prompt === b.prompt && a.hidden === b.hidden;
  return one.length === other.length && one.every((item, i) => alike(item, other[i]));
}

// A prompt and what came of it. `before` is the answered one that it refines, shown until then.
export function prompted({ text = null, points = [], box = null }, before = null) {
  return { text, points, box, before, said: null, mask: null, maps: null, asking: null, stop: null };
}

export const items = () => state.picture?.steps.now.items ?? [];
export const active = () => items().find((item) => item.key === state.picture.steps.now.active) ?? null;
export const isEmpty = ({ text, points, box }) => text === null && !points.length && !box;
export const named = ({ key, prompt }) => prompt.text ?? `mask ${key}`;
// Whose answer is shown.
export const answered = ({ prompt }) => (isEmpty(prompt) ? null : prompt.said ? prompt : prompt.before);
// Where the model says that nothing is meant, its mask is shown only if one asks for it.
export const isHidden = (item) => item.hidden ?? Boolean(answered(item)?.said.nothing);
export const isSeen = (item) => Boolean(answered(item)) && !isHidden(item);

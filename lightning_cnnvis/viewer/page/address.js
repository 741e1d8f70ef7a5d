// The address holds what is seen: it can be sent to somebody, and Back works.

const KEYS = ["run", "page", "map", "epoch", "with", "at", "sort", "only", "beside"];
const NUMBERS = new Set(["map", "epoch", "at"]);

export function readAddress(hash = location.hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const state = {};
  for (const key of KEYS) {
    const value = given.get(key);
    if (value === null) continue;
    if (!NUMBERS.has(key)) state[key] = value;
    else if (/^\d{1,9}$/.test(value)) state[key] = Number(value);
  }
  return state;
}

export function addressOf(state) {
  const given = new URLSearchParams();
  for (const key of KEYS) if (state[key] !== undefined && state[key] !== null) given.set(key, state[key]);
  return `#${given}`;
}

// Goes to what is to be seen; `replace` leaves no trace for Back.
export function go(state, { replace = false } = {}) {
  const target = location.href.split("#")[0] + addressOf(state);
  if (target === location.href) return;
  if (replace) location.replace(target);
  else location.assign(target);
}

// The moment that a link leads to: which motions are shown and when, in the part of the address behind "#".

// { shown: numbers from 0, time: seconds } of "#show=1,4&t=2.5"; null where there is nothing usable.
export function readMoment(hash, count) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const shown = (given.get("show") ?? "")
    .split(",")
    .map((number) => Number.parseInt(number, 10) - 1)
    .filter((index) => index >= 0 && index < count);
  if (!shown.length) return null;
  const time = Number.parseFloat(given.get("t") ?? "0");
  return { shown: [...new Set(shown)], time: Number.isFinite(time) ? Math.max(0, time) : 0 };
}

export function writeMoment(shown, time) {
  const hash = `#show=${shown.map((index) => index + 1).join(",")}&t=${time.toFixed(2)}`;
  try {
    history.replaceState(null, "", hash);
  } catch {
    // a page inside a notebook has no address of its own
  }
}

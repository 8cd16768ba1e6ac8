// How figures, durations and instants are written for people.

const whole = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
const decimal = new Intl.NumberFormat("en-GB", { minimumFractionDigits: 1, maximumFractionDigits: 1 });

/** Write a count. */
export const count = (number) => whole.format(number);

/** Write a figure with one decimal place. */
export const tenths = (number) => decimal.format(number);

/** Write a share as per cent. */
export const percent = (share) => `${whole.format(share * 100)} %`;

/** Write a number and what it counts. */
export const counted = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** Write a size in bytes. */
export const bytes = (size) => (size >= 1e9 ? `${tenths(size / 1e9)} GB` : `${whole.format(size / 1e6)} MB`);

/** Write a duration in seconds, as exactly as anybody would say it. */
export function duration(seconds) {
  if (seconds < 10) return `${tenths(Math.max(0, seconds))} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 6_000) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3_600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

/** Write how long ago something was. */
export const ago = (seconds) => (seconds < 2 ? "just now" : `${duration(Math.round(seconds))} ago`.replace(".0", ""));

/** Write the time of day of an instant, in Unix milliseconds. */
export const clock = (instant) => new Date(instant).toLocaleTimeString("en-GB");

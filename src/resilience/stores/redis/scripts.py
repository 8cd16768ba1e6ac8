"""The Lua that Redis runs: constants, composed when this module is imported.

Rules:
    - A decision is one script: the server's clock is read once, every charge is looked at, and all of them
      are taken or nothing is written.
    - Each algorithm's arithmetic stands once, in its fragment. The scripts for one charge hold one fragment
      each, those for several hold all four.
    - Names and figures come in as KEYS and ARGV; nothing is ever formatted into a script.
    - Instants are whole microseconds, which fit the 53 bits of a Lua number until the year 2255. Python
      counts the same in nanoseconds: see `codec`.
    - A state lives until it is whole again, rounded up to a millisecond, by a PX that is counted from now:
      no key is immortal, wherever the clock jumps.
    - A state that lies further ahead than this clock could have put it was written before the clock was set
      back. It becomes the most that can count now: nobody waits longer than the window, and nothing is
      admitted too early. That is the only thing that a refusal ever writes.
    - What is not ours under our name is an error. It is read to a bounded length, and never replaced.

In a script a state is a string: '' for nothing, and else the form that `codec` reads. What is kept begins
with a byte that tells the algorithms apart, but for GCRA, whose decimal number Redis keeps in eight bytes.

Replies are one string: now in 7 bytes, then of each charge whether it fits, in 1 byte, the length of its
state in 2, and the state. What an admission replied is kept for a moment under its token: whoever asks again
with the same token, after a reply that was lost, is told the same, and nothing is charged twice.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final, NamedTuple


class Script(NamedTuple):
    """A script, and the name under which the server knows it."""

    source: bytes
    sha: bytes


TIME: Final = "redis.call('TIME')"
"""Seconds and microseconds, of the server; the tests put a clock of theirs in its place."""

_HEAD: Final = f"""
local pack, parse = struct.pack, struct.unpack
local time = {TIME}
local now = time[1] * 1000000 + time[2]

local function read(key, tag, most)
  local kept = redis.call('GETRANGE', key, 0, most)
  if kept == '' then return '' end
  if #kept > most or string.sub(kept, 1, #tag) ~= tag then error('FOREIGN data', 0) end
  return string.sub(kept, #tag + 1)
end

local function told(state, fits)
  return pack('>I1I2', fits and 1 or 0, #state) .. state
end
"""

_STORING: Final = """
local function put(key, kept, left)
  redis.call('SET', key, kept, 'PX', math.ceil(left / 1000))
end
local mend = put
"""

_ONLY_READING: Final = """
local function mend() end
"""


class _Algorithm(NamedTuple):
    """An algorithm's functions; `window` and `part` are figures whose meaning is its own.

    find(key, limit, window, part) returns the state; admit(state, limit, window, part, cost) the state after
    it and the time until it is whole, or nil; refund(…, cost, receipt) the same without the units, or ''.
    """

    find: str
    admit: str
    refund: str


# window: how far the state of an unused key lies back; part: the time in which a unit is earned.
_GCRA: Final = _Algorithm(
    find="""
local function kept(state)
  return string.format('%.0f', (parse('>i8', state)))
end
local function find(key, limit, window, part)
  local digits = read(key, '', 20)
  if digits == '' then return '' end
  if not string.find(digits, '^-?%d+$') then error('FOREIGN data', 0) end
  if tonumber(digits) <= now + part then return pack('>i8', tonumber(digits)) end
  local full = pack('>i8', now + part)
  mend(key, kept(full), window + part)
  return full
end
""",
    admit="""
local function admit(state, limit, window, part, cost)
  local from = now - window
  if state ~= '' then from = math.max(from, (parse('>i8', state))) end
  local after = from + cost * part
  if after - part > now then return nil end
  return pack('>i8', after), after + window - now
end
""",
    refund="""
local function refund(state, limit, window, part, cost, receipt)
  local taken = math.max(0, math.min(cost * part, receipt + window - now))
  local without = parse('>i8', state) - taken
  if without + window <= now then return '' end
  return pack('>i8', without), without + window - now
end
""",
)

# The instants at which units lapse, 7 bytes each.
_SLIDING_LOG: Final = _Algorithm(
    find=r"""
local function kept(state)
  return '\1' .. state
end
local function find(key, limit, window, part)
  local log = read(key, '\1', 7 * limit + 1)
  if #log % 7 ~= 0 then error('FOREIGN data', 0) end
  if log == '' or parse('>I7', log, #log - 6) <= now + window then return log end
  local mended = {}
  for at = 1, #log, 7 do
    mended[#mended + 1] = pack('>I7', math.min(parse('>I7', log, at), now + window))
  end
  log = table.concat(mended)
  mend(key, kept(log), window)
  return log
end
""",
    admit="""
local function admit(state, limit, window, part, cost)
  if cost > limit then return nil end
  local excess = #state / 7 + cost - limit
  if excess > 0 then
    if parse('>I7', state, 7 * excess - 6) > now then return nil end
    state = string.sub(state, 7 * excess + 1)
  end
  return state .. string.rep(pack('>I7', now + window), cost), window
end
""",
    refund="""
local function refund(state, limit, window, part, cost, receipt)
  local left, last = {}, now
  for at = 1, #state, 7 do
    local lapse = parse('>I7', state, at)
    if lapse == receipt and cost > 0 then
      cost = cost - 1
    else
      left[#left + 1] = pack('>I7', lapse)
      last = lapse
    end
  end
  if last <= now then return '' end
  return table.concat(left), last - now
end
""",
)

# The units in all, 4 bytes; then of each part when it lapses, 7 bytes, and its units, 4 bytes.
_SLIDING_COUNTS: Final = _Algorithm(
    find=r"""
local function kept(state)
  return '\2' .. state
end
local function find(key, limit, window, part)
  local counts = read(key, '\2', 11 * 64 + 5)
  if counts == '' then return '' end
  if #counts % 11 ~= 4 or #counts == 4 then error('FOREIGN data', 0) end
  local total, first = parse('>I4', counts), 5
  while first < #counts and parse('>I7', counts, first) <= now do
    total = total - parse('>I4', counts, first + 7)
    first = first + 11
  end
  if first > #counts then return '' end
  local most = (math.floor(now / part) + 1) * part + window
  if parse('>I7', counts, #counts - 10) > most then
    local parts, ahead = {}, 0
    for at = first, #counts, 11 do
      if parse('>I7', counts, at) < most then
        parts[#parts + 1] = string.sub(counts, at, at + 10)
      else
        ahead = ahead + parse('>I4', counts, at + 7)
      end
    end
    counts = pack('>I4', total) .. table.concat(parts) .. pack('>I7I4', most, ahead)
    mend(key, kept(counts), most - now)
    return counts
  end
  if first == 5 then return counts end
  return pack('>I4', total) .. string.sub(counts, first)
end
""",
    admit="""
local function admit(state, limit, window, part, cost)
  local total = state == '' and 0 or parse('>I4', state)
  if total + cost > limit then return nil end
  local lapse = (math.floor(now / part) + 1) * part + window
  local parts
  if state ~= '' and parse('>I7', state, #state - 10) == lapse then
    parts = string.sub(state, 5, -5) .. pack('>I4', parse('>I4', state, #state - 3) + cost)
  else
    parts = string.sub(state, 5) .. pack('>I7I4', lapse, cost)
  end
  return pack('>I4', total + cost) .. parts, lapse - now
end
""",
    refund="""
local function refund(state, limit, window, part, cost, receipt)
  local total, parts, last = parse('>I4', state), {}, now
  for at = 5, #state, 11 do
    local lapse, units = parse('>I7I4', state, at)
    if lapse == receipt then
      local back = math.min(cost, units)
      total, units = total - back, units - back
    end
    if units > 0 then
      parts[#parts + 1] = pack('>I7I4', lapse, units)
      last = lapse
    end
  end
  if last <= now then return '' end
  return pack('>I4', total) .. table.concat(parts), last - now
end
""",
)

# When the window ends, 7 bytes; the units taken in it, 4 bytes.
_FIXED_WINDOW: Final = _Algorithm(
    find=r"""
local function kept(state)
  return '\3' .. state
end
local function find(key, limit, window, part)
  local state = read(key, '\3', 12)
  if state == '' then return '' end
  if #state ~= 11 then error('FOREIGN data', 0) end
  local ends, taken = parse('>I7I4', state)
  if ends <= now + window then return state end
  state = pack('>I7I4', now + window, taken)
  mend(key, kept(state), window)
  return state
end
""",
    admit="""
local function admit(state, limit, window, part, cost)
  local ends, taken = now + window, 0
  if state ~= '' then
    local their_end, theirs = parse('>I7I4', state)
    if their_end > now then ends, taken = their_end, theirs end
  end
  if taken + cost > limit then return nil end
  return pack('>I7I4', ends, taken + cost), ends - now
end
""",
    refund="""
local function refund(state, limit, window, part, cost, receipt)
  local ends, taken = parse('>I7I4', state)
  if ends == receipt then taken = taken - math.min(cost, taken) end
  if taken == 0 or ends <= now then return '' end
  return pack('>I7I4', ends, taken), ends - now
end
""",
)

_ALGORITHMS: Final = {"g": _GCRA, "l": _SLIDING_LOG, "c": _SLIDING_COUNTS, "f": _FIXED_WINDOW}

_ASKED_BEFORE: Final = """
local done = redis.call('GET', KEYS[#KEYS])
if done then return done end
"""

_ONE_ASKED_BEFORE: Final = """
local done = KEYS[2] and redis.call('GET', KEYS[2])
if done then return done end
"""

_UNLESS_UNDONE: Final = """
if redis.call('DEL', KEYS[#KEYS]) == 0 then return '0' end
"""

_DONE: Final = """
redis.call('SET', KEYS[#KEYS], '1', 'PX', ARGV[1])
return '1'
"""

# ARGV: the token's milliseconds, the cost, limit, window, part
_TAKE_ONE: Final = """
local cost, limit, window, part = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local state = find(KEYS[1], limit, window, part)
local after, left = admit(state, limit, window, part, cost)
local reply = pack('>I7', now) .. told(after or state, after)
if after then
  put(KEYS[1], kept(after), left)
  if KEYS[2] then redis.call('SET', KEYS[2], reply, 'PX', ARGV[1]) end
end
return reply
"""

# The rest: of each key an algorithm and five figures, of which some scripts need fewer.
_EACH: Final = """
local function asked(at, first)
  local from = first + 6 * (at - 1)
  local numbers = {}
  for i = 1, 5 do numbers[i] = tonumber(ARGV[from + i]) end
  return rules[ARGV[from]], unpack(numbers)
end
"""

# ARGV: the token's milliseconds; then of each charge: algorithm, limit, window, part, cost, 0
_TAKE: Final = """
local found, all = {}, true
for at = 1, #KEYS - 1 do
  local rule, limit, window, part, cost = asked(at, 2)
  local state = rule.find(KEYS[at], limit, window, part)
  local after, left = rule.admit(state, limit, window, part, cost)
  found[at] = {state = state, after = after, left = left, kept = rule.kept}
  all = all and after
end
local reply = pack('>I7', now)
for at, each in ipairs(found) do
  reply = reply .. told(all and each.after or each.state, each.after)
  if all then put(KEYS[at], each.kept(each.after), each.left) end
end
if all then redis.call('SET', KEYS[#KEYS], reply, 'PX', ARGV[1]) end
return reply
"""

# ARGV: of each key: algorithm, limit, window, part, 0, 0
_PEEK: Final = """
local reply = pack('>I7', now)
for at = 1, #KEYS do
  local rule, limit, window, part = asked(at, 1)
  reply = reply .. told(rule.find(KEYS[at], limit, window, part), false)
end
return reply
"""

# ARGV: milliseconds; then of each charge: algorithm, limit, window, part, cost, receipt
_REFUND: Final = """
for at = 1, #KEYS - 1 do
  local rule, limit, window, part, cost, receipt = asked(at, 2)
  local state = rule.find(KEYS[at], limit, window, part)
  if state ~= '' then
    local without, left = rule.refund(state, limit, window, part, cost, receipt)
    if without == '' then
      redis.call('DEL', KEYS[at])
    else
      put(KEYS[at], rule.kept(without), left)
    end
  end
end
"""


def script(*parts: str) -> Script:
    """Return the script that is made of these parts."""
    source = "".join(parts).strip().encode()
    return Script(source, sha1(source, usedforsecurity=False).hexdigest().encode())


def _rules(*functions: str) -> str:
    """Return the fragments of all algorithms, with these functions of each in a table `rules`."""
    entries = "".join(f"{name} = {name}, " for name in (*functions, "kept"))
    return "local rules = {}\n" + "".join(
        f"do{''.join(getattr(algorithm, name) for name in functions)}rules.{letter} = {{{entries}}}\nend\n"
        for letter, algorithm in _ALGORITHMS.items()
    )


TAKE_ONE: Final = {
    letter: script(_ONE_ASKED_BEFORE, _HEAD, _STORING, algorithm.find, algorithm.admit, _TAKE_ONE)
    for letter, algorithm in _ALGORITHMS.items()
}
"""By algorithm. KEYS: the key, the token or nothing. ARGV: its milliseconds, cost, limit, window, part."""

TAKE: Final = script(_ASKED_BEFORE, _HEAD, _STORING, _rules("find", "admit"), _EACH, _TAKE)
"""KEYS: the keys, the token. ARGV: its milliseconds; each algorithm, limit, window, part, cost, 0."""

PEEK: Final = script(_HEAD, _ONLY_READING, _rules("find"), _EACH, _PEEK)
"""KEYS: the keys. ARGV: of each algorithm, limit, window, part, 0, 0."""

REFUND: Final = script(_ASKED_BEFORE, _HEAD, _STORING, _rules("find", "refund"), _EACH, _REFUND, _DONE)
"""KEYS: the keys, a token. ARGV: its milliseconds; each algorithm, limit, window, part, cost, receipt."""

UNDO: Final = script(_UNLESS_UNDONE, _HEAD, _STORING, _rules("find", "refund"), _EACH, _REFUND, "return '1'")
"""The same for what was taken with the token, which is forgotten: only once, and it can be taken anew."""

EVERY: Final = (*TAKE_ONE.values(), TAKE, PEEK, REFUND, UNDO)

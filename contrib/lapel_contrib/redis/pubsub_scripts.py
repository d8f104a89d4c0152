"""The scripts of pubsub.redis. Each has one key, the stream, so that it runs on a cluster too.

A message that is nobody's, because it was handed back, belongs to the consumer `HANDED_BACK` of its group and has
an idle time that makes sidecars take it as well.
"""

from __future__ import annotations

from .scripts import Script

__all__ = [
    "ACK",
    "ARM",
    "EXTEND",
    "FAR_MILLISECONDS",
    "HANDED_BACK",
    "HAND_BACK",
    "LAG",
    "PREFIX",
    "REAP",
    "RECLAIM",
    "TAKE",
]

PREFIX = "lapel-"
"""How the names of our consumers begin."""
HANDED_BACK = "lapel-handed-back"
FAR_MILLISECONDS = 86_400_000
"""The idle time of what was handed back."""

MUCH_BYTES = 1024 * 1024
"""With so much in it a reply gets no further messages."""

# What was trimmed cannot be claimed; it is acknowledged, or it would be pending for ever.
_CLAIM = f"""
local stream, group, me = KEYS[1], ARGV[1], ARGV[2]
local taken, size, much = {{}}, 0, {MUCH_BYTES}
local function claim(item)
  local entry = redis.call('XCLAIM', stream, group, me, 0, item[1])[1]
  if not entry then
    redis.call('XACK', stream, group, item[1])
    return
  end
  taken[#taken + 1] = {{item[1], item[4] + 1, entry[2]}}
  for _, text in ipairs(entry[2] or {{}}) do
    size = size + #text
  end
end
"""

_MINE = """
local stream, group, me = KEYS[1], ARGV[1], ARGV[2]
local function mine(id)
  return redis.call('XPENDING', stream, group, id, id, 1, me)[1]
end
"""

ARM = Script(
    "arm",
    """
local reply = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if reply.err and not string.find(reply.err, 'BUSYGROUP', 1, true) then
  return reply
end
return 1
""",
)
"""Create the group, from the beginning of the stream, and the stream. `group`."""

TAKE = Script(
    "take",
    _CLAIM
    + """
local free, count, idle, held = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local found = redis.call('XPENDING', stream, group, '-', '+', count, free)
if idle > 0 and #found < count then
  for _, item in ipairs(redis.call('XPENDING', stream, group, 'IDLE', idle, '-', '+', count + held)) do
    local own = item[2] == me
    if #found < count and item[2] ~= free and (not own or item[3] >= 2 * idle) then
      found[#found + 1] = item
    end
  end
end
for n, item in ipairs(found) do
  if size >= much then
    return {taken, #found + 1 - n}
  end
  claim(item)
end
return {taken, 0}
""",
)
"""Take what was handed back and, with an idle time, what is of the dead. `group me free count idle-ms held`.

Own messages that were not extended for twice as long are forgotten ones. Returns id, attempt and fields of each, and
how many were left because it was much already.
"""

RECLAIM = Script(
    "reclaim",
    _CLAIM
    + """
for i = 3, #ARGV do
  if size >= much then
    return {taken, #ARGV + 1 - i}
  end
  local item = redis.call('XPENDING', stream, group, ARGV[i], ARGV[i], 1, me)[1]
  if item then
    claim(item)
  end
end
return {taken, 0}
""",
)
"""Deliver own messages once more. `group me id...`; returns what `TAKE` does, those left being the last ones."""

EXTEND = Script(
    "extend",
    _MINE
    + """
local lost = {}
for i = 3, #ARGV do
  if mine(ARGV[i]) then
    redis.call('XCLAIM', stream, group, me, 0, ARGV[i], 'JUSTID')
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
""",
)
"""Reset the idle time of own messages, and nothing else. `group me id...`; returns those that are not its own."""

ACK = Script(
    "ack",
    _MINE
    + """
local late = 0
for i = 3, #ARGV do
  if mine(ARGV[i]) then
    redis.call('XACK', stream, group, ARGV[i])
  else
    late = late + 1
  end
end
return late
""",
)
"""Acknowledge own messages. `group me id...`; returns how many were not its own."""

HAND_BACK = Script(
    "hand-back",
    _MINE
    + """
local free, idle, leave = ARGV[3], ARGV[4], ARGV[5]
for i = 6, #ARGV do
  local item = mine(ARGV[i])
  if item then
    local count = math.max(item[4] - 1, 0)
    redis.call('XCLAIM', stream, group, free, 0, ARGV[i], 'IDLE', idle, 'RETRYCOUNT', count, 'JUSTID')
  end
end
if leave == '1' then
  local rest
  repeat
    rest = redis.call('XPENDING', stream, group, '-', '+', 100, me)
    for _, item in ipairs(rest) do
      if not redis.call('XCLAIM', stream, group, free, 0, item[1], 'IDLE', idle, 'JUSTID')[1] then
        redis.call('XACK', stream, group, item[1])
      end
    end
  until #rest < 100
  redis.call('XGROUP', 'DELCONSUMER', stream, group, me)
end
return 1
""",
)
"""Let others have own messages, uncounted. `group me free idle-ms leave id...`.

With `leave` 1 also all others of its own, counted, and delete the consumer, which then has none.
"""

REAP = Script(
    "reap",
    """
local reaped = 0
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for i = 1, #info, 2 do
    consumer[info[i]] = info[i + 1]
  end
  local ours = string.sub(consumer.name, 1, string.len(ARGV[3])) == ARGV[3]
  if ours and consumer.pending == 0 and consumer.idle >= tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
    reaped = reaped + 1
  end
end
return reaped
""",
)
"""Delete consumers that died and have nothing pending. `group idle-ms prefix`; returns how many."""

LAG = Script(
    "lag",
    """
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for i = 1, #info, 2 do
    group[info[i]] = info[i + 1]
  end
  if group.name == ARGV[1] then
    if not group.lag then
      return false
    end
    return group.lag + #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 10000, ARGV[2])
  end
end
return false
""",
)
"""Count what was not delivered, or handed back. `group free`; nil when the server does not know."""

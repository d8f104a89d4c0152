"""The Lua of state.redis. Each script is atomic; the layout is Dapr's.

A hash with the fields `data` and `version`, or a JSON document with these members. `version` is the etag: a creation
takes the server's clock in microseconds, later writes add one, so that an etag from before a deletion does not come
back. Dapr's field `first-write` is neither written nor obeyed.
"""

from __future__ import annotations

from .scripts import Script

__all__ = [
    "ABSENT",
    "ANY",
    "DELETE",
    "DIFFERS",
    "EXISTS",
    "FOREIGN",
    "LARGE_VALUE",
    "MISSING",
    "SET",
    "SET_JSON",
    "TRANSACTION",
    "get_script",
]

ANY = ""
ABSENT = "*"
"""As the etag expected: that there is no such key."""

MISSING, DIFFERS, EXISTS = -1, -2, -3
"""Instead of an etag: why the write was refused."""
LARGE_VALUE, FOREIGN = 1, 2
"""Instead of an item: it is too large for the shared connection; the key holds something else."""

_LARGE_BYTES = 64 * 1024
_MUCH_BYTES = 1024 * 1024

# PEXPIRETIME is of Redis 7.
_ENDS = "redis.call('PEXPIRETIME', k)"
_ENDS_BEFORE_7 = """(function()
    local left = redis.call('PTTL', k)
    if left < 0 then return left end
    local t = redis.call('TIME')
    return t[1] * 1000 + math.floor(t[2] / 1000) + left
  end)()"""

_GET = """
local r, sum = {}, 0
for i, k in ipairs(KEYS) do
  local v = redis.pcall('HMGET', k, 'data', 'version')
  if v.err then
    local kind = redis.call('TYPE', k).ok
    if kind == 'string' then
      v = {redis.call('GET', k), false}
    elseif kind == 'ReJSON-RL' then
      v = {redis.pcall('JSON.GET', k, '.data'), redis.pcall('JSON.GET', k, '.version'), true}
      if type(v[1]) == 'table' then v[1] = false end
      if type(v[2]) == 'table' then v[2] = false end
    else
      v = {false, false}
    end
  end
  if not v[1] then
    r[i] = redis.call('EXISTS', k) == 1 and 2
  elseif LIMIT then
    r[i] = 1
  else
    sum = sum + #v[1]
    r[i] = {v[1], v[2], ENDS, v[3]}
  end
end
return r
"""

_STATE = """
local clock
local function seed(extra)
  if not clock then
    local t = redis.call('TIME')
    clock = t[1] * 1000000 + t[2]
  end
  return string.format('%.0f', clock + extra)
end
local function after(version, extra)
  local n = version and tonumber(version)
  if n and n < 9007199254740991 then return string.format('%.0f', n + 1) end
  return seed(extra)
end
-- What a key holds: nothing (false), 'hash', 'json' or 'other', and its version.
local function look(k)
  local v = redis.pcall('HGET', k, 'version')
  if type(v) ~= 'table' then
    return (v or redis.call('EXISTS', k) == 1) and 'hash', v
  end
  if redis.call('TYPE', k).ok ~= 'ReJSON-RL' then return 'other', false end
  v = redis.pcall('JSON.GET', k, '.version')
  return 'json', type(v) ~= 'table' and v
end
local function refusal(expected, kind, version)
  if expected == '' then return nil end
  if expected == '*' then return kind and -3 end
  if not kind then return -1 end
  return version ~= expected and -2 or nil
end
local function lifetime(k, ttl, fresh)
  if ttl ~= '' then redis.call('EXPIRE', k, ttl) elseif not fresh then redis.call('PERSIST', k) end
end
local function document(value, version)
  return '{"data":' .. value .. ',"version":' .. version .. '}'
end
"""

_SET = (
    _STATE
    + """
local r = {}
for i, k in ipairs(KEYS) do
  local value, expected, ttl = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
  local kind, v, refused
  if expected == '' then
    v = redis.pcall('HGET', k, 'version')
    kind = 'hash'
    if type(v) == 'table' then kind, v = look(k) end
  else
    kind, v = look(k)
    refused = refusal(expected, kind, v)
  end
  if refused then
    r[i] = refused
  else
    local fresh = kind and kind ~= 'hash'
    if fresh then redis.call('DEL', k) end
    local n = after(v, 0)
    redis.call('HSET', k, 'data', value, 'version', n)
    lifetime(k, ttl, fresh)
    r[i] = n
  end
end
return r
"""
)

_SET_JSON = (
    _STATE
    + """
local r = {}
for i, k in ipairs(KEYS) do
  local value, expected, ttl = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
  local kind, v = look(k)
  local refused = refusal(expected, kind, v)
  if refused then
    r[i] = refused
  else
    local n = after(v, 0)
    if kind and kind ~= 'json' then redis.call('DEL', k) end
    local done = redis.pcall('JSON.SET', k, '.', document(value, n))
    if done.err then
      r[i] = done
    else
      lifetime(k, ttl, false)
      r[i] = n
    end
  end
end
return r
"""
)

_DELETE = (
    _STATE
    + """
local r = {}
for i, k in ipairs(KEYS) do
  local expected = ARGV[i]
  local refused
  if expected ~= '' then
    local kind, v = look(k)
    refused = refusal(expected, kind, v)
  end
  if refused then
    r[i] = refused
  else
    redis.call('DEL', k)
    r[i] = 0
  end
end
return r
"""
)

# Every operation is checked against what the ones before it would leave; only then is anything changed.
_TRANSACTION = (
    _STATE
    + """
local kinds, versions, plan = {}, {}, {0}
for i, k in ipairs(KEYS) do
  local op, expected = ARGV[4 * i - 3], ARGV[4 * i - 1]
  if kinds[k] == nil then kinds[k], versions[k] = look(k) end
  local refused = refusal(expected, kinds[k], versions[k])
  if refused then return {i, refused} end
  if op == 'D' then
    kinds[k], versions[k] = false, false
    plan[i + 1] = false
  else
    versions[k] = after(versions[k], i)
    kinds[k] = op == 'J' and 'json' or 'hash'
    plan[i + 1] = versions[k]
  end
end
for i, k in ipairs(KEYS) do
  local op, value, ttl = ARGV[4 * i - 3], ARGV[4 * i - 2], ARGV[4 * i]
  if op == 'D' then
    redis.call('DEL', k)
  else
    local kind = redis.call('TYPE', k).ok
    if kind ~= 'none' and kind ~= (op == 'J' and 'ReJSON-RL' or 'hash') then redis.call('DEL', k) end
    if op == 'J' then
      redis.call('JSON.SET', k, '.', document(value, plan[i + 1]))
    else
      redis.call('HSET', k, 'data', value, 'version', plan[i + 1])
    end
    lifetime(k, ttl, false)
  end
end
return plan
"""
)


def get_script(*, expire_time: bool, limit: bool) -> Script:
    """Return the script that reads keys.

    The reply of a key is nil, a number from above, or a list: data, version, end of life in milliseconds (-1: none),
    and 1 for a document. `expire_time`: the server has PEXPIRETIME. `limit`: return no large values, nor much at once.
    """
    source = _GET.replace("ENDS", _ENDS if expire_time else _ENDS_BEFORE_7)
    source = source.replace("LIMIT", f"#v[1] > {_LARGE_BYTES} or sum > {_MUCH_BYTES}" if limit else "false")
    return Script("get", source, stride=0)


SET = Script("set", _SET, stride=3)
SET_JSON = Script("set JSON", _SET_JSON, stride=3)
DELETE = Script("delete", _DELETE, stride=1)
TRANSACTION = Script("transaction", _TRANSACTION)

"""What runs inside Redis, where comparing and storing are one step."""

from __future__ import annotations

#: Store each value whose 32 version bytes (offset 2) are above those stored under its key. The halves are read as
#: 32-bit numbers: Lua compares strings by the server's locale, and its doubles end at 2**53. Whatever is not a row of
#: ours (too short, another format, another Redis type) is overwritten, and so is another value of the same version: one
#: version is one row, so the stored bytes are damaged. A key comes once in a call. Answers how many values were stored.
UPSERT = """
local rows = redis.call('MGET', unpack(KEYS))
local newer = {}
for i, old in ipairs(rows) do
  local new, wins = ARGV[i], true
  if old and #old >= 34 and string.byte(old) == 1 then
    local n = {struct.unpack('>I4I4I4I4I4I4I4I4', new, 3)}
    local o = {struct.unpack('>I4I4I4I4I4I4I4I4', old, 3)}
    wins = new ~= old
    for half = 1, 8 do
      if n[half] ~= o[half] then wins = n[half] > o[half]; break end
    end
  end
  if wins then
    newer[#newer + 1] = KEYS[i]
    newer[#newer + 1] = new
  end
end
if #newer > 0 then redis.call('MSET', unpack(newer)) end
return #newer / 2
"""

#: UPSERT as one step of a filling (filling.py): the last key counts its steps, the last argument is the number of this
#: one. A count that does not follow shows that Redis has lost a step before: -1, and nothing is stored.
STEP = (
    """
local counter, number = table.remove(KEYS), tonumber(table.remove(ARGV))
if redis.call('INCR', counter) ~= number then return -1 end
redis.call('EXPIRE', counter, 3600)
"""
    + UPSERT
)

#: End a filling: KEYS are the group's position and the filling's counter, ARGV the steps that were made, the position
#: that they began after, the one that they reach, and the one that stood there when they began. Only a store that
#: holds every step, and what stood before them, gets the new position. A higher one of somebody else is left alone; the
#: one seen at the beginning is replaced also when it is higher, since the table had been set back then. Answers 1 when
#: all that is up to the position is in the store, else 0.
REACH = """
local steps, after, reached, found = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local made = tonumber(redis.call('GET', KEYS[2]) or '0')
redis.call('DEL', KEYS[2])
local position = tonumber(redis.call('MGET', KEYS[1])[1] or '') or -1
if made ~= steps or position < after then return 0 end
if position < reached or position == found then redis.call('SET', KEYS[1], ARGV[3]) end
return 1
"""

#: Delete a key whose value is the one given; '' is that of a key which holds another Redis type. Answers how many went.
REMOVE = """
local value = redis.call('MGET', KEYS[1])[1] or ''
if value == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

#: Raise the catalog version of a store that holds this epoch; a cold store, or a later version, is left alone.
PUBLISH = """
local read = redis.call('GET', KEYS[1])
if not read then return 0 end
local version, epoch = string.match(read, '^(%d+):(.*)$')
if epoch ~= ARGV[2] or tonumber(version) >= tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2])
return 1
"""

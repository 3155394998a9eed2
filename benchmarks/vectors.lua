-- The requests of wrk: entities at random out of those that were loaded, a new choice in each.
-- wrk -s vectors.lua URL -- ENTITIES_A_REQUEST ENTITIES HEAD TAIL [AUTHORIZATION]    (a body is HEAD, the ids, TAIL)
-- With an empty HEAD it is a GET, the id the end of the path, TAIL the query.

local count, space, head, tail

function init(args)
  count, space, head, tail = tonumber(args[1]), tonumber(args[2]), args[3], args[4]
  math.randomseed(tonumber(tostring({}):match("0x(%x+)"), 16) % 2147483647)
  wrk.headers["Content-Type"] = "application/json"
  if args[5] then wrk.headers["Authorization"] = args[5] end
end

function request()
  if head == "" then return wrk.format("GET", wrk.path .. math.random(0, space - 1) .. tail) end
  local ids = {}
  for place = 1, count do ids[place] = math.random(0, space - 1) end
  return wrk.format("POST", nil, nil, head .. table.concat(ids, ",") .. tail)
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('{"requests_per_second": %.1f, "p50_ms": %.3f, "p99_ms": %.3f, "errors": %d}\n',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end

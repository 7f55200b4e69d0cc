-- Sends recorded requests one after another and prints what it measured as one JSON line.
--
-- The argument names a file of records, each eight hexadecimal digits of length and then
-- the whole HTTP request. All are read before the load starts, so that a request costs the
-- generator no more than picking the next one.

local requests = {}
local last = 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  while true do
    local length = file:read(8)
    if not length then break end
    requests[#requests + 1] = file:read(tonumber(length, 16))
  end
  file:close()
  assert(#requests > 0, "no requests in " .. args[1])
end

function request()
  last = last % #requests + 1
  return requests[last]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"seconds":%.6f,"p50_ms":%.3f,"p99_ms":%.3f,"max_ms":%.3f,' ..
    '"failures":{"refused":%d,"broken":%d,"late":%d,"error status":%d}}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    errors.connect, errors.read + errors.write, errors.timeout, errors.status))
end

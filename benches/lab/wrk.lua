-- The requests of wrk: `wrk ... -s wrk.lua URL -- KIND FILE-OF-KEYS`. They are built once, one a key, taken in turn.
-- The kind `flood` asks with a new random key each time, at about RATE requests a second over its connections:
-- `-- flood RATE CONNECTIONS`.
local kinds = {
  get   = { "GET",  "/api/v1/apps" },
  post  = { "POST", "/api/v1/call-tokens", 1024, 512 },
  large = { "POST", "/api/v1/sessions/token", 1024 * 1024, 16 },  -- each of these keys costs a MiB of wrk's memory
  big   = { "GET",  "/api/v1/call-tokens/big" },
  close = { "GET",  "/api/v1/apps" },  -- a connection each
}
local requests, taken = {}, 0
local flood, pause = false, 0

function init(args)
  if args[1] == "flood" then
    flood, pause = true, 1000 * tonumber(args[3]) / tonumber(args[2])
    math.randomseed(os.time())
    return
  end
  local method, path, size, most = unpack(kinds[args[1]])
  local body = size and string.rep("x", size) or nil
  for key in io.lines(args[2]) do
    if most and #requests == most then break end
    local fields = { ["Authorization"] = "Bearer " .. key, ["User-Agent"] = "bench", ["Accept"] = "*/*" }
    if body then fields["Content-Type"] = "application/octet-stream" end
    if args[1] == "close" then fields["Connection"] = "close" end
    requests[#requests + 1] = wrk.format(method, path, fields, body)
  end
end

function request()
  if flood then
    local key = string.format("sk_%08x%08x%08x%08x%08x", math.random(0, 2^31 - 1), math.random(0, 2^31 - 1),
      math.random(0, 2^31 - 1), math.random(0, 2^31 - 1), math.random(0, 2^31 - 1))
    return wrk.format("GET", "/api/v1/apps", { ["Authorization"] = "Bearer " .. key })
  end
  taken = taken % #requests + 1
  return requests[taken]
end

-- Between nothing and twice the mean, so that the connections of a flood do not ask in step.
function delay()
  return flood and math.random(0, math.floor(2 * pause)) or 0
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format("RESULT requests=%d us=%d broken=%d refused=%d p50_us=%.0f p99_us=%.0f\n",
    summary.requests, summary.duration, errors.connect + errors.read + errors.write + errors.timeout, errors.status,
    latency:percentile(50), latency:percentile(99)))
end

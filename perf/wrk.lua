-- What wrk sends (the first argument behind "--"), and its figures as one line of JSON.
--   plain             GET
--   upload SIZE       POST of that many bytes
--   headers           8 headers of a browser, always the same
--   vary              the same, three of them different in every request

local browser = {
  ["user-agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
  ["accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
  ["accept-language"] = "en-GB,en;q=0.5",
  ["accept-encoding"] = "gzip, deflate, br, zstd",
  ["cookie"] = "session=0123456789abcdef0123456789abcdef; theme=dark",
  ["x-request-id"] = "00000000-0000-4000-8000-000000000000",
  ["traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}

function init(args)
  local what = args[1] or "plain"
  if what == "upload" then
    wrk.method = "POST"
    wrk.body = string.rep("x", tonumber(args[2]))
  elseif what == "headers" then
    for name, value in pairs(browser) do wrk.headers[name] = value end
  elseif what == "vary" then
    for name, value in pairs(browser) do wrk.headers[name] = value end
    local count = 0
    function request()
      count = count + 1
      wrk.headers["cookie"] = string.format("session=%032x; theme=dark", count)
      wrk.headers["x-request-id"] = string.format("00000000-0000-4000-8000-%012x", count)
      wrk.headers["traceparent"] = string.format("00-%032x-b7ad6b7169203331-01", count)
      return wrk.format()
    end
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "failed": %d, "p50": %d, "p90": %d, "p99": %d, "p99.9": %d}\n',
    summary.requests, summary.duration / 1e6,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9)))
end

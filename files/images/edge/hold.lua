-- Copyright (c) 2026, bitnet.devops contributors
-- GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
--
-- http-request lua.hold SECONDS    lets a request wait as long as the map says `hold 1`, SECONDS at most
-- http-request lua.find SECONDS    lets it wait for the first replica of the slot in txn.slot, in a worker younger than SECONDS
--
-- The map is the one of the configuration, in memory: what the runtime socket sets is seen here at the next look. When its
-- client goes away HAProxy ends a wait in the middle: then txn.waiting is still set, and the request must not go on.
local routing = Map.new("/run/bitnet-edge/routing.map", Map._str)
local began = os.time()
local look_ms = 20

local function wait_while(txn, condition)
    while condition() do
        txn:set_var("txn.waiting", true)
        core.msleep(look_ms)
    end
    txn:unset_var("txn.waiting")
end

core.register_action("hold", {"http-req"}, function(txn, seconds)
    local last = nil
    wait_while(txn, function()
        local now = core.now()
        now = now.sec + now.usec / 1000000
        last = last or now + tonumber(seconds)
        return now < last and routing:lookup("hold") == "1"
    end)
end, 1)

-- A worker that has just begun, after a reload too, knows no replica until Docker's resolver has answered it.
core.register_action("find", {"http-req"}, function(txn, seconds)
    local slot = txn:get_var("txn.slot")
    wait_while(txn, function()
        return txn.f:nbsrv(slot) == 0 and core.now().sec < began + tonumber(seconds)
    end)
end, 1)

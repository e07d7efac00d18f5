-- The Lua API of dynamic-upstream-module, so that scripts that were written for it run unchanged; and what ZigzagAK's
-- later version of it has besides. docs/lua.md has each function. New scripts had better use ngx.upstream_control.
--
-- Each function returns three values: ok, data, err. A failure is false, nil and its words.

local abi = require "ngx.upstream_control.ffi"

local select, tonumber, type = select, tonumber, type
local text, name_of, bad_argument = abi.text, abi.name, abi.bad_argument

local new_tab

do
    local ok, fn = pcall(require, "table.new")
    new_tab = ok and fn or function() return {} end
end

local _M = {}

-- Failures that the first API has no word for, but which no script of its time can meet.
local PRECISE = { BadParameter = true, NotStarted = true }

-- The words of the first API.
local function first(words, code)
    if code == "UpstreamNotFound" or code == "UpstreamStatic" then
        return false, nil, "Upstream not found"
    end
    return false, nil, PRECISE[code] and words or "Internal server error"
end

-- The words of the later one.
local function later(words, code)
    if code == "UpstreamNotFound" then
        return false, nil, "upstream not found"
    end
    return false, nil, code == "ServerNotFound" and "server or peer is not found" or words
end

function _M.get_upstreams(...)
    if select("#", ...) ~= 0 then
        return false, nil, "no argument expected"
    end

    local rows, count, code = abi.upstreams()
    if not rows then
        return first(count, code)
    end

    local names, n = new_tab(count, 0), 0
    for i = 0, count - 1 do
        local row = rows[i]
        -- Those that get_peers can read: also what cannot be changed, but not what has no servers that are known.
        if row.method.len ~= 0 then
            n = n + 1
            names[n] = text(row.name)
        end
    end

    return true, names, nil
end

-- A function that lists servers of an upstream: what `entry` makes of each, if it makes anything of it. An upstream
-- whose servers cannot be read is none.
local function listing(fn, words, entry)
    return function(...)
        if select("#", ...) ~= 1 then
            return false, nil, "exactly one argument expected"
        end

        local upstream = name_of((...))
        if not upstream then
            return false, nil, bad_argument(1, fn, "string", (...))
        end

        local head, rows, count = abi.peers(upstream)
        if not head then
            return words(rows, count)
        end
        if head.method.len == 0 then
            return words(nil, "UpstreamNotFound")
        end

        local all, n = new_tab(count, 0), 0
        for i = 0, count - 1 do
            local one = entry(rows[i])
            if one then
                n = n + 1
                all[n] = one
            end
        end

        return true, all, nil
    end
end

_M.get_servers = listing("get_servers", first, function(row)
    local server = {
        name = text(row.name),
        weight = row.weight,
        max_fails = row.max_fails,
        fail_timeout = row.fail_timeout,
    }
    -- Scripts test whether the key is there.
    if row.down ~= 0 then
        server.down = true
    end
    return server
end)

-- A change of one server, in the words of one of the two APIs.
local function change(words, fn, upstream, peer, ...)
    local name, server = name_of(upstream), name_of(peer)
    if not name then
        return false, nil, bad_argument(1, fn, "string", upstream)
    end
    if not server then
        return false, nil, bad_argument(2, fn, "string", peer)
    end

    local done, err, code = abi.change(name, server, ...)
    if not done then
        return words(err, code)
    end

    return true, nil, nil
end

-- A function of an upstream and a server, which does the same to each.
local function verb(fn, words, action, state, flags)
    return function(...)
        if select("#", ...) ~= 2 then
            return false, nil, "exactly 2 arguments expected"
        end
        local upstream, peer = ...
        return change(words, fn, upstream, peer, action, state, flags)
    end
end

_M.set_peer_down = verb("set_peer_down", first, abi.SET, abi.DOWN, 0)
_M.set_peer_up = verb("set_peer_up", first, abi.SET, abi.UP, 0)
_M.add_peer = verb("add_peer", first, abi.ADD, 0, 0)
_M.remove_peer = verb("remove_peer", first, abi.REMOVE, 0, abi.KEEP_ONE)

-- What `down` of update_peer means.
local DOWN = { [0] = abi.UP, [1] = abi.DOWN, [false] = abi.UP, [true] = abi.DOWN }

function _M.update_peer(...)
    if select("#", ...) ~= 3 then
        return false, nil, "exactly 3 arguments expected"
    end

    local upstream, peer, params = ...
    if type(params) ~= "table" then
        return false, nil, bad_argument(3, "update_peer", "table", params)
    end

    local state, down = 0, params.down
    if down ~= nil then
        state = DOWN[tonumber(down) or down]
        if not state then
            return false, nil, "down: must be 0 or 1"
        end
    end

    return change(first, "update_peer", upstream, peer, abi.SET, state, 0, params)
end

-- Here the later API begins.

_M.add_primary_peer = verb("add_primary_peer", later, abi.ADD, 0, 0)
_M.add_backup_peer = verb("add_backup_peer", later, abi.ADD, 0, abi.BACKUP)

local function peer_of(row)
    return {
        server = text(row.server),
        name = text(row.name),
        weight = row.weight,
        max_conns = row.max_conns,
        conns = row.active,
        max_fails = row.max_fails,
        fail_timeout = row.fail_timeout,
        backup = row.backup ~= 0,
        down = row.down ~= 0 or nil,
    }
end

_M.get_peers = listing("get_peers", later, peer_of)

_M.get_primary_peers = listing("get_primary_peers", later, function(row)
    return row.backup == 0 and peer_of(row)
end)

_M.get_backup_peers = listing("get_backup_peers", later, function(row)
    return row.backup ~= 0 and peer_of(row)
end)

function _M.current_upstream(...)
    if select("#", ...) ~= 0 then
        return false, nil, "no argument expected"
    end

    local name, err = abi.current_upstream()
    if not name then
        return false, nil, err
    end

    return true, name, nil
end

return _M

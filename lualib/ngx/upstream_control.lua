-- The module's own API for Lua: everything that can be asked or told about the servers of an upstream. docs/lua.md has
-- each function.
--
-- A failure is nil, the words for people, and a code for programs. Bad arguments are failures, too: nothing raises an
-- error, and nothing is changed by half.

local abi = require "ngx.upstream_control.ffi"

local ipairs, pairs, tostring, type = ipairs, pairs, tostring, type
local text = abi.text

local _M = {}

local function bad(words)
    return nil, words, "BadArgument"
end

-- A text of the reply; nil for an empty one.
local function text_or_nil(part)
    return part.len > 0 and text(part) or nil
end

local function upstream_of(row)
    return {
        name = text(row.name),
        zone = text_or_nil(row.zone),
        method = text_or_nil(row.method),
        revision = row.revision,
        static = text_or_nil(row.fixed),
    }
end

-- By the numbers of src/handlers/lua/rows.rs.
local STATES = { [0] = "up", "down", "draining", "unavail" }
local REASONS = { "configuration", "operator", "failures", "retry" }

local function server_of(row)
    local by = REASONS[row.reason]
    local is_asked = by == "operator"

    return {
        id = row.id >= 0 and row.id or nil,
        server = text(row.server),
        name = text(row.name),
        backup = row.backup ~= 0,
        weight = row.weight,
        max_conns = row.max_conns,
        max_fails = row.max_fails,
        fail_timeout = row.fail_timeout,
        state = STATES[row.state],
        down = row.down ~= 0,
        active = row.active,
        fails = row.fails,
        last_failure = row.last_failure >= 0 and row.last_failure or nil,
        reason = by and {
            by = by,
            at = is_asked and row.at or nil,
            client = is_asked and text(row.client) or nil,
            user = is_asked and text_or_nil(row.user) or nil,
            note = is_asked and text_or_nil(row.note) or nil,
        } or nil,
    }
end

function _M.upstreams()
    local rows, count, code = abi.upstreams()
    if not rows then
        return nil, count, code
    end

    local all = {}
    for i = 0, count - 1 do
        all[i + 1] = upstream_of(rows[i])
    end
    return all
end

function _M.status(name)
    if type(name) ~= "string" then
        return bad(abi.bad_argument(1, "status", "string", name))
    end

    local head, rows, count = abi.peers(name)
    if not head then
        return nil, rows, count
    end

    local status = upstream_of(head)
    status.servers = {}
    for i = 0, count - 1 do
        status.servers[i + 1] = server_of(rows[i])
    end
    return status
end

function _M.revision(name)
    if type(name) ~= "string" then
        return bad(abi.bad_argument(1, "revision", "string", name))
    end

    local all, err, code = _M.upstreams()
    if not all then
        return nil, err, code
    end
    for _, upstream in ipairs(all) do
        if upstream.name:lower() == name:lower() then
            return upstream.revision
        end
    end

    -- Only the module knows how to refuse the name of a zone that several upstreams have.
    local head, words
    head, words, code = abi.peers(name)
    if not head then
        return nil, words, code
    end
    return head.revision
end

local CHANGE_KEYS = { state = true }
local ADD_KEYS = { state = true, backup = true }
for name in pairs(abi.PARAMS) do
    CHANGE_KEYS[name], ADD_KEYS[name] = true, true
end
local OPTION_KEYS = { note = true, force = true }

local ADMIN = { up = abi.UP, down = abi.DOWN, drain = abi.DRAIN }

-- What is wrong with a table of arguments; nil if nothing is. A key that is misspelt must not be taken for one that is
-- not there.
local function wrong_keys(place, fn, given, known)
    if given == nil then
        return nil
    end
    if type(given) ~= "table" then
        return abi.bad_argument(place, fn, "table", given)
    end
    for key in pairs(given) do
        if not known[key] then
            return ("unknown key \"%s\""):format(tostring(key))
        end
    end
end

-- Whether a value chooses a server: by its text, or by its id.
local function is_server(value)
    return type(value) == "string" or (type(value) == "number" and value >= 0 and value % 1 == 0 and value < 2 ^ 53)
end

-- Servers as the module takes them: a text or an array; or nil and what is wrong.
local function servers_of(fn, servers)
    if type(servers) == "string" then
        return servers
    end
    local list = type(servers) == "table" and servers or { servers }
    local count = 0
    for at, server in pairs(list) do
        if not is_server(server) then
            return nil, ("server %s of '%s' is neither a text nor an id"):format(tostring(at), fn)
        end
        count = count + 1
    end
    -- A list with a hole would end there.
    if count ~= #list then
        return nil, ("servers of '%s' are not an array"):format(fn)
    end
    if #list == 0 then
        return nil, "no server is named"
    end
    return list
end

-- A change. `what` may have the keys of `known`, `options` those of OPTION_KEYS; the latter are the argument in this
-- place.
local function change(fn, name, servers, action, what, known, options, place, address)
    if type(name) ~= "string" then
        return bad(abi.bad_argument(1, fn, "string", name))
    end
    local list, wrong = servers_of(fn, servers)
    wrong = wrong or wrong_keys(3, fn, what, known) or wrong_keys(place, fn, options, OPTION_KEYS)
    if wrong then
        return bad(wrong)
    end
    what, options = what or {}, options or {}
    if options.note ~= nil and type(options.note) ~= "string" then
        return bad("note: not a string")
    end
    local state = what.state == nil and 0 or ADMIN[what.state]
    if not state then
        return bad("state: must be \"up\", \"down\" or \"drain\"")
    end

    local flags = (what.backup and abi.BACKUP or 0) + (options.force and abi.FORCE or 0)
    local done, err, code = abi.change(name, list, action, state, flags, what, address, options.note)
    if not done then
        return nil, err, code
    end

    return {
        revision = done.revision,
        changed = done.changed,
        servers = done.left,
        id = done.id >= 0 and done.id or nil,
    }
end

function _M.set(name, servers, what, options)
    if type(what) ~= "table" then
        return bad(abi.bad_argument(3, "set", "table", what))
    end
    return change("set", name, servers, abi.SET, what, CHANGE_KEYS, options, 4)
end

for fn in pairs(ADMIN) do
    local what = { state = fn }
    _M[fn] = function(name, servers, options)
        return change(fn, name, servers, abi.SET, what, CHANGE_KEYS, options, 3)
    end
end

function _M.add(name, server, what, options)
    if type(server) ~= "string" then
        return bad(abi.bad_argument(2, "add", "string", server))
    end
    return change("add", name, server, abi.ADD, what, ADD_KEYS, options, 4)
end

function _M.remove(name, server, options)
    return change("remove", name, server, abi.REMOVE, nil, nil, options, 3)
end

function _M.readdress(name, server, address, options)
    if type(address) ~= "string" then
        return bad(abi.bad_argument(3, "readdress", "string", address))
    end
    return change("readdress", name, server, abi.READDRESS, nil, nil, options, 4, address)
end

return _M

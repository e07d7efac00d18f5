-- The module's C interface, for the two APIs beside this file; scripts use those. What the functions mean is said in
-- src/handlers/lua/mod.rs.
--
-- The module writes into memory of ours, so that there is nothing to give back. It is used again by the next call: what
-- is in it must be taken out before the script could yield.

local ffi = require "ffi"

local C, cast, new, string = ffi.C, ffi.cast, ffi.new, ffi.string
local concat, pairs, pcall, tonumber, tostring, type = table.concat, pairs, pcall, tonumber, tostring, type

local _M = {}

-- Version of the interface that this file was written for.
local ABI = 2

ffi.cdef[[
typedef struct ngx_http_request_s ngx_http_request_t;

typedef struct {
    char      *data;
    uint32_t   size;
    uint32_t   len;
    uint32_t   count;
} ngx_http_upstream_control_ffi_reply_t;

typedef struct {
    uint32_t   at;
    uint32_t   len;
} ngx_http_upstream_control_ffi_part_t;

typedef struct {
    double     revision;
    ngx_http_upstream_control_ffi_part_t  name, zone, method, fixed;
} ngx_http_upstream_control_ffi_upstream_t;

typedef struct {
    double     id, weight, max_conns, max_fails, fail_timeout;
    double     active, fails, last_failure, at;
    ngx_http_upstream_control_ffi_part_t  server, name, client, user, note;
    uint32_t   state, reason, backup, down;
} ngx_http_upstream_control_ffi_peer_t;

typedef struct {
    double     params[4];
    uint32_t   given, action, state, flags;
} ngx_http_upstream_control_ffi_ask_t;

typedef struct {
    const char      *upstream;
    size_t           upstream_len;
    const char      *servers;
    const uint32_t  *lengths;
    size_t           count;
    const char      *address;
    size_t           address_len;
    const char      *note;
    size_t           note_len;
} ngx_http_upstream_control_ffi_texts_t;

typedef struct {
    double     revision, changed, left, id;
} ngx_http_upstream_control_ffi_done_t;

uint32_t ngx_http_upstream_control_ffi_version(void);
int ngx_http_upstream_control_ffi_upstreams(ngx_http_upstream_control_ffi_reply_t *reply);
int ngx_http_upstream_control_ffi_peers(ngx_http_upstream_control_ffi_reply_t *reply, const char *name, size_t len);
int ngx_http_upstream_control_ffi_change(ngx_http_upstream_control_ffi_reply_t *reply,
    const ngx_http_upstream_control_ffi_ask_t *ask, const ngx_http_upstream_control_ffi_texts_t *texts,
    ngx_http_request_t *r);
int ngx_http_upstream_control_ffi_current_upstream(ngx_http_upstream_control_ffi_reply_t *reply,
    ngx_http_request_t *r);
]]

-- A symbol that nobody exports raises an error.
local is_there, version = pcall(function() return C.ngx_http_upstream_control_ffi_version() end)

if not is_there then
    error("ngx_http_upstream_control_module.so is not loaded, or is older than these Lua files: nginx.conf must begin "
          .. "with \"load_module modules/ngx_http_upstream_control_module.so;\"", 0)
end

if version ~= ABI then
    error("ngx_http_upstream_control_module.so has version " .. tonumber(version) .. " of the interface for Lua, these "
          .. "Lua files need version " .. ABI .. ": install both from one release", 0)
end

local OK, MORE = 0, 1

local upstream_ptr = ffi.typeof("const ngx_http_upstream_control_ffi_upstream_t *")
local peer_ptr = ffi.typeof("const ngx_http_upstream_control_ffi_peer_t *")
local done_ptr = ffi.typeof("const ngx_http_upstream_control_ffi_done_t *")
local HEAD = ffi.sizeof("ngx_http_upstream_control_ffi_upstream_t")

local reply = new("ngx_http_upstream_control_ffi_reply_t")
local ask = new("ngx_http_upstream_control_ffi_ask_t")
local texts = new("ngx_http_upstream_control_ffi_texts_t")

-- Memory for replies, of doubles so that rows are aligned.
local memory

local function grow(bytes)
    local size = 16384
    while size < bytes do
        size = size * 2
    end
    memory = new("double[?]", size / 8)
    reply.data = cast("char *", memory)
    reply.size = size
end

grow(0)

-- A text of the reply.
local function text(part)
    return string(reply.data + part.at, part.len)
end

_M.text = text

-- What a function returns when its call was refused: nil, the words for people, and the word for programs.
local function refused()
    local code, words = string(reply.data, reply.len):match("^(%S+) (.*)$")
    -- After a panic it has said nothing.
    return nil, words or "internal error", code or "Internal"
end

-- A pointer to the rows of all upstreams, and how many there are; or nil, words and code.
function _M.upstreams()
    local code = C.ngx_http_upstream_control_ffi_upstreams(reply)

    while code == MORE do
        grow(reply.len)
        code = C.ngx_http_upstream_control_ffi_upstreams(reply)
    end

    if code ~= OK then
        return refused()
    end

    return cast(upstream_ptr, reply.data), reply.count
end

-- A pointer to the row of an upstream, a pointer to the rows of its servers, and how many there are; or nil, words and
-- code.
function _M.peers(name)
    local code = C.ngx_http_upstream_control_ffi_peers(reply, name, #name)

    while code == MORE do
        grow(reply.len)
        code = C.ngx_http_upstream_control_ffi_peers(reply, name, #name)
    end

    if code ~= OK then
        return refused()
    end

    return cast(upstream_ptr, reply.data), cast(peer_ptr, reply.data + HEAD), reply.count
end

-- The bit of each parameter, and its place.
local PARAMS = { weight = 0, max_conns = 1, max_fails = 2, fail_timeout = 3 }
local BITS = { [0] = 1, 2, 4, 8 }

_M.PARAMS = PARAMS

local NOT_A_NUMBER = 0 / 0

-- The request that is served, if any.
local get_request

do
    local ok, base = pcall(require, "resty.core.base")
    get_request = ok and base.get_request or function() return nil end
end

-- For the length of one server that is named by its text, which most calls are about.
local one = new("uint32_t[1]")

local IS_ID = 2147483648

-- Numbers that a call asks for. `action` and `state` as in src/handlers/lua/change.rs; `flags`: 1 backup, 2 force, 4 keep
-- the last server.
_M.SET, _M.ADD, _M.REMOVE, _M.READDRESS = 0, 1, 2, 3
_M.UP, _M.DOWN, _M.DRAIN = 1, 2, 3
_M.BACKUP, _M.FORCE, _M.KEEP_ONE = 1, 2, 4

-- Carries out a change. `server` is the text of one server, or an array of texts and of ids, which are numbers. `params`
-- may have values for the keys of PARAMS, as numbers or digits. Returns a pointer to what was done; or nil, words and
-- code.
function _M.change(upstream, server, action, state, flags, params, address, note)
    local lengths, count = one, 1

    if type(server) == "string" then
        one[0] = #server
    else
        local list = server
        count = #list
        lengths = new("uint32_t[?]", count)
        local words = {}
        for i = 1, count do
            local word = list[i]
            local is_id = type(word) == "number"
            words[i] = is_id and ("%.0f"):format(word) or word
            lengths[i - 1] = #words[i] + (is_id and IS_ID or 0)
        end
        server = concat(words)
    end

    local given = 0
    if params then
        for name, at in pairs(PARAMS) do
            local value = params[name]
            if value ~= nil then
                ask.params[at] = tonumber(value) or NOT_A_NUMBER
                given = given + BITS[at]
            end
        end
    end

    local request = get_request()
    address, note = address or "", note or ""
    ask.given, ask.action, ask.state, ask.flags = given, action, state, flags

    -- From here to the call nothing may be allocated: a collection of garbage does not see these pointers.
    texts.upstream, texts.upstream_len = upstream, #upstream
    texts.servers, texts.lengths, texts.count = server, lengths, count
    texts.address, texts.address_len = address, #address
    texts.note, texts.note_len = note, #note
    local code = C.ngx_http_upstream_control_ffi_change(reply, ask, texts, request)

    if code ~= OK then
        return refused()
    end

    return cast(done_ptr, reply.data)
end

-- Name of the upstream that the present request is sent to; or nil, words and code.
function _M.current_upstream()
    local request = get_request()
    local code = C.ngx_http_upstream_control_ffi_current_upstream(reply, request)

    if code == MORE then
        grow(reply.len)
        code = C.ngx_http_upstream_control_ffi_current_upstream(reply, request)
    end

    if code ~= OK then
        return refused()
    end

    return string(reply.data, reply.len)
end

-- A name as the module takes it: a string, or a number that stands for one as in Lua's own functions. Else nil.
function _M.name(value)
    local kind = type(value)
    if kind == "string" then
        return value
    end
    return kind == "number" and tostring(value) or nil
end

-- The words of Lua's own functions for an argument of another type.
function _M.bad_argument(place, fn, wanted, value)
    return ("bad argument #%d to '%s' (%s expected, got %s)"):format(
        place, fn, wanted, value == nil and "nil" or type(value))
end

return _M

-- The same functions as ngx.dynamic_upstream, for nginx's stream upstreams, which the module does not control yet: each
-- of them says so.

local function not_yet()
    return false, nil, "stream: not yet supported"
end

local _M = {}

for _, name in ipairs {
    "get_upstreams", "get_servers", "get_peers", "get_primary_peers", "get_backup_peers", "set_peer_down", "set_peer_up",
    "add_peer", "add_primary_peer", "add_backup_peer", "remove_peer", "update_peer", "current_upstream",
} do
    _M[name] = not_yet
end

return _M

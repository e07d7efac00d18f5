package Test::Nginx::Lua;

# Lua that runs in nginx, for tests of the Lua APIs.
#
#   path()             lua_package_path for lualib/, as a directive
#   location($uri)     a location that runs what is posted to it
#   lua($chunk, %request)  the results of a chunk, all of them, as text: what
#                      Lua itself would write, tables with sorted keys, bytes
#                      that are not ASCII as \ddd.  Logical ports go in and
#                      come out.  In the chunk, du is ngx.dynamic_upstream and
#                      uc is ngx.upstream_control.
#   dump_lua()         the text of a Lua function that writes values like that

use v5.36;

use Cwd qw/abs_path/;
use Exporter qw/import/;
use File::Basename qw/dirname/;

use Test::Nginx::HTTP qw/http_request/;

our @EXPORT = qw/lua/;

my $lualib = abs_path(dirname(abs_path(__FILE__)) . '/../../../../lualib');

sub path () { return qq{lua_package_path "$lualib/?.lua;;";} }

sub dump_lua () {
	return <<'LUA';
local function dump(value)
    if type(value) == "table" then
        local parts, keys = {}, {}
        for _, item in ipairs(value) do
            parts[#parts + 1] = dump(item)
        end
        for key in pairs(value) do
            if type(key) ~= "number" or key > #value then
                keys[#keys + 1] = tostring(key)
            end
        end
        table.sort(keys)
        for _, key in ipairs(keys) do
            parts[#parts + 1] = key .. "=" .. dump(value[key])
        end
        return "{" .. table.concat(parts, ", ") .. "}"
    elseif type(value) == "string" then
        return '"' .. value:gsub("[^ -~]", function(byte)
            return ("\\%03d"):format(byte:byte())
        end) .. '"'
    end
    return tostring(value)
end
LUA
}

sub location ($uri) {
	my $dump = dump_lua();

	return <<"CONF";
location $uri {
    client_max_body_size 1m;
    client_body_buffer_size 1m;
    content_by_lua_block {
$dump
        ngx.req.read_body()
        local env = setmetatable({
            du = require "ngx.dynamic_upstream",
            uc = require "ngx.upstream_control",
        }, { __index = _G })
        local chunk, err = loadstring(ngx.req.get_body_data(), "=chunk")
        local function all(...)
            return { n = select("#", ...), ... }
        end
        local results = chunk and all(pcall(setfenv(chunk, env)))
            or all(false, err)
        local parts = {}
        for i = 2, results.n do
            parts[#parts + 1] = dump(results[i])
        end
        ngx.header["X-Worker"] = ngx.worker.pid()
        ngx.print((results[1] and "" or "raised ")
            .. table.concat(parts, ", "))
    }
}
CONF
}

sub lua ($chunk, %request) {
	my $r = http_request(
		uri => '/lua', method => 'POST', map_ports => 1, body => $chunk,
		%request,
	);

	return $r->status() == 200 ? $r->body() : $r->status() . ' ' . $r->body();
}

1;
